-- A change as Python sends it.
local function take_change()
  return {
    id = take(),
    version = tonumber(take()),
    state = tonumber(take()),
    seen = tonumber(take()),
    record = take(),
    due = take(),
    at = take(),
    age = take(),
    key = take(),
    event = take(),
  }
end

-- Brings a session, whose header is `h` so far, where the change leads: record, indexes, figures and log.
local function carry_out(h, c)
  local new = {
    version = c.version,
    state = c.state,
    epoch = h.epoch,
    created = h.created,
    seen = math.max(h.seen, c.seen),
    prefix = h.prefix,
  }
  redis.call('HSET', shelf(c.id), c.id, with_header(new, c.record))
  if new.state ~= h.state then
    redis.call('HINCRBY', FIGURES, 's' .. h.state, -1)
    redis.call('HINCRBY', FIGURES, 's' .. new.state, 1)
  end
  if is_live(new) then
    -- Never later than the deadline: what was seen since Python looked makes it early, and it is put right in time.
    redis.call('ZADD', DEADLINES, c.due, c.id)
  else
    if is_live(h) then
      local member = h.prefix .. struct.pack('>I7', h.created) .. c.id
      redis.call('ZREM', LIVE, member)
      redis.call('ZREM', DEADLINES, c.id)
      redis.call('ZADD', OVER, 0, member)
      redis.call('HINCRBY', FIGURES, 'ended', 1)
      redis.call('HINCRBY', FIGURES, 'age', c.age)
    end
    redis.call('ZADD', ENDED, c.at, c.id)
  end
  append(c.at, c.key, c.event)
end
