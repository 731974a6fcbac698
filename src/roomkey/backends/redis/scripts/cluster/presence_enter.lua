-- Be one of the nodes that show somebody; returns all that ever were, and were not forgotten.
-- KEYS: those nodes. ARGV: node.
redis.call('SADD', KEYS[1], ARGV[1])
return redis.call('SMEMBERS', KEYS[1])
