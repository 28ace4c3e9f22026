-- In front of every script about one user's sessions. Its first keys are always
--   KEYS[1] sessions  hash: session id -> record
--   KEYS[2] left      zset: id of a session without a connection -> ms at which its window is, or was, over
--   KEYS[3] channels  hash: session id -> its channels
--   KEYS[4] ended     zset: id of a session that a backend has disconnected -> ms until which that is remembered;
--                     '*' for all that were claimed before
-- A record is fields with one space between them, none of which has one inside:
--   1 <generation> <lease> <claim> <ms of the claim> <client> <details> [<state>]
-- The 1 is the version; a reader ignores fields after these, and leaves a
-- record of another version alone. The state is 'left' if the connection itself
-- has said that it is over, and 'ended' if a backend has disconnected it.

-- read returns a session, or nil. One whose generation a double cannot count is
-- not of ours.
local function read(id)
  local record = redis.call('HGET', KEYS[1], id)
  if not record then return nil end
  local generation, lease, claim, client, state =
    string.match(record, '^1 (%d+) ([^ ]+) ([^ ]+) %d+ ([^ ]+) ?[^ ]* ?([^ ]*)')
  if not generation or #generation > 15 then return {foreign = true} end
  return {generation = tonumber(generation), lease = lease, claim = claim, client = client, state = state}
end

-- has_left returns when the window of a session without a connection is over,
-- and nil for others.
local function has_left(id) return tonumber(redis.call('ZSCORE', KEYS[2], id) or '') end

-- is_over reports whether nobody can resume a session any more.
local function is_over(id, now)
  local ends = has_left(id)
  return ends and ends <= now
end

-- A session that is over is kept for a while, in ms: who comes late, having
-- heard of nothing, finds its generation there and does not bring it back.
local grave = 60000

local function remove(id)
  redis.call('HDEL', KEYS[1], id)
  redis.call('ZREM', KEYS[2], id)
  redis.call('HDEL', KEYS[3], id)
end

-- leave lets a session without a connection be resumed until expires.
local function leave(id, expires) redis.call('ZADD', KEYS[2], expires, id) end

-- trim removes the sessions that have been over for long enough.
local function trim(now)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - grave)) do remove(id) end
end

-- is_connected reports whether a session has a connection, as far as is known. One that
-- says of itself that it was left has none, though it is lost until when it can be resumed.
local function is_connected(id, s) return s.state ~= 'left' and not has_left(id) end

-- tidy forgets that sessions were left which are not there any more: Redis may lose
-- the one key without the other. It looks at so many that this is no burden.
local function tidy()
  for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, 999)) do
    if redis.call('HEXISTS', KEYS[1], id) == 0 then redis.call('ZREM', KEYS[2], id) end
  end
end

-- settle comes last in a script that changed something: while a session is
-- connected the keys stay, then they go with the last grave.
local function settle()
  local all, left = redis.call('HLEN', KEYS[1]), redis.call('ZCARD', KEYS[2])
  if all <= left then
    tidy()
    left = redis.call('ZCARD', KEYS[2])
  end
  if all > left then
    if redis.call('PTTL', KEYS[1]) < 0 then return end
    for i = 1, 3 do redis.call('PERSIST', KEYS[i]) end
    return
  end
  local last = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2]
  if not last then return end
  for i = 1, 3 do redis.call('PEXPIREAT', KEYS[i], last + grave) end
end
