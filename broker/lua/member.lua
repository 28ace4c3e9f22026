-- Makes a session a member of a channel, or ends that, and tells when its user
-- comes: the first of the user's sessions. A user whose last session has left is
-- noted, with the time at which that is to be told (departures.lua, depart.lua),
-- and is a user without sessions until then. Who is back by then was never away.
--
-- KEYS  1 stream, 2 meta, 3 epoch, 4 pub/sub channel,
--       5 members  hash: session -> <generation> <user>
--       6 users    hash: user -> number of sessions
--       7 leaving  sorted set of the lane: <channel> <user> -> when to tell, in ms
-- ARGV  1 'enter' or 'leave', 2 session, 3 user, 4 generation, 5 channel,
--       6 ms until a leave is told, 7 payload of the message that tells of a join,
--       8... see store
-- Returns 1 if the user has come, or has no session left, else 0.
local session, user = ARGV[2], ARGV[3]
local member = redis.call('HGET', KEYS[5], session)
local generation, known = string.match(member or '', '^(%d+) (.*)$')
-- A late call of a connection that no longer has the session changes nothing.
if generation and tonumber(generation) > tonumber(ARGV[4]) then return 0 end

if ARGV[1] == 'enter' then
  redis.call('HSET', KEYS[5], session, ARGV[4] .. ' ' .. user)
  if generation then return 0 end
  local before = redis.call('HGET', KEYS[6], user)
  redis.call('HINCRBY', KEYS[6], user, 1)
  if before then
    if before == '0' then redis.call('ZREM', KEYS[7], ARGV[5] .. ' ' .. user) end
    return 0
  end
  store(8, ARGV[7])
  return 1
end

if not generation then return 0 end
redis.call('HDEL', KEYS[5], session)
local left = redis.call('HINCRBY', KEYS[6], known, -1)
if left > 0 then return 0 end
if left < 0 then redis.call('HSET', KEYS[6], known, 0) end
local t = redis.call('TIME')
local due = t[1] * 1000 + math.floor(t[2] / 1000) + 1 + ARGV[6] -- not a part of a millisecond early
redis.call('ZADD', KEYS[7], string.format('%.0f', due), ARGV[5] .. ' ' .. known)
return 1
