-- Sessions as they are stored: value or false, time in the index of those that are over or false, value, ...
-- KEYS: a hash, that index. ARGV: ids.
local found = {}
for i, id in ipairs(ARGV) do
  found[2 * i - 1] = redis.call('HGET', KEYS[1], id)
  found[2 * i] = redis.call('ZSCORE', KEYS[2], id)
end
return found
