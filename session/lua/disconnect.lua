-- Ends sessions, connected or left: none can be resumed, and none is written
-- back by a node that has not heard of it.
--   ARGV  1 id ('' for all)   2 ms for which that is remembered   3 how many are remembered
--         4 1, or 0 if the id cannot be one
-- Answers {id, generation, lease, connection, channels} of each. The connection is
-- 1 if there is one, 2 if its node went without a word, so that there may be one,
-- and 0 if it has gone.
local now = now_ms()
local ended = {}

local function remember(id)
  redis.call('ZADD', KEYS[4], now + tonumber(ARGV[2]), id)
  redis.call('PEXPIRE', KEYS[4], ARGV[2])
end

-- forbid has every later write of a session refused. While its record is there
-- that says so, with a generation that no connection has; afterwards the set does.
-- Nobody comes back to a session that one connection alone has had, and left.
local function forbid(id, s)
  local rest = string.match(redis.call('HGET', KEYS[1], id), '^1 %d+ ([^ ]+ [^ ]+ %d+ [^ ]+ [^ ]+)')
  if rest then
    redis.call('HSET', KEYS[1], id, '1 ' .. string.format('%.0f', s.generation + 1) .. ' ' .. rest .. ' ended')
  end
  if s.generation > 1 or s.state ~= 'left' then remember(id) end
end

local ids = ARGV[1] == '' and redis.call('HKEYS', KEYS[1]) or {ARGV[1]}
for _, id in ipairs(ids) do
  local s = read(id)
  if s and not s.foreign and s.state ~= 'ended' and not is_over(id, now) then
    local connection = is_connected(id, s) and 1 or s.state == 'left' and 0 or 2
    ended[#ended + 1] = {id, s.generation, s.lease, connection, redis.call('HGET', KEYS[3], id) or ''}
    forbid(id, s)
    leave(id, now)
    redis.call('HDEL', KEYS[3], id)
  end
end

redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now)
redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -1 - tonumber(ARGV[3]))
-- What is not known here may be connected all the same, on a node that is away or
-- because Redis has just lost it: nobody can tell that it is not.
if ARGV[1] == '' then
  remember('*')
elseif #ended == 0 and ARGV[4] == '1' then
  remember(ARGV[1])
end
trim(now)
settle()
return ended
