-- Damaged sessions and events. The columns of `sessions` and `session` are those of `SessionRow`.

-- name: sessions
SELECT id, user_id, state, version, epoch, created, last_seen, deadline, ended, record
FROM roomkey_sessions WHERE id > ? ORDER BY id LIMIT ?;

-- name: session
SELECT id, user_id, state, version, epoch, created, last_seen, deadline, ended, record
FROM roomkey_sessions WHERE id = ?;

-- name: put_columns
UPDATE roomkey_sessions
SET user_id = ?, state = ?, version = ?, created = ?, deadline = ?, ended = ?, record = ? WHERE id = ?;

-- name: events
SELECT partition_id, sequence, at, record FROM roomkey_events
WHERE partition_id = ? AND sequence > ? ORDER BY sequence LIMIT ?;

-- name: event
SELECT partition_id, sequence, at, record FROM roomkey_events WHERE partition_id = ? AND sequence = ?;

-- name: remove_event
DELETE FROM roomkey_events WHERE partition_id = ? AND sequence = ?;

-- name: count_states
SELECT state, count(*) FROM roomkey_sessions WHERE id > ? AND id < ? GROUP BY state;

-- name: put_aside
INSERT INTO roomkey_aside (origin, place, record) VALUES (?, ?, ?);
