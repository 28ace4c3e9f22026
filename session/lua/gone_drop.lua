-- Takes back a note of a connection that had lost the session to another one.
--   ARGV  1 id   2 generation of the connection
if generation_of(redis.call('HGET', KEYS[2], ARGV[1])) > tonumber(ARGV[2]) then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return 1
