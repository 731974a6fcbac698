-- Let a content that was stored before be the snapshot, and drop from the log what it contains.
-- KEYS: document, log, updates, bytes, the new content.
-- ARGV: lineage, name, fence or -1, upto, id of the content, number of its pieces, bytes of the snapshot, bytes of the
-- authorship, what the keys of contents begin with, number of the first update of a row that is cut, bytes in it that
-- are behind `upto`.
-- Done twice it is as done once: the content is told by its id.
-- with document
local state, record = opened(KEYS[1], ARGV[1])
if not state then return record end
if state[CONTENT] == ARGV[5] then return {'ok', 1} end
local upto = tonumber(ARGV[4])
local late = not fenced(state, tonumber(ARGV[3]))
if late or upto <= state[UPTO] or upto > state[SEQUENCE] then
  redis.call('UNLINK', KEYS[5])
  return late and {'late'} or {'ok', 0}
end
if redis.call('HLEN', KEYS[5]) ~= tonumber(ARGV[6]) then return {'incomplete'} end

local last = redis.call('XREVRANGE', KEYS[2], id_of(upto), '-', 'COUNT', 1)[1]
if not last then return {'damaged'} end
local fields, first = fields_of(last), number_of(last[1])
local keep = upto + 1
local merged = tonumber(fields.b)
if first + tonumber(fields.n) - 1 > upto then
  -- It was appended together with some that stay. Only its reader knows how many bytes these are.
  if tonumber(ARGV[10]) ~= first then return {'cut', first, tonumber(fields.n), fields.i, fields.r} end
  merged = merged - tonumber(ARGV[11])
  keep = first
end

local former = state[CONTENT]
state[UPTO], state[MERGED_BYTES] = upto, merged
state[CONTENT], state[SNAPSHOT_BYTES], state[AUTHORSHIP_BYTES] = ARGV[5], tonumber(ARGV[7]), tonumber(ARGV[8])
save(KEYS[1], record, state)
redis.call('PERSIST', KEYS[5])
if former ~= '' then redis.call('UNLINK', ARGV[9] .. former) end
if upto == state[SEQUENCE] then
  redis.call('UNLINK', KEYS[2])
else
  redis.call('XTRIM', KEYS[2], 'MINID', '=', id_of(keep))
end
enter_log(KEYS[3], KEYS[4], ARGV[2], state)
return {'ok', 1}
