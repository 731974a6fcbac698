-- Publish, in order, what a node says at once in the rooms of a partition; and once, however often it comes.
-- KEYS: what was done for the node last; then of each publication: head, history, what is known of its message key.
-- ARGV, behind those of rooms: number of the call, which grows; milliseconds that it is remembered; whether channels
-- have slots (0 or 1); milliseconds that message keys are remembered; then of each publication: channel, whether it is
-- kept (0 or 1), fingerprint of its content or nothing if it has no key, origin and message.
-- Returns 16 bytes for each: `n` new, `r` repeated, `c` its key was used for something else, `d` something else lies
-- there; then the epoch and the offset, which are zero if it has no position.
-- with room
local NUMBER, REMEMBERED, WINDOW = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[10])
local VERSION, NOWHERE = '\1', string.rep('\0', 15)
-- A server that has no sharded channels has no such number either.
local PUBLISH = ARGV[9] == '1' and redis.REDIS_VERSION_NUM and 'SPUBLISH' or 'PUBLISH'

local done = redis.call('GET', KEYS[1])
if done then
  local last = struct.unpack('>I7', done)
  if last == NUMBER then return string.sub(done, 8) end
  -- It comes late: its node has given it up, and was perhaps told so.
  if last > NUMBER then return redis.error_reply('LATE it was given up') end
end

local rooms = {}

local function room_of(head, history)
  if rooms[head] == nil then rooms[head] = opened(head, history) or false end
  return rooms[head]
end

local function publish(head, history, repetition, channel, keep, content, body)
  if content ~= '' then
    local seen = redis.call('GET', repetition)
    if seen then return (string.sub(seen, 1, 8) == content and 'r' or 'c') .. string.sub(seen, 9) end
  end
  local place = NOWHERE
  if keep == '1' then
    local room = room_of(head, history)
    if not room then return 'd' .. NOWHERE end
    append(room, body)
    place = room.epoch .. struct.pack('>I7', room.offset)
  end
  redis.call(PUBLISH, channel, VERSION .. place .. body)
  if content ~= '' then redis.call('SET', repetition, content .. place, 'PX', WINDOW) end
  return 'n' .. place
end

local answers = {}
for number = 1, (#KEYS - 1) / 3 do
  local key, argument = 3 * number - 1, 4 * number + 7
  answers[number] = publish(KEYS[key], KEYS[key + 1], KEYS[key + 2], unpack(ARGV, argument, argument + 3))
end
for _, room in pairs(rooms) do
  if room then save(room) end
end
local answer = table.concat(answers)
redis.call('SET', KEYS[1], struct.pack('>I7', NUMBER) .. answer, 'PX', REMEMBERED)
return answer
