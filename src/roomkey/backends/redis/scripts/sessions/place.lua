-- Stores a session as it was elsewhere, with everything that finds it, in the place of what Python read there.
-- Returns 1; 0 if something else is there by now. The second time finds itself there, and is content.
-- ARGV: id, what was read or nothing, the new value, time of the deadline or of the end.
-- with partition
-- with header
-- with unlist
local id, before, value, time = take(), take(), take(), take()

check_types()
local found = redis.call('HGET', shelf(id), id) or ''
if found ~= before then
  return found == value and 1 or 0
end
local h, old = look(value), found ~= '' and look(found)
redis.call('HSET', shelf(id), id, value)
if old then
  unlist(old, id)
end
redis.call('ZADD', is_live(h) and LIVE or OVER, 0, h.prefix .. struct.pack('>I7', h.created) .. id)
redis.call('ZADD', is_live(h) and DEADLINES or ENDED, time, id)
redis.call('HINCRBY', FIGURES, 's' .. h.state, 1)
return 1
