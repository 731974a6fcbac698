-- Forget whom a node shows in the rooms of a partition. KEYS: rooms in which it shows somebody.
-- ARGV: node; what the key of the nodes of a room begins with, and that of those whom this node shows in one.
local rooms = redis.call('SMEMBERS', KEYS[1])
for _, room in ipairs(rooms) do
  -- In the same slot as the key that is named.
  redis.call('DEL', ARGV[3] .. room)
  redis.call('SREM', ARGV[2] .. room, ARGV[1])
end
redis.call('DEL', KEYS[1])
return #rooms
