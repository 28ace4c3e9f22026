-- Says whether a session of a user lives, and is where it is said to be.
--   ARGV  1 id   2 a channel, as JSON ('' for none)   3 generation under which it was there
-- Answers 0 if it is over, or has moved on since and is not on the channel; -1 if it
-- is connected, or the ms at which the window of one that was left is over.
local id = ARGV[1]
local s = read(id)
local ends = has_left(id)
if not s or s.state == 'ended' or ends and ends <= now_ms() then return 0 end
-- Redis has lost until when it can be resumed; it is asked when that was to be over.
if s.state == 'left' and not ends then return 0 end
if ARGV[2] ~= '' and not s.foreign and s.generation > tonumber(ARGV[3]) then
  local channels = redis.call('HGET', KEYS[3], id) or '[]'
  -- What another version wrote says nothing.
  if string.sub(channels, 1, 1) == '[' and not string.find(channels, ARGV[2], 1, true) then return 0 end
end
return ends or -1
