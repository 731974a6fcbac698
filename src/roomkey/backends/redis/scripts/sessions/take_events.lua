-- Appends events if the log ends just before them. Returns 1; 0 if it ends elsewhere. The second time finds the first
-- of them there, and is content. ARGV: number of the first event, then of each: time, key, event.
-- with partition
-- with log
local first = tonumber(take())

check_types()
local head = tonumber(redis.call('HGET', FIGURES, 'head') or 0)
if head ~= first - 1 then
  local id = string.format('%.0f-0', first)
  local entry = redis.call('XRANGE', LOG, id, id)[1]
  return entry and entry[2][4] == ARGV[3] and entry[2][6] == ARGV[4] and 1 or 0
end
for _ = 1, (#ARGV - 1) / 3 do
  append(take(), take(), take())
end
return 1
