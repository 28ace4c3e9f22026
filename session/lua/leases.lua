-- Reads the leases and what their nodes say of themselves.
-- Answers {time, leases, info}.
local answer = table_of(now_ms())
answer[3] = redis.call('HGETALL', KEYS[2])
return answer
