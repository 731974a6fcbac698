-- Set a version aside that is damaged. Its content stays where it is. KEYS: versions, aside.
-- ARGV: number, where it goes.
-- with document
local id = id_of(tonumber(ARGV[1]))
local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
if not entry then return 0 end
redis.call('HSET', KEYS[2], ARGV[2], cmsgpack.pack(entry[2]))
return redis.call('XDEL', KEYS[1], id)
