-- Records written anew under another data key, if nobody else has written them since they were read.

-- name: put_sessions (postgresql)
UPDATE roomkey_sessions s SET record = v.record
FROM unnest(?::bytea[], ?::bytea[], ?::bytea[]) AS v (record, id, former)
WHERE s.id = v.id AND s.record = v.former;

-- name: put_sessions (mysql)
UPDATE roomkey_sessions s JOIN ({SELECT ? AS record, ? AS id, ? AS former| UNION ALL }) AS v ON s.id = v.id
SET s.record = v.record WHERE s.record = v.former;

-- name: put_sessions (sqlite)
UPDATE roomkey_sessions SET record = ? WHERE id = ? AND record = ?;

-- name: put_events (postgresql)
UPDATE roomkey_events e SET record = v.record
FROM unnest(?::bytea[], ?::smallint[], ?::bigint[], ?::bytea[]) AS v (record, partition_id, sequence, former)
WHERE e.partition_id = v.partition_id AND e.sequence = v.sequence AND e.record = v.former;

-- name: put_events (mysql)
UPDATE roomkey_events e
JOIN ({SELECT ? AS record, ? AS partition_id, ? AS sequence, ? AS former| UNION ALL }) AS v
    ON e.partition_id = v.partition_id AND e.sequence = v.sequence
SET e.record = v.record WHERE e.record = v.former;

-- name: put_events (sqlite)
UPDATE roomkey_events SET record = ? WHERE partition_id = ? AND sequence = ? AND record = ?;

-- name: put_document
UPDATE roomkey_documents SET record = ? WHERE id = ? AND record = ?;

-- name: put_update
UPDATE roomkey_document_updates SET record = ? WHERE document = ? AND last = ? AND part = ? AND record = ?;

-- name: put_piece
UPDATE roomkey_document_pieces SET record = ?
WHERE document = ? AND content = ? AND part = ? AND piece = ? AND record = ?;

-- name: put_version
UPDATE roomkey_document_versions SET record = ? WHERE document = ? AND number = ? AND record = ?;
