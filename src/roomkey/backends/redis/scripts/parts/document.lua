-- What the scripts of documents have in common.
--
-- A document is a hash. `record` was written when it was made and never changes; `state` is what scripts change: a
-- checksum over both, and a msgpack array. Whoever writes reads it first, so nothing is written to a damaged document.
local LINEAGE, SEQUENCE, UPTO, UPDATED = 1, 2, 3, 4
local BYTES, MERGED_BYTES = 5, 6 -- of all updates that there ever were, and of those in the snapshot
local CONTENT, SNAPSHOT_BYTES, AUTHORSHIP_BYTES = 7, 8, 9
local LAST_VERSION, FENCE = 10, 11
local CHECKSUM = 8 -- digits

local function checksum(record, packed)
  return string.sub(redis.sha1hex(record .. packed), 1, CHECKSUM)
end

-- The state of the document, its record, and the state as it is stored; or nothing, and what the caller is told.
local function opened(key, lineage)
  local found = redis.pcall('HMGET', key, 'record', 'state')
  if found.err then return nil, {'damaged'} end
  local record, state = found[1], found[2]
  if not record and not state then return nil, {'missing'} end
  if not record or not state then return nil, {'damaged'} end
  local packed = string.sub(state, CHECKSUM + 1)
  if string.sub(state, 1, CHECKSUM) ~= checksum(record, packed) then return nil, {'damaged'} end
  local values = cmsgpack.unpack(packed)
  if lineage and values[LINEAGE] ~= lineage then return nil, {'another'} end
  return values, record, state
end

-- Make `state` current, and further fields with it; returns it as it is stored.
local function save(key, record, state, ...)
  local packed = cmsgpack.pack(state)
  local stored = checksum(record, packed) .. packed
  redis.call('HSET', key, 'state', stored, ...)
  return stored
end

-- Enter the length of the log where long ones are looked for.
local function enter_log(updates, bytes, name, state)
  local length = state[SEQUENCE] - state[UPTO]
  if length == 0 then
    redis.call('ZREM', updates, name)
    redis.call('ZREM', bytes, name)
  else
    redis.call('ZADD', updates, length, name)
    redis.call('ZADD', bytes, state[BYTES] - state[MERGED_BYTES], name)
  end
end

-- Remember a fencing token, -1 being none; false if a higher one was here.
local function fenced(state, fence)
  if fence >= 0 and fence < state[FENCE] then return false end
  state[FENCE] = math.max(state[FENCE], fence)
  return true
end

local function id_of(number)
  return string.format('%d-0', number)
end

local function number_of(id)
  return tonumber(string.match(id, '^%d+'))
end

-- The fields of an entry of a stream, by their names.
local function fields_of(entry)
  local fields = {}
  for place = 1, #entry[2], 2 do fields[entry[2][place]] = entry[2][place + 1] end
  return fields
end
