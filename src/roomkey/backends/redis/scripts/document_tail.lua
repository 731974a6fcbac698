-- The rows of a log from the one on that has the update behind a number, as many as one answer should have.
-- KEYS: document, log. ARGV: number, or -1 for that of the snapshot; bytes and updates after which it ends.
-- Returns the record and the state, and of each row: number of its first update, number of updates, id, row.
-- with document
local state, record, stored = opened(KEYS[1])
if not state then return record end
local after = tonumber(ARGV[1])
if after < 0 then after = state[UPTO] end
local answer = {'ok', record, stored}
if after < state[UPTO] or after >= state[SEQUENCE] then return answer end

local from = id_of(after + 1)
local first = redis.call('XRANGE', KEYS[2], from, from)[1]
if not first then
  -- It was appended together with some before it.
  local before = redis.call('XREVRANGE', KEYS[2], from, '-', 'COUNT', 1)[1]
  if before then from = before[1] end
end
local bytes, updates, count = 0, 0, 1
repeat
  local rows = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', count)
  for _, row in ipairs(rows) do
    local fields = fields_of(row)
    answer[#answer + 1] = {number_of(row[1]), tonumber(fields.n), fields.i, fields.r}
    bytes = bytes + #fields.r
    updates = number_of(row[1]) + tonumber(fields.n) - 1 - after
    from = '(' .. row[1]
  end
  local all_read = #rows < count
  -- Slowly more at a time: how large the next ones are is known only when they are read.
  if bytes < tonumber(ARGV[2]) / 8 then count = math.min(2 * count, 128) else count = 1 end
until all_read or bytes >= tonumber(ARGV[2]) or updates >= tonumber(ARGV[3])
return answer
