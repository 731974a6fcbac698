-- Write a stream anew with other records, a part at a time: into a copy, which takes its place when it has everything.
-- The record is the last field of an entry; no two entries of a stream are alike in the others.
-- KEYS: stream, copy. ARGV: seconds after which a copy goes that nobody goes on with; of each entry that is to be
-- copied next: its id, the record. Returns 1 when the copy has taken the place, 0 when more is to be copied, and -1 if
-- it was in vain because an entry was taken out. Done twice it is as done once: what is in the copy is not added again.
local function last_of(key)
  return redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
end

local function number_of(entry)
  return entry and tonumber(entry[1]:match('^%d+')) or -1
end

local function same(a, b)
  if a[1] ~= b[1] or #a[2] ~= #b[2] then return false end
  for place = 1, #a[2] - 1 do
    if a[2][place] ~= b[2][place] then return false end
  end
  return true
end

local reached = number_of(last_of(KEYS[2]))
for place = 2, #ARGV, 2 do
  local id, record = ARGV[place], ARGV[place + 1]
  local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
  if entry and number_of(entry) > reached then
    entry[2][#entry[2]] = record
    redis.call('XADD', KEYS[2], id, unpack(entry[2]))
  end
end

local last, copied = last_of(KEYS[1]), last_of(KEYS[2])
if not copied then return last and 0 or 1 end
redis.call('EXPIRE', KEYS[2], ARGV[1])
if not last then
  redis.call('UNLINK', KEYS[2])
  return 1
end
if not same(last, copied) then return number_of(last) > number_of(copied) and 0 or -1 end
redis.call('XTRIM', KEYS[2], 'MINID', '=', redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1][1])
if redis.call('XLEN', KEYS[1]) ~= redis.call('XLEN', KEYS[2]) then
  redis.call('UNLINK', KEYS[2])
  return -1
end
redis.call('PERSIST', KEYS[2])
redis.call('RENAME', KEYS[2], KEYS[1])
return 1
