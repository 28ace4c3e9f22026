-- Ends the connection of a session from outside: its node is dead, or it is
-- not known whether the claim was done. Repeating it changes nothing.
--   ARGV  1 id   2 claim   3 lease   4 ms at which it was left (0: now)   5 window, ms
-- Answers 1 if it was connected under this claim and lease, else 0.
local now = now_ms()
local at = tonumber(ARGV[4])
if at == 0 then at = now end

local s = read(ARGV[1])
if not s or s.claim ~= ARGV[2] or s.lease ~= ARGV[3] or has_left(ARGV[1]) then return 0 end
trim(now)
leave(ARGV[1], at + tonumber(ARGV[5]), now)
settle()
return 1
