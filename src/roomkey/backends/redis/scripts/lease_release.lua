-- End a lease, if this token holds it. KEYS: lease. ARGV: token.
local lease = redis.call('GET', KEYS[1])
if not lease or tonumber(string.sub(lease, 1, 16)) ~= tonumber(ARGV[1]) then return 0 end
return redis.call('DEL', KEYS[1])
