-- name: go_on (postgresql, sqlite)
UPDATE roomkey_document_writers SET writes = ?, day = ?
WHERE writer = ? AND slot = ? AND writes = ? RETURNING writes

-- name: go_on (mysql)
UPDATE roomkey_document_writers SET writes = ?, day = ? WHERE writer = ? AND slot = ? AND writes = ?

-- name: begin (postgresql, sqlite)
INSERT INTO roomkey_document_writers (writer, slot, writes, day) VALUES (?, ?, ?, ?)
ON CONFLICT DO NOTHING RETURNING writes

-- name: begin (mysql)
INSERT INTO roomkey_document_writers (writer, slot, writes, day) VALUES (?, ?, ?, ?)
ON DUPLICATE KEY UPDATE slot = VALUES(slot)

-- name: writes_of
SELECT writes FROM roomkey_document_writers WHERE writer = ? AND slot = ?

-- name: writes
SELECT sum(writes) FROM roomkey_document_writers

-- What writers that are long gone have written still counts: the sum never goes back.

-- name: inherit
UPDATE roomkey_document_writers
SET writes = writes + (
    SELECT coalesce(sum(old.writes), 0)
    FROM (SELECT writes FROM roomkey_document_writers WHERE writer <> 0 AND day < ?) AS old
)
WHERE writer = 0

-- name: forget
DELETE FROM roomkey_document_writers WHERE writer <> 0 AND day < ?

-- name: touch
UPDATE roomkey_document_writers SET day = day WHERE writer = 0
