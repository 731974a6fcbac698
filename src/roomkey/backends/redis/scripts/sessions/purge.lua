-- Forgets events from the front of a log that are older than a moment. Returns how many; with a limit of 0, whether
-- there is one; -1 if events were purged under a higher fence. KEYS: figures, log. ARGV: fence or nothing, moment, limit.
local fence, before, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local highest = tonumber(redis.call('HGET', KEYS[1], 'fence') or 0)
if fence and fence < highest then
  return -1
end
local old = 0
local last = ''
for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', math.max(limit, 1))) do
  if tonumber(entry[2][2]) >= before then
    break
  end
  old = old + 1
  last = entry[1]
end
if old > 0 and limit > 0 then
  local number = tonumber(last:match('^(%d+)'))
  redis.call('XTRIM', KEYS[2], 'MINID', '=', string.format('%.0f-0', number + 1))
end
if fence and fence > highest then
  redis.call('HSET', KEYS[1], 'fence', fence)
end
return old
