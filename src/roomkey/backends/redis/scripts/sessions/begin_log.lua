-- Forgets the events up to a number; if the log ends before, it goes on behind it. KEYS: figures, log. ARGV: number.
local after = tonumber(ARGV[1])
redis.call('XTRIM', KEYS[2], 'MINID', '=', string.format('%.0f-0', after + 1))
if tonumber(redis.call('HGET', KEYS[1], 'head') or 0) < after then
  redis.call('HSET', KEYS[1], 'head', ARGV[1])
end
return 1
