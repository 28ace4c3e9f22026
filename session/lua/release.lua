-- Ends a lease now. What its node said of itself goes with it, which tells that
-- the node has stopped and not died.
--   ARGV  1 lease
-- Answers {time, leases}.
local now = now_ms()
finish(ARGV[1], now)
redis.call('HDEL', KEYS[2], ARGV[1])
return table_of(now)
