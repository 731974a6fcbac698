-- Add rows to the ends of logs, at most one for each document, and each once however often it comes.
-- KEYS: updates, bytes, changes; then of each: document, log.
-- ARGV: whether they may have come before; then of each: lineage, name, id of the row, base, after or -1, number of
-- updates, their bytes, time of the latest, row. Returns the outcome of each.
--
-- `recent` has a number and the ids of all rows behind it, each with the number of its last update. `base` is a number
-- that the document had reached before the row was sent for the first time: if `recent` reaches back to it, it knows
-- whether the row is there. Otherwise nothing is appended.
-- with document
local KEPT, ID, NUMBER = 32, 12, 8
local again = ARGV[1] == '1'

local function append(document, log, lineage, name, id, base, after, count, size, latest, row)
  local state, record = opened(document, lineage)
  if not state then return record end
  local recent = redis.call('HGET', document, 'recent') or struct.pack('>I8', 0)
  local found = string.find(recent, id, NUMBER + 1, true)
  if found then return {'ok', (struct.unpack('>I8', recent, found + ID))} end
  if tonumber(base) < struct.unpack('>I8', recent) then
    return again and {'unknown'} or {'stale', state[SEQUENCE]}
  end
  if after ~= '-1' and tonumber(after) ~= state[SEQUENCE] then return {'overtaken'} end
  local first = state[SEQUENCE] + 1
  state[SEQUENCE] = state[SEQUENCE] + tonumber(count)
  state[BYTES] = state[BYTES] + tonumber(size)
  if latest > state[UPDATED] then state[UPDATED] = latest end
  -- The first write of a script is the one that a full memory refuses: so nothing is half done.
  redis.call('XADD', log, id_of(first), 'i', id, 'n', count, 'b', string.format('%d', state[BYTES]), 'r', row)
  recent = recent .. id .. struct.pack('>I8', state[SEQUENCE])
  if #recent > NUMBER + KEPT * (ID + NUMBER) then
    recent = string.sub(recent, NUMBER + ID + 1) -- the number of the oldest, and what is behind it
  end
  redis.call('HSET', document, 'recent', recent)
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
