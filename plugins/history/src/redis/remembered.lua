#!lua flags=no-writes
-- All that a start needs, as of one moment.
-- KEYS: as in keys.rs.
local call = redis.call
return {
  call('HMGET', KEYS[1], 'position', 'records', 'duplicates', 'control'),
  call('HGETALL', KEYS[2]), call('HGETALL', KEYS[3]), call('HGETALL', KEYS[4]),
}
