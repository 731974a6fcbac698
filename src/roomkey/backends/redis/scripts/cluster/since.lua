-- Where a room stands, and what came after a position. KEYS: head, history.
-- ARGV, behind those of rooms: epoch and offset that are asked for.
-- Returns the epoch, the offset, and the publications behind the one that is asked for, or nil if one of them is missing.
-- with room
local room = opened(KEYS[1], KEYS[2])
if not room then return redis.error_reply('WRONGTYPE it is no room') end
trim(room)
save(room)
local missed, found = room.offset - tonumber(ARGV[8]), false
if ARGV[7] == room.epoch and tonumber(ARGV[8]) >= 0 and missed >= 0 and missed <= room.kept then
  found = missed > 0 and redis.call('LRANGE', room.history, -missed, -1) or {}
end
return {room.epoch, room.offset, found}
