-- Ends sessions, connected or left: none can be resumed.
--   ARGV  1 id ('' for all)
-- Answers {id, generation, lease, 1 if it was connected or else 0, channels} of each.
local now = now_ms()
local ended = {}
local ids = ARGV[1] == '' and redis.call('HKEYS', KEYS[1]) or {ARGV[1]}
for _, id in ipairs(ids) do
  local s = read(id)
  if s and not s.foreign and not is_over(id, now) then
    ended[#ended + 1] = {id, s.generation, s.lease, has_left(id) and 0 or 1,
      redis.call('HGET', KEYS[3], id) or ''}
    leave(id, now)
    redis.call('HDEL', KEYS[3], id)
  end
end
trim(now)
settle()
return ended
