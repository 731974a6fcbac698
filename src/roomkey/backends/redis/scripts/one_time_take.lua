-- Remove a value and return it. ARGV: key, digest of the one that is expected, or nothing for any.
-- with one_time
local present = find(ARGV[1])
if not present or ARGV[2] ~= '' and present[DIGEST] ~= ARGV[2] then return false end
forget(ARGV[1], present)
return present[VALUE]
