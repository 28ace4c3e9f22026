-- Takes sessions whose time has come. Whoever takes one has it to itself for a
-- while; if it is not settled by then, it comes up again.
--   ARGV  1 how many at most   2 ms for which they are the caller's
--         3 an epoch that nobody knows
--   KEYS  also 3 epoch  string: names the life of these data
-- Answers {epoch, ticket, id, what is told, id, what is told...}; the ticket is for
-- gone_done. An epoch that is not the one before: notes were lost.
local now = now_ms()
local ticket = string.format('%.0f', now + tonumber(ARGV[2]))
local epoch = redis.call('GET', KEYS[3])
if not epoch then
  epoch = ARGV[3]
  redis.call('SET', KEYS[3], epoch)
end
local answer = {epoch, ticket}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])) do
  local told = redis.call('HGET', KEYS[2], id)
  if told then
    redis.call('ZADD', KEYS[1], ticket, id)
    answer[#answer + 1] = id
    answer[#answer + 1] = told
  else
    redis.call('ZREM', KEYS[1], id)
  end
end
return answer
