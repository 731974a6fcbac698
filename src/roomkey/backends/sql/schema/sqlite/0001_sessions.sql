-- Sessions, their epochs, partitions and log. Ids and users are bytes: they compare as they are.
-- Times are microseconds since 1970.

CREATE TABLE roomkey_sessions (
    id blob NOT NULL PRIMARY KEY,
    user_id blob NOT NULL,
    state integer NOT NULL,
    version integer NOT NULL,
    epoch integer NOT NULL,
    created integer NOT NULL,
    last_seen integer NOT NULL,
    deadline integer,
    ended integer,
    record blob NOT NULL
);

CREATE INDEX roomkey_sessions_by_user ON roomkey_sessions (user_id, created, id);

CREATE INDEX roomkey_sessions_by_deadline ON roomkey_sessions (deadline, id) WHERE deadline IS NOT NULL;

CREATE INDEX roomkey_sessions_by_end ON roomkey_sessions (ended, id) WHERE ended IS NOT NULL;

CREATE TABLE roomkey_epochs (
    user_id blob NOT NULL PRIMARY KEY,
    epoch integer NOT NULL
) WITHOUT ROWID;

CREATE TABLE roomkey_partitions (
    id integer NOT NULL PRIMARY KEY,
    head integer NOT NULL DEFAULT 0,
    tail integer NOT NULL DEFAULT 0,
    fence integer NOT NULL DEFAULT 0,
    pending integer NOT NULL DEFAULT 0,
    active integer NOT NULL DEFAULT 0,
    suspended integer NOT NULL DEFAULT 0,
    expired integer NOT NULL DEFAULT 0,
    invalidated integer NOT NULL DEFAULT 0,
    day integer NOT NULL DEFAULT 0,
    created_today integer NOT NULL DEFAULT 0,
    ended integer NOT NULL DEFAULT 0,
    ended_micros integer NOT NULL DEFAULT 0
);

INSERT INTO roomkey_partitions (id)
WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < 255)
SELECT n FROM numbers;

CREATE TABLE roomkey_events (
    partition_id integer NOT NULL,
    sequence integer NOT NULL,
    at integer NOT NULL,
    record blob NOT NULL,
    PRIMARY KEY (partition_id, sequence)
) WITHOUT ROWID;
