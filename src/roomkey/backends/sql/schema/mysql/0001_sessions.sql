-- Sessions, their epochs, partitions and log. Ids and users are bytes: collations would fold or pad them.
-- Times are microseconds since 1970. Every statement may run again: here a file is not one transaction.

CREATE TABLE IF NOT EXISTS roomkey_sessions (
    id varbinary(64) NOT NULL PRIMARY KEY,
    user_id varbinary(256) NOT NULL,
    state smallint NOT NULL,
    version integer NOT NULL,
    epoch integer NOT NULL,
    created bigint NOT NULL,
    last_seen bigint NOT NULL,
    deadline bigint,
    ended bigint,
    record mediumblob NOT NULL,
    INDEX roomkey_sessions_by_user (user_id, created, id),
    INDEX roomkey_sessions_by_deadline (deadline, id),
    INDEX roomkey_sessions_by_end (ended, id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS roomkey_epochs (
    user_id varbinary(256) NOT NULL PRIMARY KEY,
    epoch integer NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS roomkey_partitions (
    id smallint NOT NULL PRIMARY KEY,
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
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

INSERT INTO roomkey_partitions (id)
WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < 255)
SELECT n FROM numbers WHERE n NOT IN (SELECT id FROM roomkey_partitions);

CREATE TABLE IF NOT EXISTS roomkey_events (
    partition_id smallint NOT NULL,
    sequence bigint NOT NULL,
    at bigint NOT NULL,
    record mediumblob NOT NULL,
    PRIMARY KEY (partition_id, sequence)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
