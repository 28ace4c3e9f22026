-- Makes sure that a lane has an epoch.
--
-- KEYS  1 epoch
-- ARGV  1 the epoch the node knows
-- Returns the epoch: 'id kind'.
local id, kind = ensure_epoch(KEYS[1], ARGV[1])
return id .. ' ' .. kind
