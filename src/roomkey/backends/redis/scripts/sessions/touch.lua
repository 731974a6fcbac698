-- Moves forward when a live session was last seen. KEYS: its hash, epochs. ARGV: its id, when.
-- Returns what was stored, so that Python can say whether it is damaged.
-- with header
local value = redis.call('HGET', KEYS[1], ARGV[1])
local h = value and look(value)
local at = tonumber(ARGV[2])
if h and is_live(h) and h.seen < at and not is_dead(KEYS[2], h) then
  h.seen = at
  redis.call('HSET', KEYS[1], ARGV[1], with_header(h, value:sub(h.size + 1)))
end
return value
