-- Tells backends that a session began or is over, once: a session is open from
-- the one to the other.
--   KEYS  1 events  stream   2 open  hash: session id -> 1
--   ARGV  1 'connected' or 'disconnected'   2 id   3 user   4 node   5 reason
--         6 entries kept, about
-- Answers 1, or 0 if it was told before.
local told
if ARGV[1] == 'connected' then
  told = redis.call('HSETNX', KEYS[2], ARGV[2], '1')
else
  told = redis.call('HDEL', KEYS[2], ARGV[2])
end
if told == 1 then
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[6], '*', 'event', ARGV[1],
    'session', ARGV[2], 'user', ARGV[3], 'node', ARGV[4], 'reason', ARGV[5])
end
return told
