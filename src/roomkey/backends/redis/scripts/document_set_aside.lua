-- Keep bytes that cannot be read, for operators. KEYS: what was put aside. ARGV: where it lay, bytes.
return redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
