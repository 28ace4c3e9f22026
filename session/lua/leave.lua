-- Ends the connection of a session from outside: its node is dead, or it is
-- not known whether the claim was done. Repeating it changes nothing.
--   ARGV  1 id   2 claim   3 lease   4 ms at which it was left (0: now)   5 window, ms
-- Answers 1 if it is left under this claim and lease now, be it by this call or by
-- one before, else 0: also if its window is over already.
local now = now_ms()
local at = tonumber(ARGV[4])
if at == 0 then at = now end

local id = ARGV[1]
local s = read(id)
if not s or s.claim ~= ARGV[2] or s.lease ~= ARGV[3] or is_over(id, now) then return 0 end
leave(id, has_left(id) or at + tonumber(ARGV[5]))
trim(now)
settle()
return 1
