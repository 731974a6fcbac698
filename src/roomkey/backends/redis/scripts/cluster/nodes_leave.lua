-- Be none of the nodes any more. ARGV: node.
-- with living
redis.call('ZREM', DEADLINES, ARGV[1])
return redis.call('HDEL', STATUSES, ARGV[1])
