-- Tells that a user has left a channel, unless the user is back or somebody else
-- tells.
--
-- KEYS  1 stream, 2 meta, 3 epoch, 4 pub/sub channel, 5 users, 6 leaving; see member.lua
-- ARGV  1 channel, 2 user, 3 ticket, 4 payload of the message that tells, 5... see store
-- Returns 1 if it has told, else 0.
local name = ARGV[1] .. ' ' .. ARGV[2]
local ticket = redis.call('ZSCORE', KEYS[6], name)
if not ticket or tonumber(ticket) ~= tonumber(ARGV[3]) then return 0 end
redis.call('ZREM', KEYS[6], name)
if redis.call('HGET', KEYS[5], ARGV[2]) ~= '0' then return 0 end
redis.call('HDEL', KEYS[5], ARGV[2])
store(5, ARGV[4])
return 1
