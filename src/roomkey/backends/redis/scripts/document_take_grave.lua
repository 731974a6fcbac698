-- Remember a document that was deleted elsewhere. KEYS: graves, changes. ARGV: grave, what stands there.
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 1 then redis.call('INCR', KEYS[2]) end
return 1
