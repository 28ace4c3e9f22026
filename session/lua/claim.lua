-- Creates a session, or moves the wanted one to a new connection.
--   ARGV  1 Redis's time at which the caller gives up, ms: a script that Redis
--           comes to only later must do nothing
--         2 id of the session wanted ('' for none)   3 id of a new session
--         4 claim: marks this call, so that it can be repeated or taken back
--         5 lease of the caller   6 client   7 details
--         8 limit of connected sessions with this client (0: none)
--         9 window, ms   10 sessions kept without a connection
--        11 device ('' for none)
--        12... leases that are over, each followed by its end, ms
--   KEYS  also 5 acks, see ack.lua
-- Answers {'late'}, {'limit', the leases counted...} or
-- {'ok', id, generation, time, previous lease, previous generation, channels,
-- ack of the device};
-- the previous ones are '' and 0 if no connection had it.
local wanted, fresh, claim, lease, client = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local limit, window, keep = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local now = now_ms()
if now > tonumber(ARGV[1]) then return {'late'} end

local over = {}
for i = 12, #ARGV, 2 do over[ARGV[i]] = tonumber(ARGV[i + 1]) end

local function granted(id, generation, lease_before, generation_before)
  return {'ok', id, generation, now, lease_before or '', generation_before or 0,
    redis.call('HGET', KEYS[3], id) or '',
    ARGV[11] ~= '' and redis.call('HGET', KEYS[5], ARGV[11]) or ''}
end

for _, id in ipairs({wanted, fresh}) do
  local s = read(id)
  if s and s.claim == claim then
    if s.state == 'ended' then return {'late'} end -- disconnected since
    return granted(id, s.generation)
  end
end

trim(now)

-- A session which says of itself that it was left is resumable for another window if
-- Redis has lost until when it was. A few are looked at each time, whatever there is.
for _, id in ipairs(redis.call('HRANDFIELD', KEYS[1], 20)) do
  local s = read(id)
  if s.state == 'left' and not has_left(id) then leave(id, now + window) end
end

local found = read(wanted)
if found and (found.foreign or found.state == 'ended' or is_over(wanted, now)) then found = nil end
local connected = found and is_connected(wanted, found)
if connected and over[found.lease] and over[found.lease] + window <= now then
  found, connected = nil, false -- it is for the sweep of its lease to say so
end

-- Sessions are counted one by one only if all together are enough to matter.
if limit > 0 and redis.call('HLEN', KEYS[1]) - redis.call('ZCARD', KEYS[2]) >= limit then
  local count, leases = 0, {}
  for _, id in ipairs(redis.call('HKEYS', KEYS[1])) do
    local s = id ~= wanted and read(id)
    if s and not s.foreign and is_connected(id, s) and not over[s.lease] and s.client == client then
      count = count + 1
      leases[s.lease] = true
    end
  end
  if count >= limit then
    settle()
    local answer = {'limit'}
    for l in pairs(leases) do answer[#answer + 1] = l end
    return answer
  end
end

local surplus = redis.call('ZCARD', KEYS[2]) - keep
if surplus > 0 then
  for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, surplus - 1)) do
    if id ~= wanted then remove(id) end
  end
end

local id, generation = fresh, 1
if found then
  id, generation = wanted, found.generation + 1
  redis.call('ZREM', KEYS[2], id)
end
redis.call('HSET', KEYS[1], id, table.concat({
  '1', string.format('%.0f', generation), lease, claim, string.format('%.0f', now), client, ARGV[7]}, ' '))
settle()
if connected then return granted(id, generation, found.lease, found.generation) end
return granted(id, generation)
