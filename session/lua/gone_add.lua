-- Notes when a session is over unless somebody resumes it. The note of a later
-- connection of the session stays.
--   ARGV  1 id   2 ms from now at which it is over   3 what is told of it then
--   or  2 and more of these, one after another
local now = now_ms()
for i = 1, #ARGV, 3 do
  local id, told = ARGV[i], ARGV[i + 2]
  if generation_of(redis.call('HGET', KEYS[2], id)) <= generation_of(told) then
    redis.call('ZADD', KEYS[1], now + tonumber(ARGV[i + 1]), id)
    redis.call('HSET', KEYS[2], id, told)
  end
end
return #ARGV / 3
