-- Removes a session. Returns 1; 0 if there is none; -1 if its version is another one; -2 if it is not known whether an
-- earlier try has done it; -4 if it is damaged. ARGV: again, id, version, when, key of the event, event.
-- with partition
-- with header
-- with log
local again, id, version, at, key, event = take() == '1', take(), tonumber(take()), take(), take(), take()

check_types()
if again then
  local found = logged(key, event)
  if found == 'ours' then
    return 1
  elseif found == 'unknown' then
    return -2
  end
end
local value = redis.call('HGET', shelf(id), id)
if not value then
  return 0
end
local h = look(value)
if not h then
  return -4
elseif h.version ~= version then
  return -1
end

-- HDEL comes first: what follows is not refused then, though memory may be full, which this is against.
redis.call('HDEL', shelf(id), id)
local member = h.prefix .. struct.pack('>I7', h.created) .. id
redis.call('ZREM', is_live(h) and LIVE or OVER, member)
redis.call('ZREM', is_live(h) and DEADLINES or ENDED, id)
redis.call('HINCRBY', FIGURES, 's' .. h.state, -1)
append(at, key, event)
return 1
