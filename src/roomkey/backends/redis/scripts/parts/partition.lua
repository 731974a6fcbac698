-- What every script that writes sessions begins with: the keys of a partition, always in this order.
local EPOCHS, LIVE, OVER, DEADLINES, ENDED, FIGURES, LOG = unpack(KEYS, 1, 7)

-- The hash that has the record of a session. Who writes to one session names its hash alone.
local function shelf(id)
  return KEYS[8 + (#KEYS > 8 and math.floor(id:byte() / 16) or 0)]
end

-- Everything is read before anything is written: a script that fails half-way is not undone, and a key of another
-- type under one of our names would let it fail.
local function check_types()
  redis.call('ZCARD', LIVE)
  redis.call('ZCARD', OVER)
  redis.call('ZCARD', DEADLINES)
  redis.call('ZCARD', ENDED)
  redis.call('HLEN', EPOCHS)
  redis.call('HLEN', FIGURES)
  redis.call('XLEN', LOG)
end

local next_argument = 0

local function take()
  next_argument = next_argument + 1
  return ARGV[next_argument]
end
