-- Shared by the scripts of this folder, put in front of each.

-- next_id returns the id of a message stored now that comes after last. The
-- clock is Redis's own; where it went back, the sequence number goes on.
local function next_id(last)
  local t = redis.call('TIME')
  local ms = t[1] * 1000 + math.floor(t[2] / 1000)
  local last_ms, last_seq = string.match(last, '^(%d+)-(%d+)')
  if ms > tonumber(last_ms) then return string.format('%.0f-0', ms) end
  return string.format('%s-%.0f', last_ms, tonumber(last_seq) + 1)
end

-- newer returns the greater of two ids.
local function newer(a, b)
  local a_ms, a_seq = string.match(a, '^(%d+)-(%d+)')
  local b_ms, b_seq = string.match(b, '^(%d+)-(%d+)')
  a_ms, b_ms = tonumber(a_ms), tonumber(b_ms)
  if a_ms > b_ms or (a_ms == b_ms and tonumber(a_seq) >= tonumber(b_seq)) then return a end
  return b
end

-- ensure_epoch returns the id and the kind of the epoch of a lane: the life of
-- the data in Redis. A node that knew an earlier epoch than the one it finds
-- has seen data being lost, and says so in the kind: 'first' or 'lost'. The id
-- is one millisecond ahead, so that it comes after all that were issued before,
-- even in the millisecond of the loss.
local function ensure_epoch(key, known)
  local epoch = redis.call('GET', key)
  if not epoch then
    local ms = string.match(next_id('0-0'), '^%d+')
    epoch = string.format('%.0f-0', ms + 1) .. (known == '' and ' first' or ' lost')
    redis.call('SET', key, epoch)
  end
  local id, kind = string.match(epoch, '^(%S+) (%S+)')
  if kind == 'first' and known ~= '' and string.match(known, '^%S+') ~= id then
    kind = 'lost'
    redis.call('SET', key, id .. ' lost')
  end
  return id, kind
end

-- last_id returns the id of the last message of a channel: what meta says; if
-- meta is gone, what the stream says; if that is gone too, the position of a
-- channel on which nothing was ever published: 0-0, or after a loss the epoch.
local function last_id(stream, meta, epoch, known)
  local last = redis.call('GET', meta)
  if last then return string.match(last, '^%d+%-%d+') end
  local tail = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
  if tail[1] then return tail[1][1] end
  local id, kind = ensure_epoch(epoch, known)
  return kind == 'lost' and id or '0-0'
end

-- store stores one message and hands it to every subscribed node. Keys and args
-- are tables: keys stream, meta, epoch and live (the pub/sub channel); args keep
-- (messages), slack (how many more before trimming), ttl and meta_ttl (ms),
-- command (PUBLISH or SPUBLISH), known (the epoch the node knows) and floor (the
-- newest id the node has seen). It returns the id.
local function store(keys, args, payload)
  local prev = last_id(keys.stream, keys.meta, keys.epoch, args.known)
  local id = next_id(newer(prev, args.floor))
  redis.call('XADD', keys.stream, id, 'p', prev, 'm', payload)
  if redis.call('XLEN', keys.stream) > args.keep + args.slack then
    redis.call('XTRIM', keys.stream, 'MAXLEN', args.keep)
  end
  redis.call('PEXPIRE', keys.stream, args.ttl)
  redis.call('SET', keys.meta, id, 'PX', args.meta_ttl)
  local t = redis.call('TIME')
  redis.call(args.command, keys.live, string.format('\1%s %s %.0f\n', id, prev, t[1] * 1000000 + t[2]) .. payload)
  return id
end

-- storing returns the keys and args of store from those that a script was given:
-- KEYS from 1, ARGV from the number on.
local function storing(at)
  return {stream = KEYS[1], meta = KEYS[2], epoch = KEYS[3], live = KEYS[4]},
    {keep = ARGV[at], slack = ARGV[at + 1], ttl = ARGV[at + 2], meta_ttl = ARGV[at + 3],
      command = ARGV[at + 4], known = ARGV[at + 5], floor = ARGV[at + 6]}
end
