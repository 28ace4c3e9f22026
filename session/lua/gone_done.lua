-- Settles sessions that were taken, but for those noted anew since.
--   ARGV  1 ticket of gone_take   then for each: id, ms at which to look again (0: never)
for i = 2, #ARGV, 2 do
  local id, again = ARGV[i], ARGV[i + 1]
  if redis.call('ZSCORE', KEYS[1], id) == ARGV[1] then
    if again == '0' then
      redis.call('ZREM', KEYS[1], id)
      redis.call('HDEL', KEYS[2], id)
    else
      redis.call('ZADD', KEYS[1], again, id)
    end
  end
end
return 1
