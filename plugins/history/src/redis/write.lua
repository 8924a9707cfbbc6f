#!lua
-- One batch, whole or not at all: everything is looked at before the first write, because Redis takes nothing back.
-- The compare-and-set is on (epoch, owner, number of writes, position); without an epoch several agents share the line, and it is on (owner, offset)
-- of each partition that the batch moves. Without flags Redis refuses the call up front when it is full.
-- KEYS: as in keys.rs, then the days.
-- ARGV: see `Packed` in write.rs.
local line, counts, tables, events, findings, identities = KEYS[1], KEYS[2], KEYS[3], KEYS[5], KEYS[6], KEYS[7]
local open, resolved, open_tables, resolved_tables, open_counts, days = KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12], KEYS[13]
local partitions = KEYS[14]
local FIXED = 16
local OPS = {'read:', 'insert:', 'update:', 'delete:', 'truncate:'}
local call = redis.call

local KINDS = {'hash', 'hash', 'hash', 'hash', 'stream', 'hash', 'hash', 'zset', 'zset', 'zset', 'zset', 'hash', 'zset', 'hash', 'hash', 'hash'}
for i = 1, #KEYS do
  local kind = call('TYPE', KEYS[i]).ok
  if kind ~= (KINDS[i] or 'hash') and (kind ~= 'none') then return {'damaged', KEYS[i]} end
  if i == 1 and kind == 'none' then return {'lost'} end
end

local at = call('HMGET', line, 'store', 'epoch', 'owner', 'writes', 'last', 'position', 'changes', 'records', 'duplicates', 'control')
local shared = ARGV[2] == ''
if shared and at[1] ~= ARGV[1] then return {'other'} end
if not shared and (at[1] ~= ARGV[1] or at[2] ~= ARGV[2] or at[3] ~= ARGV[3] or at[4] ~= ARGV[4] or at[6] ~= ARGV[5]) then
  return {'elsewhere', {at[1], at[2], at[3], at[4], at[5], at[6], at[7]}}
end
if tonumber(at[8]) ~= tonumber(at[7]) + tonumber(at[9]) + tonumber(at[10])
  or tonumber(ARGV[7]) ~= tonumber(ARGV[8]) + tonumber(ARGV[9]) + tonumber(ARGV[10]) then
  return {'unequal'}
end

local now, keep_events, keep_findings, oldest_day = ARGV[12], ARGV[13], tonumber(ARGV[14]), ARGV[15]
local p = 16
local function take()
  local value = ARGV[p]
  p = p + 1
  return value
end

-- Each partition that the batch moves: its name, the offset before it, the offset after it, what its source remembers.
local moved, done = {}, 0
for i = 1, tonumber(take()) do
  local name, before, after, memory = take(), take(), take(), take()
  local owner, next = string.match(call('HGET', partitions, name) or '', '^(%S+) (%S+)')
  if owner ~= ARGV[3] then return {'taken', name} end
  if next == after then
    done = done + 1
  elseif next ~= before then
    return {'back', name, next}
  end
  moved[i] = {name, after .. ' ' .. memory}
end
-- A call whose answer was lost.
if #moved > 0 and done == #moved then return {'applied'} end
if done > 0 then return {'back', moved[1][1], '?'} end

local last = call('XREVRANGE', events, '+', '-', 'COUNT', 1)[1]
if last and tonumber(string.match(last[1], '^%d+')) > tonumber(at[7]) then return {'damaged', events} end

-- From here on nothing may fail.
if shared then
  call('HINCRBY', line, 'writes', 1)
  for _, partition in ipairs(moved) do call('HSET', partitions, partition[1], ARGV[3] .. ' ' .. partition[2]) end
else
  call('HSET', line, 'writes', string.format('%d', tonumber(ARGV[4]) + 1), 'last', ARGV[#ARGV], 'position', ARGV[6])
end
local sums = {'records', 'changes', 'duplicates', 'control', 'transactions'}
for i = 1, 5 do
  if ARGV[6 + i] ~= '0' then call('HINCRBY', line, sums[i], ARGV[6 + i]) end
end

local function add(key, known)
  for _ = 1, tonumber(take()) do
    local name = take()
    if known then call('HSETNX', tables, name, '0') end
    for op = 1, 5 do
      local more = take()
      if more ~= '0' then call('HINCRBY', key, OPS[op] .. name, more) end
    end
  end
end

-- Counters of the batch.
add(counts, true)

-- Counters by day.
local function day(key)
  local number, expires = take(), take()
  call('ZADD', days, number, number)
  return key, expires
end
local by_day = tonumber(take())
for i = 1, by_day do
  local key, expires = day(KEYS[FIXED + i])
  add(key, false)
  call('EXPIREAT', key, expires)
end
if by_day > 0 then call('ZREMRANGEBYSCORE', days, '-inf', '(' .. oldest_day) end

-- Rows copied: a total. The day gets what the total grew by.
if take() == '1' then
  local name, rows = take(), take()
  local key, expires = day(KEYS[#KEYS])
  local field = OPS[1] .. name
  local before = call('HGET', counts, field) or '0'
  call('HSETNX', tables, name, '0')
  call('HSET', counts, field, rows)
  local grown = tonumber(rows) - tonumber(before)
  if grown > 0 then
    call('HINCRBY', key, field, string.format('%d', grown))
    call('EXPIREAT', key, expires)
  end
end

-- A finding is `verdict found last_seen resolved|- identity length-of-table \n table json`.
local function read(id)
  local text = call('HGET', findings, id)
  if not text then return nil end
  local verdict, found, seen, gone, identity, length, from = string.match(text, '^(%a+) (%S+) (%S+) (%S+) (%S+) (%d+)\n()')
  if not verdict then return nil end
  local to = from + tonumber(length)
  return {verdict = verdict, found = found, seen = seen, resolved = gone, identity = identity, table = string.sub(text, from, to - 1), json = string.sub(text, to)}
end
local function keep(id, f)
  local head = table.concat({f.verdict, f.found, f.seen, f.resolved, f.identity, #f.table}, ' ')
  call('HSET', findings, id, head .. '\n' .. f.table .. f.json)
end
local function count(f, by)
  local field = f.verdict .. ' ' .. f.table
  if call('HINCRBY', open_counts, field, by) == 0 then call('HDEL', open_counts, field) end
end
local function member(f, id)
  return f.table .. string.format('%016x', tonumber(id))
end
local function resolve(id)
  local f = read(id)
  if not f then return nil end
  f.resolved = now
  count(f, -1)
  call('HDEL', identities, f.identity)
  call('ZREM', open, id)
  call('ZREM', open_tables, member(f, id))
  call('ZADD', resolved, id, id)
  call('ZADD', resolved_tables, 0, member(f, id))
  return f
end

local told = false
for _ = 1, tonumber(take()) do
  local what = take()
  if what == 'found' then
    call('HSET', tables, take(), '0')
  elseif what == 'gone' then
    local name = take()
    call('HSET', tables, name, '1')
    for _, entry in ipairs(call('ZRANGEBYLEX', open_tables, '[' .. name, '(' .. name .. 'g')) do
      local id = string.format('%d', tonumber(string.sub(entry, -16), 16))
      local f = resolve(id)
      if f then keep(id, f) end
    end
  elseif what == 'resolved' then
    told = true
    local id = call('HGET', identities, take())
    local f = id and resolve(id)
    if f then
      f.seen = now
      keep(id, f)
    end
  else
    told = true
    local name, verdict, identity, json = take(), take(), take(), take()
    call('HSETNX', tables, name, '0')
    local id = call('HGET', identities, identity)
    local f = id and read(id)
    if f then
      count(f, -1)
    else
      id = string.format('%d', call('HINCRBY', line, 'findings', 1))
      f = {found = now, resolved = '-', identity = identity, table = name}
      call('HSET', identities, identity, id)
      call('ZADD', open, id, id)
      call('ZADD', open_tables, 0, member(f, id))
    end
    f.verdict, f.json, f.seen = verdict, json, now
    count(f, 1)
    keep(id, f)
  end
end

-- An open difference is never forgotten; of the resolved ones the newest stay.
local beyond = told and call('ZCARD', resolved) - keep_findings or 0
if beyond > 0 then
  for _, id in ipairs(call('ZRANGE', resolved, 0, beyond - 1)) do
    local f = read(id)
    if f then call('ZREM', resolved_tables, member(f, id)) end
    call('HDEL', findings, id)
    call('ZREM', resolved, id)
  end
end

-- The newest changes in blocks, each under the number of its last since the beginning: Redis itself would refuse one that comes twice.
local kept = tonumber(take())
if kept > 0 then
  local number = tonumber(take())
  if shared then number = tonumber(at[7]) + tonumber(ARGV[8]) - kept + 1 end
  for _ = 1, tonumber(take()) do
    number = number + tonumber(take())
    call('XADD', events, string.format('%d', number - 1), 'b', take())
  end
  call('XTRIM', events, 'MINID', '~', string.format('%d', math.max(number - tonumber(keep_events), 0)), 'LIMIT', 0)
end
return {'applied'}
