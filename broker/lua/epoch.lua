-- Makes sure that a lane has an epoch, and that a loss of data has one of its own.
--
-- KEYS  1 epoch, 2 set of the nodes that know of no earlier one than the first
-- ARGV  1 the epoch the node knows, 2 the newest id it has seen,
--       3 the newest id of which it knows that it is gone; 0-0 if it knows of none,
--       4 the node, 5 ttl of the set (ms)
-- Returns the epoch: 'id kind'.
local id, kind = ensure_epoch(KEYS[1], ARGV[1], ARGV[2])
if newer(base_of(id, kind), ARGV[3]) == ARGV[3] and ARGV[3] ~= base_of(id, kind) then
  id, kind = begin_epoch(KEYS[1], newer(ARGV[2], ARGV[3]), 'lost')
end
if kind == 'first' then
  redis.call('SADD', KEYS[2], ARGV[4])
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
end
return id .. ' ' .. kind
