-- Changes a session that is still as Python read it.
-- Returns 1; 0 if there is none; -1 if another change came first; -2 if it is not known whether it was this one;
-- -3 if it has to be read again, because its secret changed.
-- ARGV: again, the record that was read, whether even a revoked one is changed, the change.
-- with partition
-- with header
-- with log
-- with change
local again, before, even_dead = take() == '1', take(), take() == '1'
local c = take_change()

check_types()
if again then
  local found = logged(c.key, c.event)
  if found == 'ours' then
    return 1
  elseif found == 'unknown' then
    return -2
  end
end
local value = redis.call('HGET', shelf(c.id), c.id)
if not value then
  return 0
end
local h = look(value)
if not h or value:sub(h.size + 1) ~= before then
  return (h and h.version ~= c.version - 1) and -1 or -3
end
if h.version ~= c.version - 1 or (is_dead(EPOCHS, h) and not even_dead) then
  return -1
end
carry_out(h, c)
return 1
