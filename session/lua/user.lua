-- In front of every script about one user. Its keys are always
--   KEYS[1] sessions  hash: session id -> record
--   KEYS[2] left      zset: id of a session without a connection -> ms at which its window is over
--   KEYS[3] channels  hash: session id -> its channels
-- A record is fields with one space between them, none of which has one inside:
--   1 <generation> <lease> <claim> <ms of the claim> <client> <details>
-- The 1 is the version; a reader ignores fields after these, and leaves a
-- record of another version alone.

local function read(id)
  local record = redis.call('HGET', KEYS[1], id)
  if not record then return nil end
  local generation, lease, claim, client =
    string.match(record, '^1 (%d+) ([^ ]+) ([^ ]+) %d+ ([^ ]+)')
  if not generation then return {foreign = true} end
  return {generation = tonumber(generation), lease = lease, claim = claim, client = client}
end

local function has_left(id) return redis.call('ZSCORE', KEYS[2], id) end

local function remove(id)
  redis.call('HDEL', KEYS[1], id)
  redis.call('ZREM', KEYS[2], id)
  redis.call('HDEL', KEYS[3], id)
end

-- leave keeps a session without a connection until expires.
local function leave(id, expires, now)
  if expires <= now then return remove(id) end
  redis.call('ZADD', KEYS[2], expires, id)
end

-- trim removes the sessions whose window is over.
local function trim(now)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)) do remove(id) end
end

-- settle comes last in a script that changed something: while a session is
-- connected the keys stay, then they go with the longest window.
local function settle()
  if redis.call('HLEN', KEYS[1]) > redis.call('ZCARD', KEYS[2]) then
    if redis.call('PTTL', KEYS[1]) < 0 then return end
    for _, key in ipairs(KEYS) do redis.call('PERSIST', key) end
    return
  end
  local last = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2]
  if not last then return end
  for _, key in ipairs(KEYS) do redis.call('PEXPIREAT', key, last) end
end

