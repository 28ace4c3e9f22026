-- Notes when a session is over unless somebody resumes it.
--   ARGV  1 id   2 ms from now at which it is over   3 what is told of it then, JSON
--   or  2 and more of these, one after another
local now = now_ms()
for i = 1, #ARGV, 3 do
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[i + 1]), ARGV[i])
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 2])
end
return #ARGV / 3
