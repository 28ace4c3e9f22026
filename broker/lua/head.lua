-- Says where a channel stands, and whether all after a position is still there.
--
-- KEYS  1 stream, 2 meta, 3 epoch
-- ARGV  1 position, 2 the epoch the node knows
-- Returns {id of the last message, 1 if nothing after the position is gone or else 0}.
local since = ARGV[1]
local last = last_id(KEYS[1], KEYS[2], KEYS[3], ARGV[2])
local _, kind = ensure_epoch(KEYS[3], ARGV[2])
if since == '0-0' and kind == 'lost' then return {last, 0} end
if since == last then return {last, 1} end
-- Every entry names the one before it, so the first entry that is left names the
-- newest one that is gone. A position that is neither that nor an entry itself
-- was never issued by this data.
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
if not first[1] then return {last, 0} end
local fields = first[1][2]
for i = 1, #fields, 2 do
  if fields[i] == 'p' and fields[i + 1] == since then return {last, 1} end
end
return {last, #redis.call('XRANGE', KEYS[1], since, since)}
