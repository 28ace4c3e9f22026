-- Takes a lease.
--   ARGV  1 lease   2 its length, ms   3 info
--         4 name of the node if it has just started, else ''
--         5 lease it had before, '' for none
-- Answers {time, leases}.
local now = now_ms()

-- A name that comes back ends the leases of those that had it.
if ARGV[4] ~= '' then
  for _, lease in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    if lease ~= ARGV[1] and string.match(lease, '^(.*)|[^|]*$') == ARGV[4] then finish(lease, now) end
  end
end
-- The lease before may be gone from here and still have sessions: the sweep is
-- to find it.
if ARGV[5] ~= '' then redis.call('ZADD', KEYS[1], 'NX', now, ARGV[5]) end

redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return table_of(now)
