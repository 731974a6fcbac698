-- Moves an entry of one of the keys of a partition to where nothing reads it. Returns whether it was there.
-- The last key is that of what is set aside. ARGV: number of the key, the entry, what was read there or nothing.
-- with partition
-- with header
local place, member, before = tonumber(take()), take(), take()

local function keep(value)
  local name = place .. ':' .. member .. ':' .. redis.sha1hex(value):sub(1, 8)
  redis.call('HSET', KEYS[#KEYS], name, value)
end

if place == 7 then
  local found = redis.call('XRANGE', LOG, member, member)[1]
  if not found then
    return 0
  end
  keep(cmsgpack.pack(found[2]))
  return redis.call('XDEL', LOG, member)
elseif place >= 2 and place <= 5 then
  local score = redis.call('ZSCORE', KEYS[place], member)
  if not score then
    return 0
  end
  keep(score)
  return redis.call('ZREM', KEYS[place], member)
end
if redis.call('HGET', KEYS[place], member) ~= before then
  return 0
end
keep(before)
redis.call('HDEL', KEYS[place], member)
if place == 1 then
  -- A user whose epoch is lost gets one that no session has yet.
  local highest = 0
  for _, list in ipairs({LIVE, OVER}) do
    for _, listed in ipairs(redis.call('ZRANGEBYLEX', list, '[' .. member, '(' .. member .. '\255')) do
      local id = listed:sub(-16)
      local h = look(redis.call('HGET', shelf(id), id) or '')
      highest = math.max(highest, h and h.epoch or 0)
    end
  end
  redis.call('HSET', EPOCHS, member, highest + 1)
elseif place == 6 and member == 'head' then
  local last = redis.call('XREVRANGE', LOG, '+', '-', 'COUNT', 1)[1]
  if last then
    redis.call('HSET', FIGURES, 'head', last[1]:match('^%d+'))
  end
elseif place >= 8 then
  -- Nobody knows any more whose it was.
  for _, list in ipairs({LIVE, OVER}) do
    for _, listed in ipairs(redis.call('ZRANGE', list, 0, -1)) do
      if listed:sub(-16) == member then
        redis.call('ZREM', list, listed)
      end
    end
  end
  redis.call('ZREM', DEADLINES, member)
  redis.call('ZREM', ENDED, member)
end
return 1
