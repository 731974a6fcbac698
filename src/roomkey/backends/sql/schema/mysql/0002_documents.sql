-- Documents, their logs, contents and versions. Names and lineages are bytes: they compare as they are.
-- Times are microseconds since 1970. Every statement may run again: here a file is not one transaction.

-- `backlog` is the size class of the log. It changes seldom.
CREATE TABLE IF NOT EXISTS roomkey_documents (
    id bigint NOT NULL AUTO_INCREMENT PRIMARY KEY,
    name varbinary(1024) NOT NULL UNIQUE,
    lineage varbinary(1024) NOT NULL,
    sequence bigint NOT NULL DEFAULT 0,
    upto bigint NOT NULL DEFAULT 0,
    updated bigint NOT NULL,
    log_bytes bigint NOT NULL DEFAULT 0,
    content bigint,
    snapshot_bytes bigint NOT NULL DEFAULT 0,
    authorship_bytes bigint NOT NULL DEFAULT 0,
    last_version bigint NOT NULL DEFAULT 0,
    forgettings bigint NOT NULL DEFAULT 0,
    fence bigint NOT NULL DEFAULT 0,
    backlog smallint GENERATED ALWAYS AS (
        CASE
            WHEN sequence - upto >= 1024 OR log_bytes >= 524288 THEN 2
            WHEN sequence - upto >= 64 OR log_bytes >= 32768 THEN 1
            ELSE 0
        END
    ) STORED,
    record mediumblob NOT NULL,
    INDEX roomkey_documents_by_backlog (backlog, id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Updates that were appended together, by the number of the last one; a large record is cut into parts.
CREATE TABLE IF NOT EXISTS roomkey_document_updates (
    document bigint NOT NULL,
    last bigint NOT NULL,
    part integer NOT NULL,
    number integer NOT NULL,
    size bigint NOT NULL,
    record mediumblob NOT NULL,
    PRIMARY KEY (document, last, part)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Contents in pieces. Part 0 is a snapshot or the content of a version, part 1 the authorship of a snapshot.
CREATE TABLE IF NOT EXISTS roomkey_document_pieces (
    document bigint NOT NULL,
    content bigint NOT NULL,
    part smallint NOT NULL,
    piece integer NOT NULL,
    record mediumblob NOT NULL,
    PRIMARY KEY (document, content, part, piece)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS roomkey_document_versions (
    document bigint NOT NULL,
    number bigint NOT NULL,
    content bigint NOT NULL,
    record mediumblob NOT NULL,
    PRIMARY KEY (document, number)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The hashes of the names and lineages of deleted documents.
CREATE TABLE IF NOT EXISTS roomkey_document_graves (
    id binary(32) NOT NULL PRIMARY KEY
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What is to be swept up: updates up to a number, and one content.
CREATE TABLE IF NOT EXISTS roomkey_document_leftovers (
    document bigint NOT NULL,
    content bigint NOT NULL,
    upto bigint NOT NULL,
    PRIMARY KEY (document, content, upto)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Records that could not be read when they were to be removed. Nothing reads them.
CREATE TABLE IF NOT EXISTS roomkey_document_aside (
    number bigint NOT NULL AUTO_INCREMENT PRIMARY KEY,
    document bigint NOT NULL,
    last bigint NOT NULL,
    record longblob NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- How often each writer has written: it tells others that something is new, and a writer that its commit was made.
CREATE TABLE IF NOT EXISTS roomkey_document_writers (
    writer bigint NOT NULL,
    slot integer NOT NULL,
    writes bigint NOT NULL,
    day integer NOT NULL,
    PRIMARY KEY (writer, slot)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

INSERT IGNORE INTO roomkey_document_writers (writer, slot, writes, day) VALUES (0, 0, 0, 0);
