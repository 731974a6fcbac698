-- Add rows to the ends of logs, at most one for each document, and each once however often it comes.
-- KEYS: updates, bytes, changes; then of each: document, log.
-- ARGV: whether they may have come before; then of each: lineage, name, id of the row, base, after or -1, number of
-- updates, their bytes, time of the latest, row. Returns the outcome of each.
--
-- `base` is a number that the document had reached before the row was sent for the first time. So if the row is there,
-- it is behind it, be it that the first answer was lost, or that this is the first request, and late. If what is behind
-- was compacted, or is too much to look through, nothing is appended.
-- with document
local LOOKED_THROUGH = 100
local again = ARGV[1] == '1'

-- The number of the last update of the row behind `base` with this id; or nothing, and whether there is certainly none.
local function look(log, base, id)
  local rows = redis.call('XRANGE', log, id_of(base + 1), '+', 'COUNT', LOOKED_THROUGH)
  for _, row in ipairs(rows) do
    local fields = fields_of(row)
    if fields.i == id then return number_of(row[1]) + tonumber(fields.n) - 1 end
  end
  return nil, #rows < LOOKED_THROUGH
end

local function append(document, log, lineage, name, id, base, after, count, size, latest, row)
  local state, record = opened(document, lineage)
  if not state then return record end
  local number, is_new = nil, true
  if tonumber(base) < state[SEQUENCE] then number, is_new = look(log, tonumber(base), id) end
  if number then return {'ok', number} end
  if not is_new or tonumber(base) < state[UPTO] then
    return again and {'unknown'} or {'stale', state[SEQUENCE]}
  end
  if after ~= '-1' and tonumber(after) ~= state[SEQUENCE] then return {'overtaken'} end
  local first = state[SEQUENCE] + 1
  state[SEQUENCE] = state[SEQUENCE] + tonumber(count)
  state[BYTES] = state[BYTES] + tonumber(size)
  if latest > state[UPDATED] then state[UPDATED] = latest end
  -- The first write of a script is the one that a full memory refuses: so nothing is half done.
  redis.call('XADD', log, id_of(first), 'i', id, 'n', count, 'b', string.format('%d', state[BYTES]), 'r', row)
  save(document, record, state)
  enter_log(KEYS[1], KEYS[2], name, state)
  return {'ok', state[SEQUENCE]}
end

local outcomes, written = {}, false
for place = 1, (#ARGV - 1) / 9 do
  local key, argument = 2 + 2 * place, 9 * (place - 1) + 1
  local outcome = append(KEYS[key], KEYS[key + 1], unpack(ARGV, argument + 1, argument + 9))
  written = written or outcome[1] == 'ok'
  outcomes[place] = outcome
end
if written then redis.call('INCR', KEYS[3]) end
return outcomes
