-- Take a lease that is free, or that the same holder has. KEYS: lease, tokens. ARGV: holder, milliseconds.
-- Returns the token. The lease is its token, in sixteen digits, and its holder.
-- Tokens are times in microseconds, or follow the last one: so they grow even if a failover loses the last one.
local lease = redis.call('GET', KEYS[1])
if lease and string.sub(lease, 17) ~= ARGV[1] then return false end
local time = redis.call('TIME')
local last = tonumber(redis.call('GET', KEYS[2]) or 0)
local token = string.format('%016d', math.max(last + 1, time[1] * 1000000 + time[2]))
redis.call('SET', KEYS[2], token)
redis.call('SET', KEYS[1], token .. ARGV[1], 'PX', ARGV[2])
return tonumber(token)
