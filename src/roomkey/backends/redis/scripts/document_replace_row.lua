-- Put another row in the place of one that is damaged. A stream only grows at its end, so it is written anew.
-- KEYS: log, aside. ARGV: number of the first update, the row that was read, the new one, where the old one goes.
-- with document
local id = id_of(tonumber(ARGV[1]))
local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
if not entry or fields_of(entry).r ~= ARGV[2] then return 0 end
local rows = redis.call('XRANGE', KEYS[1], '-', '+')
redis.call('HSET', KEYS[2], ARGV[4], ARGV[2])
redis.call('UNLINK', KEYS[1])
for _, row in ipairs(rows) do
  local fields = fields_of(row)
  local record = row[1] == id and ARGV[3] or fields.r
  redis.call('XADD', KEYS[1], row[1], 'i', fields.i, 'n', fields.n, 'b', fields.b, 'r', record)
end
return 1
