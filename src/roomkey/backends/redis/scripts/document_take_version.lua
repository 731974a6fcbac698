-- Let a content that was stored before be a version under the number that it had elsewhere.
-- KEYS: document, versions, the content. ARGV: lineage, number, id of the content, number of its pieces, record.
-- Done twice it is as done once: the content knows which version it is.
-- with document
if redis.call('HGET', KEYS[3], 'version') then return {'ok', 1} end
local state, record = opened(KEYS[1], ARGV[1])
if not state then return record end
local number = tonumber(ARGV[2])
if redis.call('HLEN', KEYS[3]) ~= tonumber(ARGV[4]) then return {'incomplete'} end
local id = id_of(number)
if #redis.call('XRANGE', KEYS[2], id, id) > 0 then return {'stale'} end
-- A stream only grows at its end: those behind are taken out, and come again.
local behind = redis.call('XRANGE', KEYS[2], id, '+')
if redis.call('EXISTS', KEYS[2]) == 1 then
  local all = redis.call('XRANGE', KEYS[2], '-', id)
  redis.call('UNLINK', KEYS[2])
  for _, entry in ipairs(all) do redis.call('XADD', KEYS[2], entry[1], unpack(entry[2])) end
end
redis.call('XADD', KEYS[2], id, 'c', ARGV[3], 'r', ARGV[5])
for _, entry in ipairs(behind) do redis.call('XADD', KEYS[2], entry[1], unpack(entry[2])) end
redis.call('HSET', KEYS[3], 'version', number)
redis.call('PERSIST', KEYS[3])
state[LAST_VERSION] = math.max(state[LAST_VERSION], number)
save(KEYS[1], record, state)
return {'ok', 1}
