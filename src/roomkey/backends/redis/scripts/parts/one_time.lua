-- What the scripts of values of one use have in common.
--
-- KEYS: entries, ages, deadlines, totals, and what the keys of owners begin with. `entries` has an array for each key,
-- `ages` the keys by the numbers that they were given, so has each owner's own, and `deadlines` by the times at which
-- they are over, in milliseconds. All of this goes by itself when the last of them is over.
local ENTRIES, AGES, DEADLINES, TOTALS, OWNERS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local DEADLINE, OWNER, PINNED, DIGEST, VALUE = 1, 2, 3, 4, 5
local OVERHEAD, FORGOTTEN_AT_A_TIME = 1024, 100

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function forget(key, entry)
  redis.call('HDEL', ENTRIES, key)
  redis.call('ZREM', AGES, key)
  redis.call('ZREM', DEADLINES, key)
  if entry[OWNER] ~= '' then redis.call('ZREM', OWNERS .. entry[OWNER], key) end
  redis.call('HINCRBY', TOTALS, 'bytes', -(OVERHEAD + #entry[VALUE]))
end

-- What is there, if its time is not over.
local function find(key)
  local packed = redis.call('HGET', ENTRIES, key)
  local entry = packed and cmsgpack.unpack(packed)
  if entry and entry[DEADLINE] <= now then
    forget(key, entry)
    return nil
  end
  return entry
end

local function forget_overdue()
  local over = redis.call('ZRANGEBYSCORE', DEADLINES, '-inf', now, 'LIMIT', 0, FORGOTTEN_AT_A_TIME)
  for _, key in ipairs(over) do find(key) end
end

-- Forget the oldest that is not pinned; whether there was one. Pinned are no more than there are requests at a time.
local function forget_oldest(ages)
  local from = 0
  repeat
    local keys = redis.call('ZRANGE', ages, from, from + 9)
    for _, key in ipairs(keys) do
      local entry = cmsgpack.unpack(redis.call('HGET', ENTRIES, key))
      if entry[PINNED] == 0 then
        forget(key, entry)
        return true
      end
    end
    from = from + 10
  until #keys < 10
  return false
end

-- Limits are those of entries, of entries of an owner, and of bytes; -1 is none.
local function keep(key, entry, entries, entries_per_owner, bytes)
  local number = redis.call('HINCRBY', TOTALS, 'last', 1)
  local held = redis.call('HINCRBY', TOTALS, 'bytes', OVERHEAD + #entry[VALUE])
  redis.call('HSET', ENTRIES, key, cmsgpack.pack(entry))
  redis.call('ZADD', AGES, number, key)
  redis.call('ZADD', DEADLINES, entry[DEADLINE], key)
  local names = {ENTRIES, AGES, DEADLINES, TOTALS}
  if entry[OWNER] ~= '' then
    local owner = OWNERS .. entry[OWNER]
    redis.call('ZADD', owner, number, key)
    names[5] = owner
    while entries_per_owner >= 0 and redis.call('ZCARD', owner) > entries_per_owner and forget_oldest(owner) do end
  end
  while entries >= 0 and redis.call('HLEN', ENTRIES) > entries and forget_oldest(AGES) do end
  while bytes >= 0 and held > bytes and forget_oldest(AGES) do
    held = tonumber(redis.call('HGET', TOTALS, 'bytes'))
  end
  local last = math.max(entry[DEADLINE], tonumber(redis.call('HGET', TOTALS, 'until') or 0))
  redis.call('HSET', TOTALS, 'until', string.format('%d', last))
  for _, name in ipairs(names) do redis.call('PEXPIREAT', name, string.format('%d', last)) end
end
