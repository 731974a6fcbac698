-- The names of deleted documents, which other storages need to know where a grave belongs; those of before have none.

CREATE TABLE IF NOT EXISTS roomkey_document_grave_names (
    id binary(32) NOT NULL PRIMARY KEY,
    name varbinary(1024) NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
