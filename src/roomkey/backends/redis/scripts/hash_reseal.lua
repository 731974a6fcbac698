-- Put records in the place of others in a hash, if they are still what was read. KEYS: hash.
-- ARGV of each: its field, number of bytes in front of the record, the record that was read, the new one.
-- Done twice it is as done once: what was written is not what was read.
for place = 1, #ARGV, 4 do
  local field, front, before, after = unpack(ARGV, place, place + 3)
  local value = redis.call('HGET', KEYS[1], field)
  if value and value:sub(front + 1) == before then
    redis.call('HSET', KEYS[1], field, value:sub(1, front) .. after)
  end
end
return 1
