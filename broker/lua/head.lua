-- Says where a channel stands, and whether all after a position is still there.
--
-- KEYS  1 stream, 2 meta, 3 epoch
-- ARGV  1 position, 2 the epoch the node knows, 3 the newest id it has seen,
--       4 'new' if the node is not sure that a first epoch is the first,
--       5 ms that one has to stand to be so without asking
-- Returns {id of the last message, 1 if nothing after the position is gone or else 0,
-- 1 if that is to be found out first}.
local since = ARGV[1]
local id, kind = ensure_epoch(KEYS[3], ARGV[2], ARGV[3])
local base = base_of(id, kind)
local last = last_id(KEYS[1], redis.call('GET', KEYS[2]), base)
if since ~= base and newer(base, since) == base then return {last, 0, 0} end
if since == '0-0' and kind == 'first' and ARGV[4] == 'new' then
  local t = redis.call('TIME')
  local age = t[1] * 1000 + math.floor(t[2] / 1000) - string.match(id, '^%d+')
  if age < ARGV[5] + 0 then return {last, 0, 1} end
end
if since == last then return {last, 1, 0} end
if newer(since, last) == since then return {last, 0, 0} end
-- Every entry names the one before it: if the next one names the position, nothing
-- between them is gone. What is gone further on was trimmed with all before it, or
-- was lost before the base.
local next = redis.call('XRANGE', KEYS[1], '(' .. since, '+', 'COUNT', 1)
local fields = next[1] and next[1][2] or {}
for i = 1, #fields, 2 do
  if fields[i] == 'p' and fields[i + 1] == since then return {last, 1, 0} end
end
return {last, 0, 0}
