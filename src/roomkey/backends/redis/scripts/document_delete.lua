-- Remove a document with everything that belongs to it, but remember its lineage.
-- KEYS: document, log, versions, graves, names, updates, bytes, changes.
-- ARGV: lineage, name, grave, id of this call, what the keys of contents begin with.
-- A call that comes again finds its id in the grave.
-- with document
if redis.call('HGET', KEYS[4], ARGV[3]) == ARGV[4] .. ARGV[2] then return {'ok', 1} end
local state, reason = opened(KEYS[1], ARGV[1])
if not state then return reason end
redis.call('HSET', KEYS[4], ARGV[3], ARGV[4] .. ARGV[2])
if state[CONTENT] ~= '' then redis.call('UNLINK', ARGV[5] .. state[CONTENT]) end
local from = '-'
repeat
  local versions = redis.call('XRANGE', KEYS[3], from, '+', 'COUNT', 100)
  for _, version in ipairs(versions) do
    redis.call('UNLINK', ARGV[5] .. fields_of(version).c)
    from = '(' .. version[1]
  end
until #versions < 100
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
for place = 5, 7 do redis.call('ZREM', KEYS[place], ARGV[2]) end
redis.call('INCR', KEYS[8])
return {'ok', 1}
