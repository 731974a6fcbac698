-- Raises the epoch of a user. Returns the one that is there now. KEYS: epochs. ARGV: user, epoch.
local held = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or 0)
local epoch = tonumber(ARGV[2])
if epoch <= held then
  return held
end
redis.call('HSET', KEYS[1], ARGV[1], epoch)
return epoch
