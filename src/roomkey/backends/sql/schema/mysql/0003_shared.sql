-- What nodes share: leases, values of one use, how far consumers of the log are, and who is there.
-- Times are microseconds since 1970, by the clock of the server. Every statement may run again.

-- A lease that is over stays, because its next token has to be higher.
CREATE TABLE IF NOT EXISTS roomkey_leases (
    name varbinary(500) NOT NULL PRIMARY KEY,
    holder varbinary(500) NOT NULL,
    token bigint NOT NULL,
    ends bigint NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Values are sealed; keys and owners are hashes. The lowest number is the oldest value.
CREATE TABLE IF NOT EXISTS roomkey_one_time (
    number bigint NOT NULL AUTO_INCREMENT PRIMARY KEY,
    purpose varbinary(16) NOT NULL,
    id binary(32) NOT NULL,
    owner binary(32),
    pinned smallint NOT NULL,
    size bigint NOT NULL,
    ends bigint NOT NULL,
    value mediumblob NOT NULL,
    UNIQUE (purpose, id),
    INDEX roomkey_one_time_by_owner (purpose, owner, number),
    INDEX roomkey_one_time_by_end (purpose, ends, size),
    INDEX roomkey_one_time_by_age (purpose, number)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS roomkey_checkpoints (
    consumer varbinary(500) NOT NULL,
    partition_id smallint NOT NULL,
    sequence bigint NOT NULL,
    PRIMARY KEY (consumer, partition_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS roomkey_nodes (
    name varbinary(500) NOT NULL PRIMARY KEY,
    ends bigint NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
