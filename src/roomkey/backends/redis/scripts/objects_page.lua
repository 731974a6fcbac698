-- Objects of a space from a name on, in order: name and value in turn.
-- KEYS: objects, names. ARGV: the name, and how many at most.
local found = {}
local first = ARGV[1] == '' and '-' or '[' .. ARGV[1]
for _, name in ipairs(redis.call('ZRANGEBYLEX', KEYS[2], first, '+', 'LIMIT', 0, ARGV[2])) do
  found[#found + 1] = name
  found[#found + 1] = redis.call('HGET', KEYS[1], name) or ''
end
return found
