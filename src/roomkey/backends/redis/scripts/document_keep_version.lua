-- Let a content that was stored before be a version.
-- KEYS: document, versions, the content. ARGV: lineage, fence or -1, id of the content, number of its pieces, record.
-- Done twice it is as done once: the content knows which version it is.
-- with document
local number = redis.call('HGET', KEYS[3], 'version')
if number then return {'ok', tonumber(number)} end
local state, record = opened(KEYS[1], ARGV[1])
if not state then return record end
if not fenced(state, tonumber(ARGV[2])) then return {'late'} end
if redis.call('HLEN', KEYS[3]) ~= tonumber(ARGV[4]) then return {'incomplete'} end
state[LAST_VERSION] = state[LAST_VERSION] + 1
redis.call('XADD', KEYS[2], id_of(state[LAST_VERSION]), 'c', ARGV[3], 'r', ARGV[5])
redis.call('HSET', KEYS[3], 'version', state[LAST_VERSION])
redis.call('PERSIST', KEYS[3])
save(KEYS[1], record, state)
return {'ok', state[LAST_VERSION]}
