-- Tells backends that a session began or is over, once: a session is open from
-- the one to the other.
--   KEYS  1 events  stream   2 open  hash: session id -> 1
--         3 ended  zset: session id -> ms at which it was found to be over; less
--           than 0 if that could not be told, since it was not open
--   ARGV  1 'connected' or 'disconnected'   2 id   3 user   4 node
--         5 reason; with 'connected' of a connection that is over, why
--         6 entries kept, about   7 ms since which it is connected
--         8 ms for which it is remembered that a session is over   9 of how many
-- Answers 1, or 0 if it was told before.
local kind, id = ARGV[1], ARGV[2]

local function tell(event, reason)
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[6], '*', 'event', event,
    'session', id, 'user', ARGV[3], 'node', ARGV[4], 'reason', reason)
end

local over = tonumber(redis.call('ZSCORE', KEYS[3], id) or '')

if kind == 'connected' then
  if over and over < 0 then redis.call('ZADD', KEYS[3], -over, id) end
  if over and math.abs(over) >= tonumber(ARGV[7]) then
    -- It is repeated, or comes late: the session is not open.
    if over > 0 then return 0 end
    tell('connected', '')
    tell('disconnected', ARGV[5])
    return 1
  end
  if redis.call('HSETNX', KEYS[2], id, '1') == 0 then return 0 end
  tell('connected', '')
  return 1
end

local now = now_ms()
local open = redis.call('HDEL', KEYS[2], id)
if open == 1 then
  tell('disconnected', ARGV[5])
  redis.call('ZADD', KEYS[3], now, id)
elseif not over then
  redis.call('ZADD', KEYS[3], -now, id)
end
redis.call('ZREMRANGEBYSCORE', KEYS[3], ARGV[8] - now, now - ARGV[8])
redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -1 - ARGV[9])
redis.call('PEXPIRE', KEYS[3], ARGV[8])
return open
