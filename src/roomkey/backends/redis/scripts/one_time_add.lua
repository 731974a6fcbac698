-- Put a value where nothing is; returns what is there otherwise.
-- ARGV: key, milliseconds, owner or nothing, whether it is pinned (0 or 1), digest, value; limits.
-- with one_time
forget_overdue()
local present = find(ARGV[1])
-- One that comes again, because its answer was lost, finds itself: no two values are the same when they are sealed.
if present then return present[VALUE] ~= ARGV[6] and present[VALUE] end
local entry = {now + tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]}
keep(ARGV[1], entry, tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]))
return false
