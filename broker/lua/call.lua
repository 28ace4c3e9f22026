-- Adds an entry to a stream that backends read with consumer groups.
--
-- KEYS  1 stream, 2 a key that is there while the stream has just been trimmed,
--       3 cost  hash: total  bytes that the entries of the stream count for,
--                     open   those of them that no segment has yet,
--                     <id>   bytes of a segment, which ends with this entry
-- ARGV  1 entries kept at most, 2 bytes kept at most, 3 ms between two trimmings,
--       4 '1' if the stream may be begun, 5... fields and values
-- Returns 1, 0 if the stream is full, or -1 if there is none, having written nothing.
--
-- What entries count for is given back by segments, each a 64th of the bound or
-- more: so it costs the same however many entries go, and holds whoever deletes them.
local max_len, max_bytes = tonumber(ARGV[1]), tonumber(ARGV[2])
local length = redis.call('XLEN', KEYS[1])
if length == 0 and ARGV[4] ~= '1' and redis.call('EXISTS', KEYS[1]) == 0 then return -1 end

-- An entry takes its bytes, a quarter more by the sizes that memory comes in, and
-- its places in the stream and in the lists of what is delivered.
local cost = 256
for i = 5, #ARGV do cost = cost + math.ceil(#ARGV[i] * 1.25) end

-- give_back forgets the segments that end before an id.
local function give_back(first)
  local fields, gone = redis.call('HGETALL', KEYS[3]), 0
  for i = 1, #fields, 2 do
    local id = fields[i]
    if string.find(id, '-', 1, true) and newer(id, first) ~= id then
      gone = gone + fields[i + 1]
      redis.call('HDEL', KEYS[3], id)
    end
  end
  if gone > 0 then redis.call('HINCRBY', KEYS[3], 'total', string.format('%.0f', -gone)) end
end

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
  if first then
    redis.call('XTRIM', KEYS[1], 'MINID', first)
    give_back(first)
  end
end

local total, open
-- full looks at the stream, and reports whether the entry has no room.
local function full()
  length = redis.call('XLEN', KEYS[1])
  if length == 0 then redis.call('DEL', KEYS[3]) end
  local counted = redis.call('HMGET', KEYS[3], 'total', 'open')
  total, open = (counted[1] or 0) + cost, (counted[2] or 0) + cost
  return length >= max_len or total > max_bytes
end

local refused = full()
if length > 0 and (refused or redis.call('EXISTS', KEYS[2]) == 0) then
  redis.call('SET', KEYS[2], '1', 'PX', ARGV[3])
  trim()
  refused = full()
end
if refused then return 0 end
local entry = {'XADD', KEYS[1], '*'}
for i = 5, #ARGV do entry[#entry + 1] = ARGV[i] end
local id = redis.call(unpack(entry))
if open * 64 >= max_bytes then
  redis.call('HSET', KEYS[3], id, string.format('%.0f', open))
  open = 0
end
redis.call('HSET', KEYS[3], 'total', string.format('%.0f', total), 'open', string.format('%.0f', open))
return 1
