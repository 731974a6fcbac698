-- The live sessions of a user as the index has them, oldest first: id, value, id, value, ...
local function live_of(prefix, limit)
  local found = {}
  local members = redis.call('ZRANGEBYLEX', LIVE, '[' .. prefix, '(' .. prefix .. '\255', 'LIMIT', 0, limit)
  for _, member in ipairs(members) do
    local id = member:sub(-16)
    local value = redis.call('HGET', shelf(id), id)
    if value then
      found[#found + 1] = id
      found[#found + 1] = value
    end
  end
  return found
end
