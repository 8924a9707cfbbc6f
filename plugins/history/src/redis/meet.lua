#!lua
-- An agent says that it lives; it learns of the others, and who reads which partition up to where.
-- KEYS: as in keys.rs. ARGV: 1 store, 2 owner, 3 since when, 4 for how many microseconds one that is silent is a member, 5 what it says of itself
local call = redis.call
local store = call('HGET', KEYS[1], 'store')
if not store then return {'lost'} end
if store ~= ARGV[1] then return {'other'} end
local time = call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
call('HSET', KEYS[15], ARGV[2], string.format('%d', now) .. ' ' .. ARGV[3] .. ' ' .. ARGV[5])
local members = {}
local all = call('HGETALL', KEYS[15])
for i = 1, #all, 2 do
  local seen, since, words = string.match(all[i + 1], '^(%d+) (%d+) (.*)$')
  if seen and now - tonumber(seen) < tonumber(ARGV[4]) then
    members[#members + 1] = all[i]
    members[#members + 1] = since
    members[#members + 1] = words
  else
    call('HDEL', KEYS[15], all[i])
  end
end
local owners = {}
all = call('HGETALL', KEYS[14])
for i = 1, #all, 2 do
  local owner, next = string.match(all[i + 1], '^(%S+) (%S+)')
  owners[#owners + 1] = all[i]
  owners[#owners + 1] = owner or ''
  owners[#owners + 1] = next or '-'
end
return {'met', members, owners, call('HGETALL', KEYS[16])}
