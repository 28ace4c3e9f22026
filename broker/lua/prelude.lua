-- Shared by the scripts of this folder, put in front of each.

-- following returns the id that follows on last in the same millisecond.
local function following(last)
  local ms, seq = string.match(last, '^(%d+)-(%d+)')
  return ms .. '-' .. string.format('%.0f', seq + 1)
end

-- newer returns the greater of two ids. A number without leading zeros is greater
-- if it is longer; the numbers themselves may be too large for Lua.
local function newer(a, b)
  local a_ms, a_seq = string.match(a, '^(%d+)-(%d+)')
  local b_ms, b_seq = string.match(b, '^(%d+)-(%d+)')
  if a_ms == b_ms then a_ms, b_ms = a_seq, b_seq end
  if #a_ms ~= #b_ms then return #a_ms > #b_ms and a or b end
  return a_ms >= b_ms and a or b
end

-- begin_epoch begins a life of the data. Its id is one millisecond ahead of the
-- clock, and comes after seen, so that it comes after all that were issued before,
-- even in the millisecond of the loss.
local function begin_epoch(key, seen, kind)
  local t = redis.call('TIME')
  local ms = t[1] * 1000 + math.floor(t[2] / 1000)
  local id = string.format('%.0f-0', math.max(ms, string.match(seen, '^%d+') + 0) + 1)
  redis.call('SET', key, id .. ' ' .. kind)
  return id, kind
end

-- ensure_epoch returns the id and the kind of the epoch of a lane: the life of
-- the data in Redis. A node that knew another epoch than the one it finds has seen
-- data being lost, and says so in the kind: 'first' or 'lost'. If the one that it
-- knew is the later one, Redis has gone back to older data. Seen is the newest id
-- that the node has seen.
local function ensure_epoch(key, known, seen)
  local epoch = redis.call('GET', key)
  if not epoch then return begin_epoch(key, seen, known == '' and 'first' or 'lost') end
  local id, kind = string.match(epoch, '^(%S+) (%S+)')
  local known_id = string.match(known, '^%S+')
  if known_id and known_id ~= id then
    if newer(known_id, id) == known_id then return begin_epoch(key, newer(known_id, seen), 'lost') end
    if kind == 'first' then
      kind = 'lost'
      redis.call('SET', key, id .. ' lost')
    end
  end
  return id, kind
end

-- base_of returns the position before which nothing is vouched for.
local function base_of(id, kind) return kind == 'lost' and id or '0-0' end

-- last_id returns the id of the last message of a channel: what meta says; if
-- meta is gone, what the stream says; if that is gone too, the position of a
-- channel on which nothing was ever published. It is not before base.
local function last_id(stream, meta, base)
  local last = meta and string.match(meta, '^%d+%-%d+')
  if not last then
    local tail = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
    last = tail[1] and tail[1][1] or base
  end
  return newer(base, last)
end

-- next_id returns the id of a message stored now, which comes after prev and after
-- floor: id, if the clock has not gone back and this is the first in its
-- millisecond. With 13 digits of ms, as there are until the year 2286, the texts
-- tell, which costs a fraction of parsing them.
local function next_id(id, prev, floor)
  if string.byte(prev, 14) == 45 and string.byte(floor, 14) == 45 then
    if id > prev then return id > floor and id or following(floor) end
    if id > floor then return following(prev) end
  end
  local last = newer(prev, floor)
  return newer(id, last) == last and following(last) or id
end

-- A meta is the id of a channel's last message, with what its stream is due:
--   <id> <messages stored since it was trimmed> <ms at which its expiry is renewed>
-- so that most messages pay for neither. What is missing is due now.

-- store stores one message and hands it to every subscribed node. Of the script's
-- KEYS it takes 1 stream, 2 meta, 3 epoch, 4 live (the pub/sub channel), and of
-- its ARGV, from at on: messages kept, how many more before trimming, ttl and ttl
-- of meta (ms), the command (PUBLISH or SPUBLISH), the epoch the node knows, the
-- base of that, and floor, the newest id the node has seen. It returns the id. key, if
-- any, gets the id, for so many ms: before the message is handed on, since a user that
-- may write and not publish gets an error then, and the message is stored.
local function store(at, payload, key, key_ttl)
  local known = redis.call('MGET', KEYS[2], KEYS[3])
  local prev, stored, renewal = string.match(known[1] or '', '^(%S+) (%d+) (%d+)$')
  local base, floor = ARGV[at + 6], ARGV[at + 7]
  if known[2] ~= ARGV[at + 5] then base = base_of(ensure_epoch(KEYS[3], ARGV[at + 5], floor)) end
  -- A base ends in -0, so with as many digits of ms the texts tell.
  if not prev or #base > 3 and (prev < base or string.byte(prev, 14) ~= 45) then
    prev = last_id(KEYS[1], known[1], base)
  end
  local t = redis.call('TIME')
  local ms = t[1] * 1000 + math.floor(t[2] / 1000)
  local id = next_id(ms .. '-0', prev, floor)
  redis.call('XADD', KEYS[1], id, 'p', prev, 'm', payload)
  stored = stored and stored + 1 or ARGV[at + 1] + 1
  if stored > ARGV[at + 1] + 0 then
    redis.call('XTRIM', KEYS[1], 'MAXLEN', ARGV[at])
    stored = 0
  end
  if not renewal or ms >= renewal + 0 then
    -- A hundredth more than the ttl, as it is renewed no sooner than that.
    local slack = math.ceil(ARGV[at + 2] / 100)
    redis.call('PEXPIRE', KEYS[1], ARGV[at + 2] + slack)
    renewal = ms + slack
  end
  redis.call('SET', KEYS[2], id .. ' ' .. stored .. ' ' .. renewal, 'PX', ARGV[at + 3])
  if key then redis.call('SET', key, id, 'PX', key_ttl) end
  redis.call(ARGV[at + 4], KEYS[4],
    '\1' .. id .. ' ' .. prev .. ' ' .. t[1] .. string.format('%06d', t[2]) .. '\n' .. payload)
  return id
end
