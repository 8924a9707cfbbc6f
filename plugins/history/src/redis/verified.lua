#!lua
-- Keeps what was proved of a table.
-- KEYS: as in keys.rs. ARGV: 1 store, 2 epoch ('' shared), 3 owner, 4 table, 5 what was proved
local at = redis.call('HMGET', KEYS[1], 'store', 'epoch', 'owner', 'writes', 'last', 'position', 'changes')
if not at[1] then return {'lost'} end
if ARGV[2] == '' then
  -- Shared by several agents: who owns the table says it.
  if at[1] ~= ARGV[1] then return {'other'} end
elseif at[1] ~= ARGV[1] or at[2] ~= ARGV[2] or at[3] ~= ARGV[3] then
  return {'elsewhere', at}
end
redis.call('HSETNX', KEYS[3], ARGV[4], '0')
redis.call('HSET', KEYS[4], ARGV[4], ARGV[5])
return {'applied'}
