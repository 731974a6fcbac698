-- What the scripts of rooms have in common.
--
-- A room is a string, its head, and a list, its history: see layout.py. What another process of the server wrote may
-- lack its end, because a restart or a failover loses what was not saved or copied: then the history begins anew.
-- ARGV: process of the server, something random for the epoch of what begins; how many publications, milliseconds and bytes a history has at
-- most; milliseconds that a room is remembered in which nothing happens.
local UNKNOWN = string.rep(' ', 16)
local RUN, RANDOM = string.sub(ARGV[1] .. UNKNOWN, 1, 16), ARGV[2]
local MOST, AGE, BYTES, LIFETIME = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local HEAD = '>c8c16I7I5I7'

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Eight letters. A call that is repeated on a server that has lost everything begins another epoch than the first time.
local function new_epoch()
  local digits = string.sub(redis.sha1hex(RANDOM .. RUN .. time[1] .. '.' .. time[2]), 1, 8)
  return (string.gsub(digits, '%d', function(digit) return string.char(103 + digit) end))
end

-- The room, or nil if something else lies there.
local function opened(head, history)
  local packed, kept = redis.pcall('GET', head), redis.pcall('LLEN', history)
  if type(packed) == 'table' or type(kept) == 'table' then return nil end
  local room = {head = head, history = history, kept = kept}
  if packed then
    local run
    room.epoch, run, room.offset, room.bytes, room.oldest = struct.unpack(HEAD, packed)
    if kept == 0 then room.bytes = 0 end
    -- Who may not ask which process it is does not know better than the others.
    if run == RUN or run == UNKNOWN or RUN == UNKNOWN then
      room.run = RUN == UNKNOWN and run or RUN
      return room
    end
  end
  if kept > 0 then redis.call('DEL', history) end
  room.epoch, room.offset, room.kept, room.bytes, room.oldest = new_epoch(), 0, 0, 0, now
  room.run = RUN
  return room
end

-- Forget what is outside of the bounds.
local function trim(room)
  while room.kept > 0 and (room.kept > MOST or room.bytes > BYTES or now - room.oldest > AGE) do
    room.bytes = room.bytes - #redis.call('LPOP', room.history)
    room.kept = room.kept - 1
    local oldest = room.kept > 0 and redis.call('LINDEX', room.history, 0)
    if oldest then room.oldest = struct.unpack('>I7', oldest) end
  end
end

local function append(room, body)
  local entry = struct.pack('>I7', now) .. body
  redis.call('RPUSH', room.history, entry)
  room.offset = room.offset + 1
  if room.kept == 0 then room.oldest = now end
  room.kept = room.kept + 1
  room.bytes = room.bytes + #entry
  trim(room)
end

local function save(room)
  local packed = struct.pack(HEAD, room.epoch, room.run, room.offset, room.bytes, room.oldest)
  redis.call('SET', room.head, packed, 'PX', LIFETIME)
  if room.kept > 0 then redis.call('PEXPIRE', room.history, AGE + 1000) end
end
