-- The names of deleted documents, which other storages need to know where a grave belongs; those of before have none.

CREATE TABLE roomkey_document_grave_names (
    id bytea PRIMARY KEY,
    name bytea NOT NULL
);
