-- name: objects
SELECT name, revision, value FROM roomkey_objects WHERE space = ? AND name IN (*)

-- name: revisions
SELECT name, revision FROM roomkey_objects WHERE space = ? AND name IN (*)

-- name: hold_revisions (postgresql, mysql)
SELECT name, revision FROM roomkey_objects WHERE space = ? AND name IN (*) ORDER BY name FOR UPDATE

-- name: hold_revisions (sqlite)
SELECT name, revision FROM roomkey_objects WHERE space = ? AND name IN (*)

-- name: page
SELECT name, revision, value FROM roomkey_objects WHERE space = ? AND name >= ? AND name < ?
ORDER BY name LIMIT ?

-- name: make (postgresql, sqlite)
INSERT INTO roomkey_objects (space, name, revision, value) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING name

-- name: make (mysql)
INSERT INTO roomkey_objects (space, name, revision, value) VALUES (?, ?, ?, ?)
ON DUPLICATE KEY UPDATE name = VALUES(name)

-- name: put (postgresql)
INSERT INTO roomkey_objects (space, name, revision, value)
SELECT * FROM unnest(CAST(? AS text[]), CAST(? AS bytea[]), CAST(? AS bigint[]), CAST(? AS bytea[]))
ON CONFLICT (space, name) DO UPDATE SET revision = excluded.revision, value = excluded.value

-- name: put (mysql)
INSERT INTO roomkey_objects (space, name, revision, value) VALUES {(?, ?, ?, ?)|, }
ON DUPLICATE KEY UPDATE revision = VALUES(revision), value = VALUES(value)

-- name: put (sqlite)
INSERT INTO roomkey_objects (space, name, revision, value) VALUES (?, ?, ?, ?)
ON CONFLICT (space, name) DO UPDATE SET revision = excluded.revision, value = excluded.value

-- name: remove
DELETE FROM roomkey_objects WHERE space = ? AND name IN (*)

-- name: put_aside
INSERT INTO roomkey_aside (origin, place, record) VALUES (?, ?, ?)
