-- In front of every script about the nodes. Its keys are always
--   KEYS[1] lease  zset: lease -> ms at which it ends
--   KEYS[2] info   hash: lease -> what its node says of itself, JSON
-- A lease is "<node name>|<start>-<random>.<number>". One that has ended never
-- goes on: its node takes another number.

-- table_of answers Redis's time and all leases with their ends.
local function table_of(now)
  return {now, redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')}
end

-- finish ends a lease now unless it has ended before.
local function finish(lease, now)
  local ends = redis.call('ZSCORE', KEYS[1], lease)
  if ends and tonumber(ends) > now then redis.call('ZADD', KEYS[1], now, lease) end
end

