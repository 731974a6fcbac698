-- Documents that are handed over or taken in. The columns of `locked` are those of `DocumentRow`.

-- name: graves
SELECT graves.id, names.name
FROM roomkey_document_graves AS graves LEFT JOIN roomkey_document_grave_names AS names ON names.id = graves.id
WHERE graves.id > ? ORDER BY graves.id LIMIT ?;

-- name: locked (postgresql, mysql)
SELECT id, name, lineage, sequence, upto, updated, log_bytes, content, snapshot_bytes, authorship_bytes, last_version,
    fence, record
FROM roomkey_documents WHERE id = ? FOR UPDATE;

-- name: locked (sqlite)
SELECT id, name, lineage, sequence, upto, updated, log_bytes, content, snapshot_bytes, authorship_bytes, last_version,
    fence, record
FROM roomkey_documents WHERE id = ?;

-- name: put_document
UPDATE roomkey_documents
SET sequence = ?, upto = ?, updated = ?, log_bytes = ?, content = ?, snapshot_bytes = ?, authorship_bytes = ?,
    last_version = ?, fence = 0, record = ?
WHERE id = ?;

-- name: reach_version
UPDATE roomkey_documents SET last_version = ? WHERE id = ? AND last_version < ?;
