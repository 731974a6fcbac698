-- What nodes share: leases, values of one use, how far consumers of the log are, and who is there.
-- Times are microseconds since 1970, by the clock of the server. Names are bytes: they compare as they are.

-- A lease that is over stays, because its next token has to be higher.
CREATE TABLE roomkey_leases (
    name blob NOT NULL PRIMARY KEY,
    holder blob NOT NULL,
    token integer NOT NULL,
    ends integer NOT NULL
);

-- Values are sealed; keys and owners are hashes. The lowest number is the oldest value.
CREATE TABLE roomkey_one_time (
    number integer PRIMARY KEY AUTOINCREMENT,
    purpose blob NOT NULL,
    id blob NOT NULL,
    owner blob,
    pinned integer NOT NULL,
    size integer NOT NULL,
    ends integer NOT NULL,
    value blob NOT NULL,
    UNIQUE (purpose, id)
);

CREATE INDEX roomkey_one_time_by_owner ON roomkey_one_time (purpose, owner, number);

CREATE INDEX roomkey_one_time_by_end ON roomkey_one_time (purpose, ends, size);

CREATE INDEX roomkey_one_time_by_age ON roomkey_one_time (purpose, number);

CREATE TABLE roomkey_checkpoints (
    consumer blob NOT NULL,
    partition_id integer NOT NULL,
    sequence integer NOT NULL,
    PRIMARY KEY (consumer, partition_id)
);

CREATE TABLE roomkey_nodes (
    name blob NOT NULL PRIMARY KEY,
    ends integer NOT NULL
);
