-- The first entries of an index of times: id, time, value or false, epoch of the user, id, ...
-- KEYS: the index, epochs, the hashes. ARGV: upper bound, offset, limit.
local entries = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'WITHSCORES', 'LIMIT', ARGV[2], ARGV[3])
local found = {}
for i = 1, #entries, 2 do
  local id = entries[i]
  local value = redis.call('HGET', KEYS[3 + math.floor(id:byte() / 16)], id)
  local length = value and value:byte(25)
  found[#found + 1] = id
  found[#found + 1] = entries[i + 1]
  found[#found + 1] = value
  found[#found + 1] = length and redis.call('HGET', KEYS[2], value:sub(25, 26 + length)) or false
end
return found
