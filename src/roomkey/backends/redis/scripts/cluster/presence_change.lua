-- Change what a node shows in the rooms of a partition, in order.
-- KEYS: rooms in which the node shows somebody; then of each change: nodes that show somebody in the room, whom this
-- node shows there. ARGV: node; then of each change: room, member, what is shown; nothing in the place of the last but
-- its sign `-` if the member is shown no more, `+` before what is shown.
for number = 1, (#KEYS - 1) / 2 do
  local nodes, members = KEYS[2 * number], KEYS[2 * number + 1]
  local room, member, shown = unpack(ARGV, 3 * number - 1, 3 * number + 1)
  if shown ~= '-' then
    if redis.call('HSET', members, member, string.sub(shown, 2)) == 1 then
      redis.call('SADD', nodes, ARGV[1])
      redis.call('SADD', KEYS[1], room)
    end
  elseif redis.call('HDEL', members, member) == 1 and redis.call('EXISTS', members) == 0 then
    redis.call('SREM', nodes, ARGV[1])
    redis.call('SREM', KEYS[1], room)
  end
end
return #KEYS
