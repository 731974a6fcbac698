-- Rows that could not be read and were put aside: from which table, where they lay, and all columns as msgpack.
-- Nothing reads them.

CREATE TABLE roomkey_aside (
    number integer PRIMARY KEY AUTOINCREMENT,
    origin text NOT NULL,
    place blob NOT NULL,
    record blob NOT NULL
);
