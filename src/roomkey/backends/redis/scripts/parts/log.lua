-- Gives an event the next number in the log of its partition. `key` says which event of what it is.
local function append(at, key, event)
  local number = redis.call('HINCRBY', FIGURES, 'head', 1)
  redis.call('XADD', LOG, string.format('%.0f-0', number), 't', at, 'k', key, 'e', event)
end

-- Whether an earlier try of this call has written its event: 'ours', 'others' if somebody else's stands in its place,
-- nil if there is none, 'unknown' if the log has grown so much that it is not found.
local function logged(key, event)
  local before = '+'
  for _ = 1, 10 do
    local page = redis.call('XREVRANGE', LOG, before, '-', 'COUNT', 500)
    for _, entry in ipairs(page) do
      if entry[2][4] == key then
        return entry[2][6] == event and 'ours' or 'others'
      end
    end
    if #page < 500 then
      return nil
    end
    before = '(' .. page[#page][1]
  end
  return 'unknown'
end
