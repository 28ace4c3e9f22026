-- Adds a name to a set of so many at most.
--
-- KEYS  1 set
-- ARGV  1 name, 2 names at most
-- Returns 1 if the set has the name now, else 0.
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 then return 1 end
if redis.call('SCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
return redis.call('SADD', KEYS[1], ARGV[1])
