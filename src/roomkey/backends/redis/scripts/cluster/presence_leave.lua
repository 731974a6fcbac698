-- Be none of the nodes that show somebody any more. KEYS: those nodes. ARGV: node.
return redis.call('SREM', KEYS[1], ARGV[1])
