-- Let a document be there as it was elsewhere. Its log and its content were stored before.
-- KEYS: document, log, names, updates, bytes, changes, graves, the new log, the new content.
-- ARGV: name, grave, id of this call, state that was read or nothing, record, id of the content or nothing, number of
-- its pieces, number of rows of the log, what the keys of contents begin with; lineage, sequence, upto, time, bytes of
-- the log, bytes of the snapshot, bytes of the authorship or -1, last version.
-- A call that comes again finds its id in the document.
-- with document
local name, grave, call, before, new, content = unpack(ARGV, 1, 6)
if redis.call('HGET', KEYS[1], 'taken') == call then return {'ok', 1} end
if redis.call('HEXISTS', KEYS[7], grave) == 1 then return {'grave'} end
local state, reason, stored = opened(KEYS[1])
if not state and reason[1] ~= 'missing' then return reason end
if (stored or '') ~= before then return {'stale'} end
if content ~= '' and redis.call('HLEN', KEYS[9]) ~= tonumber(ARGV[7]) then return {'incomplete'} end
if redis.call('XLEN', KEYS[8]) ~= tonumber(ARGV[8]) then return {'incomplete'} end

local numbers = {}
for place = 11, 17 do numbers[place] = tonumber(ARGV[place]) end
local taken = {
  ARGV[10], numbers[11], numbers[12], ARGV[13], numbers[14], 0, content, numbers[15], numbers[16], numbers[17], 0,
}
save(KEYS[1], new, taken, 'record', new, 'taken', call)
if content ~= '' then redis.call('PERSIST', KEYS[9]) end
if state and state[CONTENT] ~= '' then redis.call('UNLINK', ARGV[9] .. state[CONTENT]) end
redis.call('UNLINK', KEYS[2])
if ARGV[8] ~= '0' then
  redis.call('RENAME', KEYS[8], KEYS[2])
  redis.call('PERSIST', KEYS[2])
end
redis.call('ZADD', KEYS[3], 0, name)
enter_log(KEYS[4], KEYS[5], name, taken)
redis.call('INCR', KEYS[6])
return {'ok', 1}
