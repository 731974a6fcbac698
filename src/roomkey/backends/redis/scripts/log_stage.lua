-- Add rows to a log that nothing leads to yet; it goes by itself unless something will soon.
-- KEYS: staged log. ARGV: seconds; of each row: number of the first update, id, number of updates, bytes up to its end,
-- row. Done twice it is as done once: what stands at its end is known by its number.
-- with document
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local reached = last and number_of(last[1]) or 0
for place = 2, #ARGV, 5 do
  local first, id, count, bytes, row = unpack(ARGV, place, place + 4)
  if tonumber(first) > reached then
    redis.call('XADD', KEYS[1], id_of(first), 'i', id, 'n', count, 'b', bytes, 'r', row)
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
