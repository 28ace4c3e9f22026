-- Stores one message and hands it to every subscribed node.
--
-- KEYS  1 stream, 2 meta, 3 epoch, 4 pub/sub channel, 5 idempotency key (may be absent)
-- ARGV  1 payload, 2 ttl of the key (ms), 3... see store
-- Returns {id, 1 if the key had been used before or else 0}.
if KEYS[5] then
  local id = redis.call('GET', KEYS[5])
  if id then
    -- It is written again: who waits for a replica waits for this, and for all before.
    redis.call('PEXPIRE', KEYS[5], ARGV[2])
    return {id, 1}
  end
end
return {store(3, ARGV[1], KEYS[5], ARGV[2]), 0}
