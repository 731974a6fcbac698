-- Documents, their logs, contents and versions. Names and lineages are bytes: they compare as they are.
-- Times are microseconds since 1970.

-- `backlog` is the size class of the log. It changes seldom.
CREATE TABLE roomkey_documents (
    id integer PRIMARY KEY AUTOINCREMENT,
    name blob NOT NULL UNIQUE,
    lineage blob NOT NULL,
    sequence integer NOT NULL DEFAULT 0,
    upto integer NOT NULL DEFAULT 0,
    updated integer NOT NULL,
    log_bytes integer NOT NULL DEFAULT 0,
    content integer,
    snapshot_bytes integer NOT NULL DEFAULT 0,
    authorship_bytes integer NOT NULL DEFAULT 0,
    last_version integer NOT NULL DEFAULT 0,
    forgettings integer NOT NULL DEFAULT 0,
    fence integer NOT NULL DEFAULT 0,
    backlog integer NOT NULL GENERATED ALWAYS AS (
        CASE
            WHEN sequence - upto >= 1024 OR log_bytes >= 524288 THEN 2
            WHEN sequence - upto >= 64 OR log_bytes >= 32768 THEN 1
            ELSE 0
        END
    ) STORED,
    record blob NOT NULL
);

CREATE INDEX roomkey_documents_by_backlog ON roomkey_documents (backlog, id) WHERE backlog > 0;

-- Updates that were appended together, by the number of the last one; a large record is cut into parts.
CREATE TABLE roomkey_document_updates (
    document integer NOT NULL,
    last integer NOT NULL,
    part integer NOT NULL,
    number integer NOT NULL,
    size integer NOT NULL,
    record blob NOT NULL,
    PRIMARY KEY (document, last, part)
);

-- Contents in pieces. Part 0 is a snapshot or the content of a version, part 1 the authorship of a snapshot.
CREATE TABLE roomkey_document_pieces (
    document integer NOT NULL,
    content integer NOT NULL,
    part integer NOT NULL,
    piece integer NOT NULL,
    record blob NOT NULL,
    PRIMARY KEY (document, content, part, piece)
);

CREATE TABLE roomkey_document_versions (
    document integer NOT NULL,
    number integer NOT NULL,
    content integer NOT NULL,
    record blob NOT NULL,
    PRIMARY KEY (document, number)
);

-- The hashes of the names and lineages of deleted documents.
CREATE TABLE roomkey_document_graves (
    id blob NOT NULL PRIMARY KEY
);

-- What is to be swept up: updates up to a number, and one content.
CREATE TABLE roomkey_document_leftovers (
    document integer NOT NULL,
    content integer NOT NULL,
    upto integer NOT NULL,
    PRIMARY KEY (document, content, upto)
);

-- Records that could not be read when they were to be removed. Nothing reads them.
CREATE TABLE roomkey_document_aside (
    number integer PRIMARY KEY AUTOINCREMENT,
    document integer NOT NULL,
    last integer NOT NULL,
    record blob NOT NULL
);

-- How often each writer has written: it tells others that something is new, and a writer that its commit was made.
CREATE TABLE roomkey_document_writers (
    writer integer NOT NULL,
    slot integer NOT NULL,
    writes integer NOT NULL,
    day integer NOT NULL,
    PRIMARY KEY (writer, slot)
);

INSERT INTO roomkey_document_writers (writer, slot, writes, day) VALUES (0, 0, 0, 0);
