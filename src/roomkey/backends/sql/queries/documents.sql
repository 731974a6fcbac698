-- Documents. The columns of `find` are those of `DocumentRow`.

-- name: find
SELECT id, name, lineage, sequence, upto, updated, log_bytes, content, snapshot_bytes, authorship_bytes, last_version,
    fence, record
FROM roomkey_documents WHERE name IN (*)

-- name: find_to_append
SELECT id, name, lineage, sequence, record FROM roomkey_documents WHERE name IN (*)

-- name: heads
SELECT name, lineage, sequence FROM roomkey_documents WHERE name IN (*)

-- name: list
SELECT id, name, lineage, sequence, upto, updated, log_bytes, content, snapshot_bytes, authorship_bytes, last_version,
    fence, record
FROM roomkey_documents WHERE name >= ? AND name < ? ORDER BY name LIMIT ?

-- name: backlog
SELECT id, name, lineage, sequence, upto, updated, log_bytes, content, snapshot_bytes, authorship_bytes, last_version,
    fence, record
FROM roomkey_documents
WHERE backlog >= ? AND backlog >= 1 AND (sequence - upto > ? OR log_bytes > ?) AND id > ? ORDER BY id LIMIT ?

-- name: any_backlog
SELECT id, name, lineage, sequence, upto, updated, log_bytes, content, snapshot_bytes, authorship_bytes, last_version,
    fence, record
FROM roomkey_documents WHERE (sequence - upto > ? OR log_bytes > ?) AND id > ? ORDER BY id LIMIT ?

-- name: is_buried
SELECT 1 FROM roomkey_document_graves WHERE id = ?

-- name: bury (postgresql, sqlite)
INSERT INTO roomkey_document_graves (id) VALUES (?) ON CONFLICT DO NOTHING

-- Of MySQL not INSERT IGNORE: that would let other errors pass, and the driver logs what it skips.

-- name: bury (mysql)
INSERT INTO roomkey_document_graves (id) VALUES (?) ON DUPLICATE KEY UPDATE id = VALUES(id)

-- name: name_grave (postgresql, sqlite)
INSERT INTO roomkey_document_grave_names (id, name) VALUES (?, ?) ON CONFLICT DO NOTHING

-- name: name_grave (mysql)
INSERT INTO roomkey_document_grave_names (id, name) VALUES (?, ?) ON DUPLICATE KEY UPDATE id = VALUES(id)

-- name: create (postgresql, sqlite)
INSERT INTO roomkey_documents (name, lineage, updated, record) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING

-- name: create (mysql)
INSERT INTO roomkey_documents (name, lineage, updated, record) VALUES (?, ?, ?, ?)
ON DUPLICATE KEY UPDATE name = VALUES(name)

-- name: delete (postgresql, sqlite)
DELETE FROM roomkey_documents WHERE id = ? RETURNING id

-- name: delete (mysql)
DELETE FROM roomkey_documents WHERE id = ?

-- The lock on the rows is taken in the order of their ids, so that nodes that append to the same documents at the same
-- time wait for each other, and not both.

-- name: grow (postgresql)
WITH given AS (
    SELECT * FROM unnest(?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[]) AS given (id, number, size, latest)
), locked AS (
    SELECT document.id FROM roomkey_documents AS document JOIN given ON document.id = given.id
    ORDER BY document.id FOR NO KEY UPDATE OF document
)
UPDATE roomkey_documents AS document
SET sequence = sequence + number, log_bytes = log_bytes + size, updated = greatest(updated, latest)
FROM locked JOIN given ON locked.id = given.id
WHERE document.id = locked.id
RETURNING document.id, document.sequence

-- name: grow (mysql)
UPDATE roomkey_documents AS document
JOIN ({SELECT ? AS id, ? AS number, ? AS size, ? AS latest| UNION ALL }) AS given ON document.id = given.id
SET document.sequence = document.sequence + given.number, document.log_bytes = document.log_bytes + given.size,
    document.updated = greatest(document.updated, given.latest)

-- name: grow (sqlite)
UPDATE roomkey_documents
SET sequence = sequence + ?2, log_bytes = log_bytes + ?3, updated = max(updated, ?4) WHERE id = ?1

-- name: sequences
SELECT id, sequence FROM roomkey_documents WHERE id IN (*)

-- name: grow_behind (postgresql)
UPDATE roomkey_documents SET sequence = sequence + ?, log_bytes = log_bytes + ?, updated = greatest(updated, ?)
WHERE id = ? AND sequence = ? RETURNING id

-- name: grow_behind (mysql)
UPDATE roomkey_documents SET sequence = sequence + ?, log_bytes = log_bytes + ?, updated = greatest(updated, ?)
WHERE id = ? AND sequence = ?

-- name: grow_behind (sqlite)
UPDATE roomkey_documents SET sequence = sequence + ?, log_bytes = log_bytes + ?, updated = max(updated, ?)
WHERE id = ? AND sequence = ? RETURNING id

-- name: put_updates (postgresql)
INSERT INTO roomkey_document_updates (document, last, part, number, size, record)
SELECT * FROM unnest(?::bigint[], ?::bigint[], ?::integer[], ?::integer[], ?::bigint[], ?::bytea[])

-- name: put_updates (mysql)
INSERT INTO roomkey_document_updates (document, last, part, number, size, record) VALUES {(?, ?, ?, ?, ?, ?)|, }

-- name: put_updates (sqlite)
INSERT INTO roomkey_document_updates (document, last, part, number, size, record) VALUES (?, ?, ?, ?, ?, ?)

-- name: sizes
SELECT last, number, size FROM roomkey_document_updates
WHERE document = ? AND part = 0 AND last > ? ORDER BY last LIMIT ?

-- name: sizes_upto
SELECT last, number, size FROM roomkey_document_updates
WHERE document = ? AND part = 0 AND last > ? AND last - number < ? ORDER BY last

-- name: updates
SELECT last, number, record FROM roomkey_document_updates
WHERE document = ? AND last > ? AND last <= ? ORDER BY last, part

-- name: pieces
SELECT piece, record FROM roomkey_document_pieces WHERE document = ? AND content = ? AND part = ? ORDER BY piece

-- name: put_pieces (postgresql)
INSERT INTO roomkey_document_pieces (document, content, part, piece, record)
SELECT * FROM unnest(?::bigint[], ?::bigint[], ?::smallint[], ?::integer[], ?::bytea[])

-- name: put_pieces (mysql)
INSERT INTO roomkey_document_pieces (document, content, part, piece, record) VALUES {(?, ?, ?, ?, ?)|, }

-- name: put_pieces (sqlite)
INSERT INTO roomkey_document_pieces (document, content, part, piece, record) VALUES (?, ?, ?, ?, ?)

-- name: compact (postgresql)
UPDATE roomkey_documents
SET upto = ?, log_bytes = log_bytes - ?, content = ?, snapshot_bytes = ?, authorship_bytes = ?, fence = greatest(fence, ?)
WHERE id = ? AND upto = ? AND fence <= ? RETURNING id

-- name: compact (mysql)
UPDATE roomkey_documents
SET upto = ?, log_bytes = log_bytes - ?, content = ?, snapshot_bytes = ?, authorship_bytes = ?, fence = greatest(fence, ?)
WHERE id = ? AND upto = ? AND fence <= ?

-- name: compact (sqlite)
UPDATE roomkey_documents
SET upto = ?, log_bytes = log_bytes - ?, content = ?, snapshot_bytes = ?, authorship_bytes = ?, fence = max(fence, ?)
WHERE id = ? AND upto = ? AND fence <= ? RETURNING id

-- name: number_version (postgresql)
UPDATE roomkey_documents SET last_version = last_version + 1, fence = greatest(fence, ?)
WHERE id = ? AND fence <= ? RETURNING id

-- name: number_version (mysql)
UPDATE roomkey_documents SET last_version = last_version + 1, fence = greatest(fence, ?) WHERE id = ? AND fence <= ?

-- name: number_version (sqlite)
UPDATE roomkey_documents SET last_version = last_version + 1, fence = max(fence, ?)
WHERE id = ? AND fence <= ? RETURNING id

-- name: last_version
SELECT last_version FROM roomkey_documents WHERE id = ?

-- name: put_version
INSERT INTO roomkey_document_versions (document, number, content, record) VALUES (?, ?, ?, ?)

-- name: versions
SELECT number, content, record FROM roomkey_document_versions
WHERE document = ? AND number < ? ORDER BY number DESC LIMIT ?

-- name: version
SELECT number, content, record FROM roomkey_document_versions WHERE document = ? AND number IN (*)

-- name: raise_bar (postgresql)
UPDATE roomkey_documents SET forgettings = forgettings + 1, fence = greatest(fence, ?)
WHERE id = ? AND fence <= ? RETURNING id

-- name: raise_bar (mysql)
UPDATE roomkey_documents SET forgettings = forgettings + 1, fence = greatest(fence, ?) WHERE id = ? AND fence <= ?

-- name: raise_bar (sqlite)
UPDATE roomkey_documents SET forgettings = forgettings + 1, fence = max(fence, ?)
WHERE id = ? AND fence <= ? RETURNING id

-- name: forget_versions
DELETE FROM roomkey_document_versions WHERE document = ? AND number IN (*)

-- name: leave (postgresql, sqlite)
INSERT INTO roomkey_document_leftovers (document, content, upto) VALUES (?, ?, ?) ON CONFLICT DO NOTHING

-- name: leave (mysql)
INSERT INTO roomkey_document_leftovers (document, content, upto) VALUES (?, ?, ?)
ON DUPLICATE KEY UPDATE upto = VALUES(upto)

-- name: leftover
SELECT document, content, upto FROM roomkey_document_leftovers ORDER BY document, content, upto LIMIT 1

-- name: swept
DELETE FROM roomkey_document_leftovers WHERE document = ? AND content = ? AND upto = ?

-- A row that is some rows behind the first one bounds what is removed at a time.

-- name: far_update
SELECT last FROM roomkey_document_updates WHERE document = ? AND last <= ? ORDER BY last, part LIMIT 1 OFFSET ?

-- name: put_aside
INSERT INTO roomkey_document_aside (document, last, record) VALUES (?, ?, ?)

-- name: sweep_updates
DELETE FROM roomkey_document_updates WHERE document = ? AND last <= ?

-- name: far_piece
SELECT content FROM roomkey_document_pieces WHERE document = ? ORDER BY content, part, piece LIMIT 1 OFFSET ?

-- name: sweep_pieces
DELETE FROM roomkey_document_pieces WHERE document = ? AND content <= ?

-- name: sweep_content
DELETE FROM roomkey_document_pieces WHERE document = ? AND content = ?

-- name: far_version
SELECT number FROM roomkey_document_versions WHERE document = ? ORDER BY number LIMIT 1 OFFSET ?

-- name: sweep_versions
DELETE FROM roomkey_document_versions WHERE document = ? AND number <= ?
