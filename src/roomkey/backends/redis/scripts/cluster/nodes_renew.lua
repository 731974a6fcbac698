-- Be one of the nodes for a while; returns what all say that live. ARGV: node, milliseconds, what it says of itself.
-- with living
redis.call('ZADD', DEADLINES, now + tonumber(ARGV[2]), ARGV[1])
redis.call('HSET', STATUSES, ARGV[1], ARGV[3])
for _, id in ipairs(redis.call('ZRANGEBYSCORE', DEADLINES, '-inf', now)) do
  redis.call('ZREM', DEADLINES, id)
  redis.call('HDEL', STATUSES, id)
end
return living()
