-- Makes a session a member of a channel, or ends that, and tells when its user
-- comes or goes: the first of the user's sessions, the last.
--
-- KEYS  1 stream, 2 meta, 3 epoch, 4 pub/sub channel,
--       5 members  hash: session -> <generation> <user>
--       6 users    hash: user -> number of sessions
-- ARGV  1 'enter' or 'leave', 2 session, 3 user, 4 generation,
--       5 payload of the message that tells, 6... see store
-- Returns 1 if the user has come or gone, else 0.
local session, user = ARGV[2], ARGV[3]
local member = redis.call('HGET', KEYS[5], session)
local generation, known = string.match(member or '', '^(%d+) (.*)$')
-- A late call of a connection that no longer has the session changes nothing.
if generation and tonumber(generation) > tonumber(ARGV[4]) then return 0 end

if ARGV[1] == 'enter' then
  redis.call('HSET', KEYS[5], session, ARGV[4] .. ' ' .. user)
  if generation or redis.call('HINCRBY', KEYS[6], user, 1) > 1 then return 0 end
else
  if not generation then return 0 end
  redis.call('HDEL', KEYS[5], session)
  if redis.call('HINCRBY', KEYS[6], known, -1) > 0 then return 0 end
  redis.call('HDEL', KEYS[6], known)
end
store(6, ARGV[5])
return 1
