-- Says what becomes of a session when leave.lua ends its connection.
--   ARGV  1 id   2 claim   3 lease   4 ms at which it was left (0: now)   5 window, ms
-- Answers {ms at which its window is over, generation, channels}, or {} if it is
-- not under this claim and lease, or over.
local now = now_ms()
local at = tonumber(ARGV[4])
if at == 0 then at = now end

local id = ARGV[1]
local s = read(id)
if not s or s.claim ~= ARGV[2] or s.lease ~= ARGV[3] or s.state == 'ended' or is_over(id, now) then return {} end
return {has_left(id) or at + tonumber(ARGV[5]), s.generation, redis.call('HGET', KEYS[3], id) or ''}
