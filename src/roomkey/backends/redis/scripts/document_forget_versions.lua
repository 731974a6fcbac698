-- Drop versions. KEYS: document, versions.
-- ARGV: lineage, fence or -1, id of this call, what the keys of contents begin with, numbers…
-- Of a call that comes again, `forgotten` has the answer.
-- with document
local state, record = opened(KEYS[1], ARGV[1])
if not state then return record end
local former = redis.call('HGET', KEYS[1], 'forgotten')
if former and string.sub(former, 1, #ARGV[3]) == ARGV[3] then
  return {'ok', tonumber(string.sub(former, #ARGV[3] + 1))}
end
if not fenced(state, tonumber(ARGV[2])) then return {'late'} end
local forgotten = 0
for place = 5, #ARGV do
  local id = id_of(tonumber(ARGV[place]))
  local version = redis.call('XRANGE', KEYS[2], id, id)[1]
  if version then
    redis.call('XDEL', KEYS[2], id)
    redis.call('UNLINK', ARGV[4] .. fields_of(version).c)
    forgotten = forgotten + 1
  end
end
save(KEYS[1], record, state, 'forgotten', ARGV[3] .. forgotten)
return {'ok', forgotten}
