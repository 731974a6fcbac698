-- Spend of a budget: the generic cell rate algorithm, as `roomkey.security.ratelimit.spend` has it.
-- KEYS: the time at which the budget will be full again. ARGV: per second, burst, cost.
-- Returns the seconds to wait, as text, because numbers lose their fraction on the way.
local PRECISION = 0.000001
local per_second, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local capacity = burst / per_second
local full_at = math.min(tonumber(redis.call('GET', KEYS[1]) or 0), now + capacity)
local ahead = math.max(full_at, now) + math.min(tonumber(ARGV[3]), burst) / per_second
local wait = ahead - now - capacity
if wait > PRECISION then return string.format('%.17g', wait) end
local lifetime = math.ceil((ahead - now) * 1000)
if lifetime > 0 then redis.call('SET', KEYS[1], string.format('%.17g', ahead), 'PX', string.format('%d', lifetime)) end
return '0'
