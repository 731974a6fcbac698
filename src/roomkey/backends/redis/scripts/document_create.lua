-- Make an empty document, or find the one that is there.
-- KEYS: document, graves, names, changes. ARGV: lineage, grave, record, time, name.
-- Done twice it is as done once: whoever comes second finds what the first one made.
-- with document
if redis.call('HEXISTS', KEYS[2], ARGV[2]) == 1 then return {'grave'} end
local state, record, stored = opened(KEYS[1])
if state then return {'ok', record, stored} end
if record[1] ~= 'missing' then return record end
stored = save(KEYS[1], ARGV[3], {ARGV[1], 0, 0, ARGV[4], 0, 0, '', 0, -1, 0, 0}, 'record', ARGV[3])
redis.call('ZADD', KEYS[3], 0, ARGV[5])
redis.call('INCR', KEYS[4])
return {'ok', ARGV[3], stored}
