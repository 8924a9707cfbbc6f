#!lua
-- Opens the store for one agent, in one step. Creates it where there is none and none is expected.
-- KEYS: as in keys.rs.
-- ARGV: 1 format, 2 store that this data folder has used ('' none), 3 name for a new store, 4 owner, 5 epoch to keep ('' takes a new one; `shared` is no epoch, and fences nobody)
-- Answers `ok` and the line, or what stands against it.
local line = KEYS[1]
local kind = redis.call('TYPE', line).ok
if kind == 'none' then
  if ARGV[2] ~= '' then return {'lost'} end
  for i = 2, #KEYS do
    if redis.call('EXISTS', KEYS[i]) == 1 then return {'damaged', KEYS[i]} end
  end
  redis.call('HSET', line, 'format', ARGV[1], 'store', ARGV[3], 'epoch', '0', 'owner', '', 'writes', '0', 'last', '', 'position', '',
    'records', '0', 'changes', '0', 'duplicates', '0', 'control', '0', 'transactions', '0', 'findings', '0')
elseif kind ~= 'hash' then
  return {'damaged', line}
end
local at = redis.call('HMGET', line, 'format', 'store', 'epoch')
if at[1] ~= ARGV[1] and at[1] ~= '1' then return {'format', at[1] or '?'} end
if ARGV[2] ~= '' and at[2] ~= ARGV[2] then return {'other', at[2] or '?'} end
-- The first version's entries are read as they are; it could not read ours.
if at[1] == '1' then redis.call('HSET', line, 'format', ARGV[1]) end
if ARGV[5] == '' then
  redis.call('HINCRBY', line, 'epoch', 1)
  redis.call('HSET', line, 'owner', ARGV[4])
end
return {'ok', redis.call('HMGET', line, 'store', 'epoch', 'owner', 'writes', 'last', 'position', 'changes')}
