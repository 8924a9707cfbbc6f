#!lua
-- Takes over partitions of a line that several agents share, and says how far each was read.
-- KEYS: as in keys.rs. ARGV: 1 store, 2 owner, 3 the line's position where it has none, then the partitions' names
local call = redis.call
local line, partitions = KEYS[1], KEYS[14]
local at = call('HMGET', line, 'store', 'position')
if not at[1] then return {'lost'} end
if at[1] ~= ARGV[1] then return {'other'} end
if at[2] == '' then call('HSET', line, 'position', ARGV[3]) end
local found = {}
for i = 4, #ARGV do
  local next, memory = string.match(call('HGET', partitions, ARGV[i]) or '', '^%S+ (%S+) ?(.*)$')
  next, memory = next or '-', memory or ''
  call('HSET', partitions, ARGV[i], ARGV[2] .. ' ' .. next .. ' ' .. memory)
  found[#found + 1] = next
  found[#found + 1] = memory
end
return {'claimed', found}
