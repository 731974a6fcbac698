-- What nodes share. Time is that of the server: microseconds since 1970.

-- name: now (postgresql)
SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)

-- name: now (mysql)
SELECT timestampdiff(microsecond, '1970-01-01', utc_timestamp(6))

-- name: now (sqlite)
SELECT CAST((julianday('now') - 2440587.5) * 86400000000 AS integer)

-- name: value
SELECT number, owner, ends, value FROM roomkey_one_time WHERE purpose = ? AND id = ?

-- name: add (postgresql, sqlite)
INSERT INTO roomkey_one_time (purpose, id, owner, pinned, size, ends, value) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING RETURNING number

-- name: add (mysql)
INSERT INTO roomkey_one_time (purpose, id, owner, pinned, size, ends, value) VALUES (?, ?, ?, ?, ?, ?, ?)
ON DUPLICATE KEY UPDATE purpose = VALUES(purpose)

-- name: take (postgresql, sqlite)
DELETE FROM roomkey_one_time WHERE number = ? RETURNING number

-- name: take (mysql)
DELETE FROM roomkey_one_time WHERE number = ?

-- name: forget
DELETE FROM roomkey_one_time WHERE number IN (*)

-- name: overdue
SELECT number FROM roomkey_one_time WHERE purpose = ? AND ends <= ? ORDER BY ends LIMIT ?

-- name: of_owner
SELECT number, pinned FROM roomkey_one_time WHERE purpose = ? AND owner = ? AND ends > ? ORDER BY number

-- name: totals
SELECT count(*), coalesce(sum(size), 0) FROM roomkey_one_time WHERE purpose = ? AND ends > ?

-- name: oldest
SELECT number, size FROM roomkey_one_time
WHERE purpose = ? AND ends > ? AND pinned = 0 ORDER BY number LIMIT ?

-- name: renew_own_lease (postgresql, sqlite)
UPDATE roomkey_leases SET holder = ?, token = token + 1, ends = ?
WHERE name = ? AND (holder = ? OR ends <= ?) RETURNING name

-- name: renew_own_lease (mysql)
UPDATE roomkey_leases SET holder = ?, token = token + 1, ends = ? WHERE name = ? AND (holder = ? OR ends <= ?)

-- name: first_lease (postgresql, sqlite)
INSERT INTO roomkey_leases (name, holder, token, ends) VALUES (?, ?, 1, ?) ON CONFLICT DO NOTHING RETURNING name

-- name: first_lease (mysql)
INSERT INTO roomkey_leases (name, holder, token, ends) VALUES (?, ?, 1, ?)
ON DUPLICATE KEY UPDATE name = VALUES(name)

-- name: token
SELECT token, ends FROM roomkey_leases WHERE name = ?

-- name: set_lease (postgresql, sqlite)
UPDATE roomkey_leases SET ends = ? WHERE name = ? AND token = ? AND ends > ? RETURNING name

-- name: set_lease (mysql)
UPDATE roomkey_leases SET ends = ? WHERE name = ? AND token = ? AND ends > ?

-- name: checkpoints
SELECT partition_id, sequence FROM roomkey_checkpoints WHERE consumer = ?

-- name: save_checkpoint (postgresql, sqlite)
INSERT INTO roomkey_checkpoints (consumer, partition_id, sequence) VALUES (?, ?, ?)
ON CONFLICT (consumer, partition_id) DO UPDATE SET sequence = excluded.sequence

-- name: save_checkpoint (mysql)
INSERT INTO roomkey_checkpoints (consumer, partition_id, sequence) VALUES (?, ?, ?)
ON DUPLICATE KEY UPDATE sequence = VALUES(sequence)

-- name: join (postgresql, sqlite)
INSERT INTO roomkey_nodes (name, ends) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET ends = excluded.ends

-- name: join (mysql)
INSERT INTO roomkey_nodes (name, ends) VALUES (?, ?) ON DUPLICATE KEY UPDATE ends = VALUES(ends)

-- name: bury_nodes
DELETE FROM roomkey_nodes WHERE ends <= ?

-- name: leave
DELETE FROM roomkey_nodes WHERE name = ?

-- name: nodes
SELECT name FROM roomkey_nodes WHERE ends > ? ORDER BY name
