-- In front of every script.

-- now_ms is Redis's clock in milliseconds: the only one that counts.
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

