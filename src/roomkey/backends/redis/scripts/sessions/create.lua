-- Stores sessions of one user, if there is room for them or somebody makes it.
-- Returns 1; -1 if an id exists; -2 if it is not known whether that is from an earlier try; or, when there is no room,
-- the epoch and the live sessions, from which Python decides who goes, and comes again with their digest.
-- ARGV: again, user, room, digest, day, number of evictions, of new sessions, the evictions, the sessions.
-- with partition
-- with header
-- with log
-- with change
-- with live
local again, prefix, room, digest, day = take() == '1', take(), tonumber(take()), take(), tonumber(take())
local evictions, number = tonumber(take()), tonumber(take())
local changes, new = {}, {}
for i = 1, evictions do
  changes[i] = take_change()
end
for i = 1, number do
  new[i] = {id = take(), created = take(), due = take(), record = take(), key = take(), event = take()}
end

check_types()
if again then
  local found = logged(new[1].key, new[1].event)
  if found == 'ours' then
    return 1
  elseif found == 'unknown' then
    return -2
  end
end
for _, session in ipairs(new) do
  if redis.call('HEXISTS', shelf(session.id), session.id) == 1 then
    return -1
  end
end
local epoch = tonumber(redis.call('HGET', EPOCHS, prefix) or 0)
if redis.call('ZLEXCOUNT', LIVE, '[' .. prefix, '(' .. prefix .. '\255') > room or digest ~= '' then
  local live = live_of(prefix, -1)
  if redis.sha1hex(epoch .. table.concat(live)) ~= digest then
    return {epoch, live}
  end
end

-- HSET comes first, because it is refused when memory is full.
for _, session in ipairs(new) do
  local created = tonumber(session.created)
  local h = {version = 1, state = 0, epoch = epoch, created = created, seen = created, prefix = prefix}
  redis.call('HSET', shelf(session.id), session.id, with_header(h, session.record))
  redis.call('ZADD', LIVE, 0, prefix .. struct.pack('>I7', created) .. session.id)
  redis.call('ZADD', DEADLINES, session.due, session.id)
end
for _, c in ipairs(changes) do
  carry_out(look(redis.call('HGET', shelf(c.id), c.id)), c)
end
for _, session in ipairs(new) do
  append(session.created, session.key, session.event)
end
redis.call('HINCRBY', FIGURES, 's0', number)
local stored = tonumber(redis.call('HGET', FIGURES, 'day') or 0)
if stored == day then
  redis.call('HINCRBY', FIGURES, 'today', number)
elseif stored < day then
  redis.call('HSET', FIGURES, 'day', day, 'today', number)
end
return 1
