-- Removes a lease that is over and swept.
--   ARGV  1 lease
-- Answers 1 if its node did not end it itself: then it is still described.
local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
if ends and tonumber(ends) > now_ms() then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
return redis.call('HDEL', KEYS[2], ARGV[1])
