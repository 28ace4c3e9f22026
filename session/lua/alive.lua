-- Says of sessions of a user whether they live.
--   ARGV  ids
-- Answers for each 0 if it is over, -1 if it is connected, or the ms at which
-- the window of one that was left is over.
local now = now_ms()
local answer = {}
for i, id in ipairs(ARGV) do
  local ends = has_left(id)
  if redis.call('HEXISTS', KEYS[1], id) == 0 or ends and ends <= now then
    answer[i] = 0
  else
    answer[i] = ends or -1
  end
end
return answer
