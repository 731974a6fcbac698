-- Replaces the record of a live session that is still as Python read it, which is no event. Returns 0 if it is not.
-- KEYS: its hash, epochs. ARGV: its id, the record that was read, the new one.
-- with header
local value = redis.call('HGET', KEYS[1], ARGV[1])
local h = value and look(value)
if not h or not is_live(h) or is_dead(KEYS[2], h) then
  return 1
end
local record = value:sub(h.size + 1)
if record == ARGV[2] then
  redis.call('HSET', KEYS[1], ARGV[1], with_header(h, ARGV[3]))
elseif record ~= ARGV[3] then
  return 0
end
return 1
