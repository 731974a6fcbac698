-- Removes a session from everywhere, which is no event. Returns 1; 0 if there is none; -4 if it is damaged. ARGV: id.
-- with partition
-- with header
-- with unlist
local id = take()

check_types()
local value = redis.call('HGET', shelf(id), id)
if not value then
  return 0
end
local h = look(value)
if not h then
  return -4
end
redis.call('HDEL', shelf(id), id)
unlist(h, id)
return 1
