-- Take an entry out of an index if it leads to no document. KEYS: the index, document, aside. ARGV: name, where it goes.
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score then return 0 end
redis.call('HSET', KEYS[3], ARGV[2], score)
return redis.call('ZREM', KEYS[1], ARGV[1])
