-- In front of the scripts that note when sessions are over. Their keys are always
--   KEYS[1] due   zset: session id -> ms at which it is to be looked at
--   KEYS[2] told  hash: session id -> what is told of it then, JSON that begins with
--                 the generation of the session: {"generation":<n>, ...

-- generation_of returns the generation of what is told; a note without one is the
-- oldest there can be.
local function generation_of(told)
  return tonumber(told and string.match(told, '^{"generation":(%d+)') or 0)
end

