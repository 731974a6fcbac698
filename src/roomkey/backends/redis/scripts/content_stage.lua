-- Store a piece of a content that nothing leads to yet; it goes by itself unless something will soon.
-- KEYS: content. ARGV: place of the piece, piece, seconds.
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
