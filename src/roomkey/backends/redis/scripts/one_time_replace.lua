-- Put a value in the place of the one that is expected; whether it was there.
-- ARGV: key, milliseconds, digest of the one that is expected, digest, value; limits.
-- with one_time
local present = find(ARGV[1])
if not present then return 0 end
if present[VALUE] == ARGV[5] then return 1 end -- it comes again, because its answer was lost
if present[DIGEST] ~= ARGV[3] then return 0 end
forget(ARGV[1], present)
local entry = {now + tonumber(ARGV[2]), present[OWNER], 0, ARGV[4], ARGV[5]}
keep(ARGV[1], entry, tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]))
return 1
