-- Sessions that are handed over or taken in. `statements.py` says how this file is read.

-- name: sessions
SELECT id, version, epoch, last_seen, deadline, ended, record, 0
FROM roomkey_sessions WHERE id > ? AND id < ? ORDER BY id LIMIT ?;

-- name: epochs
SELECT user_id, epoch FROM roomkey_epochs WHERE user_id > ? ORDER BY user_id LIMIT ?;

-- name: epochs_of
SELECT user_id, epoch FROM roomkey_epochs WHERE user_id IN (*);

-- name: consumers
SELECT DISTINCT consumer FROM roomkey_checkpoints ORDER BY consumer;
