-- What is asked of sessions, epochs, partitions and the log. `statements.py` says how this file is read.

-- name: get
SELECT s.id, s.version, s.epoch, s.last_seen, s.deadline, s.ended, s.record, e.epoch
FROM roomkey_sessions s LEFT JOIN roomkey_epochs e ON e.user_id = s.user_id
WHERE s.id IN (*);

-- name: live_of
SELECT s.id, s.version, s.epoch, s.last_seen, s.deadline, s.ended, s.record, e.epoch
FROM roomkey_sessions s LEFT JOIN roomkey_epochs e ON e.user_id = s.user_id
WHERE s.user_id IN (*) AND s.deadline IS NOT NULL
ORDER BY s.created, s.id;

-- name: list_all
SELECT s.id, s.version, s.epoch, s.last_seen, s.deadline, s.ended, s.record, e.epoch
FROM roomkey_sessions s LEFT JOIN roomkey_epochs e ON e.user_id = s.user_id
WHERE s.id > ? AND s.id <= ? AND s.state >= ? AND s.state <= ? AND s.created > ? AND s.created < ?
ORDER BY s.id LIMIT ?;

-- name: boundary
SELECT id FROM roomkey_sessions WHERE id > ? ORDER BY id LIMIT 1 OFFSET ?;

-- name: list_user
SELECT s.id, s.version, s.epoch, s.last_seen, s.deadline, s.ended, s.record, e.epoch, s.created
FROM roomkey_sessions s LEFT JOIN roomkey_epochs e ON e.user_id = s.user_id
WHERE s.user_id = ? AND s.created >= ? AND (s.created > ? OR s.id > ?)
    AND s.state >= ? AND s.state <= ? AND s.created > ? AND s.created < ?
ORDER BY s.created, s.id LIMIT ?;

-- name: count_all
SELECT count(*) FROM roomkey_sessions WHERE state >= ? AND state <= ? AND created > ? AND created < ?;

-- name: count_user
SELECT count(*) FROM roomkey_sessions
WHERE user_id = ? AND state >= ? AND state <= ? AND created > ? AND created < ?;

-- name: overdue
SELECT s.id, s.version, s.epoch, s.last_seen, s.deadline, s.ended, s.record, e.epoch
FROM roomkey_sessions s LEFT JOIN roomkey_epochs e ON e.user_id = s.user_id
WHERE s.deadline >= ? AND s.deadline <= ? AND (s.deadline > ? OR s.id > ?)
ORDER BY s.deadline, s.id LIMIT ?;

-- name: ended_before
SELECT s.id, s.version, s.epoch, s.last_seen, s.deadline, s.ended, s.record, 0
FROM roomkey_sessions s
WHERE s.ended >= ? AND s.ended < ? AND (s.ended > ? OR s.id > ?)
ORDER BY s.ended, s.id LIMIT ?;

-- name: lock_partitions (postgresql, mysql)
SELECT id, head, tail, fence, pending, active, suspended, expired, invalidated, day, created_today, ended, ended_micros
FROM roomkey_partitions WHERE id IN (*) ORDER BY id FOR UPDATE;

-- name: lock_partitions (sqlite)
SELECT id, head, tail, fence, pending, active, suspended, expired, invalidated, day, created_today, ended, ended_micros
FROM roomkey_partitions WHERE id IN (*) ORDER BY id;

-- name: standing
SELECT user_id, epoch, 0 AS live FROM roomkey_epochs WHERE user_id IN (*)
UNION ALL
SELECT user_id, -1, count(*) FROM roomkey_sessions WHERE user_id IN (*) AND deadline IS NOT NULL GROUP BY user_id;

-- name: event
SELECT record FROM roomkey_events WHERE partition_id = ? AND sequence = ?;

-- name: add_sessions (postgresql)
INSERT INTO roomkey_sessions (id, user_id, state, version, epoch, created, last_seen, deadline, ended, record)
SELECT * FROM unnest(
    ?::bytea[], ?::bytea[], ?::smallint[], ?::integer[], ?::integer[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[],
    ?::bytea[]
);

-- name: add_sessions (mysql)
INSERT INTO roomkey_sessions (id, user_id, state, version, epoch, created, last_seen, deadline, ended, record)
VALUES {(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)|, };

-- name: add_sessions (sqlite)
INSERT INTO roomkey_sessions (id, user_id, state, version, epoch, created, last_seen, deadline, ended, record)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: put_sessions (postgresql)
UPDATE roomkey_sessions s
SET state = v.state, version = v.version, epoch = v.epoch, last_seen = greatest(s.last_seen, v.last_seen),
    deadline = v.deadline, ended = v.ended, record = v.record
FROM unnest(
    ?::smallint[], ?::integer[], ?::integer[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bytea[], ?::bytea[]
) AS v (state, version, epoch, last_seen, deadline, ended, record, id)
WHERE s.id = v.id;

-- name: put_sessions (mysql)
UPDATE roomkey_sessions s
JOIN ({SELECT ? AS state, ? AS version, ? AS epoch, ? AS seen, ? AS deadline, ? AS ended, ? AS record, ? AS id| UNION ALL })
    AS v ON s.id = v.id
SET s.state = v.state, s.version = v.version, s.epoch = v.epoch, s.last_seen = greatest(s.last_seen, v.seen),
    s.deadline = v.deadline, s.ended = v.ended, s.record = v.record;

-- name: put_sessions (sqlite)
UPDATE roomkey_sessions
SET state = ?, version = ?, epoch = ?, last_seen = max(last_seen, ?), deadline = ?, ended = ?, record = ?
WHERE id = ?;

-- name: remove_sessions
DELETE FROM roomkey_sessions WHERE id IN (*);

-- name: put_epochs (postgresql)
INSERT INTO roomkey_epochs (user_id, epoch) SELECT * FROM unnest(?::bytea[], ?::integer[])
ON CONFLICT (user_id) DO UPDATE SET epoch = excluded.epoch;

-- name: put_epochs (mysql)
INSERT INTO roomkey_epochs (user_id, epoch) VALUES {(?, ?)|, } ON DUPLICATE KEY UPDATE epoch = VALUES(epoch);

-- name: put_epochs (sqlite)
INSERT INTO roomkey_epochs (user_id, epoch) VALUES (?, ?) ON CONFLICT (user_id) DO UPDATE SET epoch = excluded.epoch;

-- name: add_events (postgresql)
INSERT INTO roomkey_events (partition_id, sequence, at, record)
SELECT * FROM unnest(?::smallint[], ?::bigint[], ?::bigint[], ?::bytea[]);

-- name: add_events (mysql)
INSERT INTO roomkey_events (partition_id, sequence, at, record) VALUES {(?, ?, ?, ?)|, };

-- name: add_events (sqlite)
INSERT INTO roomkey_events (partition_id, sequence, at, record) VALUES (?, ?, ?, ?);

-- name: put_partitions (postgresql)
UPDATE roomkey_partitions p
SET head = v.head, tail = v.tail, fence = v.fence, pending = v.pending, active = v.active, suspended = v.suspended,
    expired = v.expired, invalidated = v.invalidated, day = v.day, created_today = v.created_today, ended = v.ended,
    ended_micros = v.ended_micros
FROM unnest(
    ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::integer[],
    ?::bigint[], ?::bigint[], ?::bigint[], ?::smallint[]
) AS v (head, tail, fence, pending, active, suspended, expired, invalidated, day, created_today, ended, ended_micros, id)
WHERE p.id = v.id;

-- name: put_partitions (mysql)
UPDATE roomkey_partitions p
JOIN ({SELECT ? AS head, ? AS tail, ? AS fence, ? AS pending, ? AS active, ? AS suspended, ? AS expired, ? AS invalidated,
    ? AS day, ? AS created_today, ? AS ended, ? AS ended_micros, ? AS id| UNION ALL }) AS v ON p.id = v.id
SET p.head = v.head, p.tail = v.tail, p.fence = v.fence, p.pending = v.pending, p.active = v.active,
    p.suspended = v.suspended, p.expired = v.expired, p.invalidated = v.invalidated, p.day = v.day,
    p.created_today = v.created_today, p.ended = v.ended, p.ended_micros = v.ended_micros;

-- name: put_partitions (sqlite)
UPDATE roomkey_partitions
SET head = ?, tail = ?, fence = ?, pending = ?, active = ?, suspended = ?, expired = ?, invalidated = ?, day = ?,
    created_today = ?, ended = ?, ended_micros = ?
WHERE id = ?;

-- name: touch (postgresql)
UPDATE roomkey_sessions s SET last_seen = v.last_seen
FROM unnest(?::bigint[], ?::bytea[]) AS v (last_seen, id)
WHERE s.id = v.id AND s.last_seen < v.last_seen AND s.deadline IS NOT NULL;

-- name: touch (mysql)
UPDATE roomkey_sessions s JOIN ({SELECT ? AS seen, ? AS id| UNION ALL }) AS v ON s.id = v.id
SET s.last_seen = greatest(s.last_seen, v.seen) WHERE s.deadline IS NOT NULL;

-- name: touch (sqlite)
UPDATE roomkey_sessions SET last_seen = max(last_seen, ?) WHERE id = ? AND deadline IS NOT NULL;

-- name: events
SELECT sequence, record FROM roomkey_events WHERE partition_id = ? AND sequence > ? ORDER BY sequence LIMIT ?;

-- name: heads
SELECT id, head FROM roomkey_partitions WHERE head > 0;

-- name: purgeable
SELECT p.id FROM roomkey_partitions p JOIN roomkey_events e ON e.partition_id = p.id AND e.sequence = (
    SELECT min(o.sequence) FROM roomkey_events o WHERE o.partition_id = p.id AND o.sequence > p.tail
)
WHERE e.at < ? ORDER BY p.id;

-- name: oldest_events
SELECT sequence, at FROM roomkey_events WHERE partition_id = ? AND sequence > ? ORDER BY sequence LIMIT ?;

-- name: remove_events
DELETE FROM roomkey_events WHERE partition_id = ? AND sequence <= ?;

-- name: statistics
SELECT sum(pending), sum(active), sum(suspended), sum(expired), sum(invalidated),
    sum(CASE WHEN day = ? THEN created_today ELSE 0 END), sum(ended), sum(ended_micros)
FROM roomkey_partitions;

-- name: probe
UPDATE roomkey_partitions SET head = head WHERE id = -1;
