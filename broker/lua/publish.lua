-- Stores one message and hands it to every subscribed node.
--
-- KEYS  1 stream, 2 meta, 3 epoch, 4 pub/sub channel, 5 idempotency key (may be absent)
-- ARGV  1 payload, 2 messages to keep, 3 how many more before trimming,
--       4 ttl of the stream (ms), 5 ttl of meta (ms), 6 ttl of the key (ms),
--       7 PUBLISH or SPUBLISH, 8 the epoch the node knows
-- Returns {id, 1 if the key had been used before or else 0}.
if KEYS[5] then
  local id = redis.call('GET', KEYS[5])
  if id then return {id, 1} end
end
local prev = last_id(KEYS[1], KEYS[2], KEYS[3], ARGV[8])
local id = next_id(prev)
redis.call('XADD', KEYS[1], id, 'p', prev, 'm', ARGV[1])
if redis.call('XLEN', KEYS[1]) > ARGV[2] + ARGV[3] then
  redis.call('XTRIM', KEYS[1], 'MAXLEN', ARGV[2])
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('SET', KEYS[2], id, 'PX', ARGV[5])
if KEYS[5] then redis.call('SET', KEYS[5], id, 'PX', ARGV[6]) end
local t = redis.call('TIME')
redis.call(ARGV[7], KEYS[4], string.format('\1%s %s %.0f\n', id, prev, t[1] * 1000000 + t[2]) .. ARGV[1])
return {id, 0}
