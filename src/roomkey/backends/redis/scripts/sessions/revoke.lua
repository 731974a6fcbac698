-- Raises the epoch of a user and ends sessions; without an event of its own it only ends some more.
-- Returns how many live sessions are listed now, and what became of each change: 1, or 0 if the session is not as it
-- was read; -1 if the epoch is another one, or the session that is to be kept is gone; -2 if it is not known
-- whether an earlier try has done it.
-- ARGV: again, user, epoch that was read, id of the kept session or nothing, when, key and event of the revocation or
-- nothing, number of changes, for each the record that was read and the change.
-- with partition
-- with header
-- with log
-- with change
local again, prefix, epoch, kept = take() == '1', take(), tonumber(take()), take()
local at, key, event, number = take(), take(), take(), tonumber(take())

check_types()
local is_done = false
if again and event ~= '' then
  local found = logged(key, event)
  if found == 'unknown' then
    return -2
  end
  is_done = found == 'ours'
end
if not is_done then
  local value = kept ~= '' and redis.call('HGET', shelf(kept), kept)
  local h = value and look(value)
  if tonumber(redis.call('HGET', EPOCHS, prefix) or 0) ~= epoch or (kept ~= '' and not h) then
    return -1
  end
  if event ~= '' then
    redis.call('HSET', EPOCHS, prefix, epoch + 1)
    if h then
      h.epoch = epoch + 1
      redis.call('HSET', shelf(kept), kept, with_header(h, value:sub(h.size + 1)))
    end
    append(at, key, event)
  end
end

local outcomes = {}
for i = 1, number do
  local before, c = take(), take_change()
  local value = redis.call('HGET', shelf(c.id), c.id)
  local h = value and look(value)
  if h and is_live(h) and h.version == c.version - 1 and value:sub(h.size + 1) == before then
    carry_out(h, c)
    outcomes[i] = 1
  else
    outcomes[i] = again and logged(c.key, c.event) == 'ours' and 1 or 0
  end
end
-- What came or changed since Python looked is still listed; it is dead, and gets its event next.
local listed = redis.call('ZLEXCOUNT', LIVE, '[' .. prefix, '(' .. prefix .. '\255')
return {listed, outcomes}
