-- Takes a session, whose header is `h`, out of the indexes and the figures.
local function unlist(h, id)
  local member = h.prefix .. struct.pack('>I7', h.created) .. id
  redis.call('ZREM', LIVE, member)
  redis.call('ZREM', OVER, member)
  redis.call('ZREM', DEADLINES, id)
  redis.call('ZREM', ENDED, id)
  redis.call('HINCRBY', FIGURES, 's' .. h.state, -1)
end
