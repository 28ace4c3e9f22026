-- Reads the connected sessions: id, record, channels of each, in one list.
local all = redis.call('HGETALL', KEYS[1])
local answer = {}
for i = 1, #all, 2 do
  if is_connected(all[i], read(all[i])) then
    answer[#answer + 1] = all[i]
    answer[#answer + 1] = all[i + 1]
    answer[#answer + 1] = redis.call('HGET', KEYS[3], all[i]) or ''
  end
end
return answer
