-- Objects of a space from a name on, and before another one, in order: name and value in turn.
-- KEYS: objects, names. ARGV: both names, and how many at most.
local found = {}
local first = ARGV[1] == '' and '-' or '[' .. ARGV[1]
for _, name in ipairs(redis.call('ZRANGEBYLEX', KEYS[2], first, '(' .. ARGV[2], 'LIMIT', 0, ARGV[3])) do
  found[#found + 1] = name
  found[#found + 1] = redis.call('HGET', KEYS[1], name) or ''
end
return found
