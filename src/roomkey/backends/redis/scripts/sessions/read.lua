-- A session, and the epoch of its user at that moment. KEYS: its hash, epochs. ARGV: its id.
local value = redis.call('HGET', KEYS[1], ARGV[1])
if not value then
  return false
end
local length = value:byte(25)
return {value, length and redis.call('HGET', KEYS[2], value:sub(25, 26 + length))}
