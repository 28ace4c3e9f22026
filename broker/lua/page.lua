-- Reads a page of a stream, bounded in messages and in bytes.
--
-- KEYS  1 stream
-- ARGV  1 XRANGE or XREVRANGE, 2 where to begin, as the command takes it, 3 where to
--       end, 4 messages at most, 5 bytes at which to stop
-- Returns {entries, 1 if a bound has ended them or else 0}. The last entry may lead
-- over the bytes, so that a page has one if there is any.
local command, at, to, left, room = ARGV[1], ARGV[2], ARGV[3], ARGV[4] + 0, ARGV[5] + 0
local page, step = {}, 1
while left > 0 do
  -- A few at a time: what is read beyond the bound is read in vain.
  local asked = math.min(step, left)
  local entries = redis.call(command, KEYS[1], at, to, 'COUNT', asked)
  for _, entry in ipairs(entries) do
    page[#page + 1] = entry
    at = '(' .. entry[1]
    for _, field in ipairs(entry[2]) do room = room - #field end
    if room <= 0 then return {page, 1} end
  end
  if #entries < asked then return {page, 0} end
  left = left - asked
  step = math.min(2 * step, 8)
end
return {page, 1}
