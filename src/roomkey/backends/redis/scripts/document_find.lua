-- A document without its content. KEYS: document. Returns its record and its state.
-- with document
local state, record, stored = opened(KEYS[1])
if not state then return record end
return {'ok', record, stored}
