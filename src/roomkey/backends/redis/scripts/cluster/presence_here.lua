-- Whom all nodes show in a room, be they alive or not. KEYS: nodes that show somebody there.
-- ARGV: what the key of those whom a node shows begins with, behind which the node stands, and what it ends with.
-- Returns of each node its name, and members with what is shown of them.
local found = {}
for _, node in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  -- In the same slot as the key that is named.
  found[#found + 1] = {node, redis.call('HGETALL', ARGV[1] .. node .. ARGV[2])}
end
return found
