-- Ends a lease now.
--   ARGV  1 lease
-- Answers {time, leases}.
local now = now_ms()
finish(ARGV[1], now)
return table_of(now)
