-- Renews a lease.
--   ARGV  1 lease   2 its length, ms   3 info
-- Answers {time, leases, end of the lease before}; the last is missing, and
-- nothing done, if the lease is over.
local now = now_ms()
local before = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not before or tonumber(before) <= now then return table_of(now) end

redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
local answer = table_of(now)
answer[3] = before
return answer
