-- Note how far a consumer is. KEYS: its checkpoints. ARGV: partition, sequence number.
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
