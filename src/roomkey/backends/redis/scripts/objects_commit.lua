-- Change objects of a space together, if those that something is expected of are as expected.
-- KEYS: objects, names. ARGV: whether it may have been done before, number of expectations, name and revision of each
-- (empty: there is none), number of objects to put, name and value of each, number to remove, their names. A value
-- begins with its revision of eight bytes.
local objects, names = KEYS[1], KEYS[2]
local position = 2

local function next_argument()
  position = position + 1
  return ARGV[position]
end

local expected = {}
for _ = 1, tonumber(ARGV[2]) do
  expected[#expected + 1] = {next_argument(), next_argument()}
end
local puts = {}
for _ = 1, tonumber(next_argument()) do
  puts[#puts + 1] = {next_argument(), next_argument()}
end
local removed = {}
for _ = 1, tonumber(next_argument()) do
  removed[#removed + 1] = next_argument()
end

local function revision_of(name)
  local value = redis.call('HGET', objects, name)
  return value and string.sub(value, 1, 8) or ''
end

local function is_done()
  for _, put in ipairs(puts) do
    if revision_of(put[1]) ~= string.sub(put[2], 1, 8) then return false end
  end
  for _, name in ipairs(removed) do
    if redis.call('HEXISTS', objects, name) == 1 then return false end
  end
  return #puts > 0
end

if ARGV[1] == '1' and is_done() then return 1 end
for _, each in ipairs(expected) do
  if revision_of(each[1]) ~= each[2] then return 0 end
end
for _, put in ipairs(puts) do
  redis.call('HSET', objects, put[1], put[2])
  redis.call('ZADD', names, 0, put[1])
end
for _, name in ipairs(removed) do
  redis.call('HDEL', objects, name)
  redis.call('ZREM', names, name)
end
return 1
