-- Sessions, their epochs, partitions and log. Ids and users are bytes: they compare as they are.
-- Times are microseconds since 1970.

CREATE TABLE roomkey_sessions (
    id bytea PRIMARY KEY,
    user_id bytea NOT NULL,
    state smallint NOT NULL,
    version integer NOT NULL,
    epoch integer NOT NULL,
    created bigint NOT NULL,
    last_seen bigint NOT NULL,
    deadline bigint,
    ended bigint,
    record bytea NOT NULL
) WITH (fillfactor = 85);

CREATE INDEX roomkey_sessions_by_user ON roomkey_sessions (user_id, created, id);

CREATE INDEX roomkey_sessions_by_deadline ON roomkey_sessions (deadline, id) WHERE deadline IS NOT NULL;

CREATE INDEX roomkey_sessions_by_end ON roomkey_sessions (ended, id) WHERE ended IS NOT NULL;

CREATE TABLE roomkey_epochs (
    user_id bytea PRIMARY KEY,
    epoch integer NOT NULL
);

CREATE TABLE roomkey_partitions (
    id smallint PRIMARY KEY,
    head bigint NOT NULL DEFAULT 0,
    tail bigint NOT NULL DEFAULT 0,
    fence bigint NOT NULL DEFAULT 0,
    pending bigint NOT NULL DEFAULT 0,
    active bigint NOT NULL DEFAULT 0,
    suspended bigint NOT NULL DEFAULT 0,
    expired bigint NOT NULL DEFAULT 0,
    invalidated bigint NOT NULL DEFAULT 0,
    day integer NOT NULL DEFAULT 0,
    created_today bigint NOT NULL DEFAULT 0,
    ended bigint NOT NULL DEFAULT 0,
    ended_micros bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 25);

INSERT INTO roomkey_partitions (id) SELECT generate_series(0, 255);

CREATE TABLE roomkey_events (
    partition_id smallint NOT NULL,
    sequence bigint NOT NULL,
    at bigint NOT NULL,
    record bytea NOT NULL,
    PRIMARY KEY (partition_id, sequence)
);
