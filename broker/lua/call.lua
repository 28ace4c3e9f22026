-- Adds an entry to a stream that backends read with consumer groups.
--
-- KEYS  1 stream, 2 a key that is there while the stream has just been trimmed
-- ARGV  1 entries kept at most, 2 ms between two trimmings, 3... fields and values
-- Returns 1, or 0 if the stream is full.

-- trim removes what every group has acknowledged. Without a group nothing is.
local function trim()
  local first
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local g = {}
    for i = 1, #group, 2 do g[group[i]] = group[i + 1] end
    local from = redis.call('XPENDING', KEYS[1], g.name)[2]
    if not from then
      local ms, seq = string.match(g['last-delivered-id'], '^(%d+)-(%d+)')
      from = string.format('%s-%.0f', ms, tonumber(seq) + 1)
    end
    first = first and newer(first, from) == first and from or first or from
  end
  if first then redis.call('XTRIM', KEYS[1], 'MINID', first) end
end

local length = redis.call('XLEN', KEYS[1])
if length > 0 and (length >= tonumber(ARGV[1]) or redis.call('EXISTS', KEYS[2]) == 0) then
  redis.call('SET', KEYS[2], '1', 'PX', ARGV[2])
  trim()
  length = redis.call('XLEN', KEYS[1])
end
if length >= tonumber(ARGV[1]) then return 0 end
local entry = {'XADD', KEYS[1], '*'}
for i = 3, #ARGV do entry[#entry + 1] = ARGV[i] end
redis.call(unpack(entry))
return 1
