-- Take a document that is damaged out of sight; what belonged to it stays, where no other document finds it.
-- KEYS: document, log, versions, aside, names, updates, bytes, changes, and where the log and the versions go.
-- ARGV: name, id of this call, why it may be done: the record and the state as they were read.
local found = redis.pcall('HMGET', KEYS[1], 'record', 'state')
if not found.err then
  if (found[1] or '') ~= ARGV[3] or (found[2] or '') ~= ARGV[4] then return 0 end
  redis.call('HSET', KEYS[4], 'document:' .. ARGV[2] .. ':' .. ARGV[1], cmsgpack.pack(redis.call('HGETALL', KEYS[1])))
end
redis.call('UNLINK', KEYS[1])
if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('RENAME', KEYS[2], KEYS[9]) end
if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('RENAME', KEYS[3], KEYS[10]) end
for place = 5, 7 do redis.call('ZREM', KEYS[place], ARGV[1]) end
redis.call('INCR', KEYS[8])
return 1
