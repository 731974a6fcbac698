-- Puts an entry of the deadlines where it belongs, if the session is still as it was read; away if it is gone.
-- KEYS: deadlines, the hash. ARGV: id, version, time.
-- with header
local value = redis.call('HGET', KEYS[2], ARGV[1])
if not value then
  return redis.call('ZREM', KEYS[1], ARGV[1])
end
local h = look(value)
if h and h.version == tonumber(ARGV[2]) then
  return redis.call('ZADD', KEYS[1], 'XX', ARGV[3], ARGV[1])
end
return 0
