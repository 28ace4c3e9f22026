-- Takes a lease.
--   ARGV  1 lease   2 its length, ms   3 info
--         4 name of the node if it has just started, else ''
--         5... the lease that it had before, and those that it knew then
-- Answers {time, leases}.
local now = now_ms()

-- A name that comes back ends the leases of those that had it.
if ARGV[4] ~= '' then
  for _, lease in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    if lease ~= ARGV[1] and string.match(lease, '^(.*)|[^|]*$') == ARGV[4] then finish(lease, now) end
  end
end
-- These may be gone from here and still have sessions: the sweep is to find them. A
-- node that lives and is among them takes another one.
for i = 5, #ARGV do redis.call('ZADD', KEYS[1], 'NX', now, ARGV[i]) end

redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return table_of(now)
