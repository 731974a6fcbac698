-- Put another record of a document in the place of the one that was read. KEYS: document. ARGV: that one, the new one.
-- Done twice it is as done once: what was written is not what was read.
-- with document
local state, record = opened(KEYS[1])
if state and record == ARGV[1] then save(KEYS[1], ARGV[2], state, 'record', ARGV[2]) end
return 1
