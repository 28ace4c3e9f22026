-- Keeps how far a device has read its user's inbox. It only goes forward.
--   KEYS  1 acks  hash: device -> <id> <ms of the ack>
--   ARGV  1 device   2 id   3 ms for which it is kept   4 devices kept
-- Answers 1, or 0 if the device had read as far before.
local now = now_ms()

-- before compares numbers too large for Lua: digits, without leading zeros.
local function before(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end

local function older(a, b)
  local a_ms, a_seq = string.match(a, '^(%d+)-(%d+)')
  local b_ms, b_seq = string.match(b, '^(%d+)-(%d+)')
  if a_ms ~= b_ms then return before(a_ms, b_ms) end
  return before(a_seq, b_seq)
end

local known = redis.call('HGET', KEYS[1], ARGV[1])
local moved = not known or older(known, ARGV[2])
local id = moved and ARGV[2] or string.match(known, '^%S+')
redis.call('HSET', KEYS[1], ARGV[1], id .. ' ' .. string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], ARGV[3])

if redis.call('HLEN', KEYS[1]) > tonumber(ARGV[4]) then
  local all = redis.call('HGETALL', KEYS[1])
  local oldest, at
  for i = 1, #all, 2 do
    local ms = tonumber(string.match(all[i + 1], '(%d+)$'))
    if all[i] ~= ARGV[1] and (not at or ms < at) then oldest, at = all[i], ms end
  end
  redis.call('HDEL', KEYS[1], oldest)
end
return moved and 1 or 0
