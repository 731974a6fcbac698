-- An entry of one of the keys of a partition: what stands there or false, the session that it is about or false, and
-- whether the indexes list that. ARGV: number of the key, the entry.
-- with partition
-- with header
local place, member = tonumber(take()), take()
local entry
if place == 7 then
  local found = redis.call('XRANGE', LOG, member, member)[1]
  entry = found and found[2]
elseif place >= 2 and place <= 5 then
  entry = redis.call('ZSCORE', KEYS[place], member)
else
  entry = redis.call('HGET', KEYS[place], member)
end
local id = member:sub(-16)
local value = place ~= 7 and #id == 16 and redis.call('HGET', shelf(id), id)
local h = value and look(value)
local listed = 0
if h then
  local in_list = redis.call('ZSCORE', is_live(h) and LIVE or OVER, h.prefix .. struct.pack('>I7', h.created) .. id)
  local in_time = redis.call('ZSCORE', is_live(h) and DEADLINES or ENDED, id)
  listed = in_list and in_time and 1 or 0
end
return {entry, value, listed}
