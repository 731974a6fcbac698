-- What stands in front of a session record, which scripts cannot read: see layout.py.
local HEADER = '>I3BI3I7I7I3'
local HEADER_SIZE = 24

local function sum_of(h)
  return (h.version * 7 + h.state * 1009 + h.epoch * 100003 + h.created + h.seen) % 16777213
end

-- The header of a value, or nil if it is damaged. `prefix` is the user with its length in front.
local function look(value)
  if #value < HEADER_SIZE + 2 then
    return nil
  end
  local h, sum = {}, nil
  h.version, h.state, h.epoch, h.created, h.seen, sum = struct.unpack(HEADER, value)
  h.size = HEADER_SIZE + 2 + value:byte(HEADER_SIZE + 1)
  h.prefix = value:sub(HEADER_SIZE + 1, h.size)
  return sum == sum_of(h) and h or nil
end

local function with_header(h, record)
  return struct.pack(HEADER, h.version, h.state, h.epoch, h.created, h.seen, sum_of(h)) .. h.prefix .. record
end

local function is_live(h)
  return h.state < 3
end

-- Whether the user was revoked after this was issued, though it is stored as live.
local function is_dead(epochs, h)
  return is_live(h) and h.epoch < tonumber(redis.call('HGET', epochs, h.prefix) or 0)
end
