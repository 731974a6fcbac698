-- Damaged rows of documents. The columns of `documents` and `locked` are those of `DocumentRow`.

-- name: documents
SELECT id, name, lineage, sequence, upto, updated, log_bytes, content, snapshot_bytes, authorship_bytes, last_version,
    fence, record
FROM roomkey_documents WHERE id > ? ORDER BY id LIMIT ?;

-- name: locked (postgresql, mysql)
SELECT id, name, lineage, sequence, upto, updated, log_bytes, content, snapshot_bytes, authorship_bytes, last_version,
    fence, record
FROM roomkey_documents WHERE id = ? FOR UPDATE;

-- name: locked (sqlite)
SELECT id, name, lineage, sequence, upto, updated, log_bytes, content, snapshot_bytes, authorship_bytes, last_version,
    fence, record
FROM roomkey_documents WHERE id = ?;

-- name: updates
SELECT last, part, number, size, record FROM roomkey_document_updates
WHERE document = ? AND last > ? ORDER BY last, part LIMIT ?;

-- name: batch
SELECT last, part, number, size, record FROM roomkey_document_updates WHERE document = ? AND last = ? ORDER BY part;

-- name: last_before
SELECT max(last) FROM roomkey_document_updates WHERE document = ? AND last < ?;

-- name: remove_batch
DELETE FROM roomkey_document_updates WHERE document = ? AND last = ?;

-- name: put_log_bytes
UPDATE roomkey_documents SET log_bytes = ? WHERE id = ?;

-- name: versions
SELECT number, content, record FROM roomkey_document_versions WHERE document = ? AND number > ? ORDER BY number LIMIT ?;

-- name: remove_version
DELETE FROM roomkey_document_versions WHERE document = ? AND number = ?;

-- name: pieces
SELECT content, part, piece, record FROM roomkey_document_pieces
WHERE document = ? AND content = ? AND (part > ? OR (part = ? AND piece > ?)) ORDER BY part, piece LIMIT ?;

-- name: piece
SELECT content, part, piece, record FROM roomkey_document_pieces
WHERE document = ? AND content = ? AND part = ? AND piece = ?;

-- name: remove_piece
DELETE FROM roomkey_document_pieces WHERE document = ? AND content = ? AND part = ? AND piece = ?;

-- name: put_aside
INSERT INTO roomkey_aside (origin, place, record) VALUES (?, ?, ?);
