-- Ends sessions, connected or left: none can be resumed.
--   ARGV  1 id ('' for all)
-- Answers {id, generation, lease} of each that was connected.
local owners = {}
local ids = ARGV[1] == '' and redis.call('HKEYS', KEYS[1]) or {ARGV[1]}
for _, id in ipairs(ids) do
  local s = read(id)
  if s and not s.foreign then
    if not has_left(id) then owners[#owners + 1] = {id, s.generation, s.lease} end
    remove(id)
  end
end
settle()
return owners
