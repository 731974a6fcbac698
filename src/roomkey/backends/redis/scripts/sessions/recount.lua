-- Counts the sessions of a partition by their states anew.
-- with partition
-- with header
local counts = {0, 0, 0, 0, 0}
for place = 8, 23 do
  for _, value in ipairs(redis.call('HVALS', KEYS[place])) do
    local h = look(value)
    if h and counts[h.state + 1] then
      counts[h.state + 1] = counts[h.state + 1] + 1
    end
  end
end
for number, count in ipairs(counts) do
  redis.call('HSET', FIGURES, 's' .. (number - 1), count)
end
return 1
