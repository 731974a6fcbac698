-- A user: the epoch, the value of the session that is to be kept or false, and up to so many live sessions.
-- ARGV: user, limit, id of the one that is to be kept or nothing.
-- with partition
-- with live
local prefix, limit, kept = take(), tonumber(take()), take()
local epoch = tonumber(redis.call('HGET', EPOCHS, prefix) or 0)
return {epoch, kept ~= '' and redis.call('HGET', shelf(kept), kept), live_of(prefix, limit)}
