-- Says where a channel stands, and whether all after a position is still there.
--
-- KEYS  1 stream, 2 meta, 3 epoch
-- ARGV  1 position, 2 the epoch the node knows, 3 the newest id it has seen,
--       4 ms that an epoch has to stand before 0-0 is vouched for
-- Returns {id of the last message, 1 if nothing after the position is gone or else 0,
-- ms after which to ask again}.
local since = ARGV[1]
local id, kind = ensure_epoch(KEYS[3], ARGV[2], ARGV[3])
local base = base_of(id, kind)
local last = last_id(KEYS[1], redis.call('GET', KEYS[2]), base)
if since ~= base and newer(base, since) == base then return {last, 0, 0} end
if since == '0-0' and ARGV[4] ~= '0' then
  -- Nobody may have had the time to say that this is not the first epoch.
  local t = redis.call('TIME')
  local age = t[1] * 1000 + math.floor(t[2] / 1000) - string.match(id, '^%d+')
  if age < ARGV[4] + 0 then return {last, 0, ARGV[4] - math.max(age, 0)} end
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
