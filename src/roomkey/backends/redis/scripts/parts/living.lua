-- KEYS: what nodes say of themselves, and until when they live, in milliseconds.
local STATUSES, DEADLINES = KEYS[1], KEYS[2]

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- What those say of themselves that live.
local function living()
  local ids = redis.call('ZRANGEBYSCORE', DEADLINES, '(' .. now, '+inf')
  local found = {}
  for number, id in ipairs(ids) do found[number] = redis.call('HGET', STATUSES, id) end
  return found
end
