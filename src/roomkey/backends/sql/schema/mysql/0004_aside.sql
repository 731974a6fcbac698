-- Rows that could not be read and were put aside: from which table, where they lay, and all columns as msgpack.
-- Nothing reads them.

CREATE TABLE IF NOT EXISTS roomkey_aside (
    number bigint NOT NULL AUTO_INCREMENT PRIMARY KEY,
    origin varchar(64) NOT NULL,
    place varbinary(1100) NOT NULL,
    record longblob NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
