-- Takes users that have left, and of whom it is time to tell. For a while they are
-- the caller's alone; should it die, another one takes them.
--
-- KEYS  1 leaving, see member.lua
-- ARGV  1 users at most, 2 ms for which they are the caller's
-- Returns {ticket, <channel> <user>, ...}. The ticket ends in a half: no user is
-- noted as leaving at such a time.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[1])
local ticket = string.format('%.1f', now + ARGV[2] + 0.5)
for _, name in ipairs(due) do redis.call('ZADD', KEYS[1], ticket, name) end
table.insert(due, 1, ticket)
return due
