-- Writes a session as the node that claimed it knows it; what Redis lost is
-- written back.
--   ARGV  1 Redis's time after which the caller no longer waits, ms
--         2 id   3 generation   4 claim   5 record   6 channels ('' for none)
--         7 ms left of its window, 0 if it is over, -1 if it is connected
--         8 1 if it is to be written back should Redis not have it, else 0
--         9 ms until which it would be remembered that all sessions were disconnected
--           when this connection claimed it
-- Answers 1, or 2 if Redis did not have it; if nothing was written 0 if the session
-- is someone else's by now, -1 if it is too late, -2 if a backend has disconnected
-- the session, and -3 if Redis does not have it.
local id, generation, claim, remaining = ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[7])
local now = now_ms()
if now > tonumber(ARGV[1]) then return -1 end

trim(now)
local s = read(id)

-- forbidden reports whether a backend has disconnected a session that is not there.
local function forbidden()
  if redis.call('ZSCORE', KEYS[4], id) then return true end
  local till = redis.call('ZSCORE', KEYS[4], '*')
  return till and tonumber(till) > tonumber(ARGV[9])
end

if s and s.state == 'ended' or not s and forbidden() then return -2 end
if s and (s.foreign or s.generation > generation
    or s.generation == generation and s.claim ~= claim) then
  return 0
end
if not s and ARGV[8] == '0' then return -3 end
local missing = not s or s.generation < generation or is_over(id, now)
redis.call('HSET', KEYS[1], id, ARGV[5])
if ARGV[6] ~= '' and remaining ~= 0 then
  redis.call('HSET', KEYS[3], id, ARGV[6])
else
  redis.call('HDEL', KEYS[3], id)
end
if remaining >= 0 then leave(id, now + remaining) else redis.call('ZREM', KEYS[2], id) end
settle()
return missing and 2 or 1
