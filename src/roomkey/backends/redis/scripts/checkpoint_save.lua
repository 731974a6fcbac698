-- Note how far a consumer is. KEYS: the checkpoints. ARGV: partition and consumer, sequence number.
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
