-- Sessions of a user, oldest first: the epoch, then place, value, place, value, ...
-- ARGV: user, lower bound, upper bound, limit.
-- with partition
local prefix, low, high, limit = take(), take(), take(), tonumber(take())
local live = redis.call('ZRANGEBYLEX', LIVE, low, high, 'LIMIT', 0, limit)
local over = redis.call('ZRANGEBYLEX', OVER, low, high, 'LIMIT', 0, limit)
local found = {tonumber(redis.call('HGET', EPOCHS, prefix) or 0)}
-- Places of a user are as long as one another, and are compared as numbers: a server's locale may sort text.
local function is_before(one, other)
  if not one or not other then
    return one ~= nil
  end
  local from = #prefix + 1
  for at = from, #one do
    local left, right = one:byte(at), other:byte(at)
    if left ~= right then
      return left < right
    end
  end
  return false
end
local i, j = 1, 1
while (live[i] or over[j]) and #found < 2 * limit do
  local place
  if is_before(live[i], over[j]) then
    place, i = live[i], i + 1
  else
    place, j = over[j], j + 1
  end
  local id = place:sub(-16)
  found[#found + 1] = place
  found[#found + 1] = redis.call('HGET', shelf(id), id)
end
return found
