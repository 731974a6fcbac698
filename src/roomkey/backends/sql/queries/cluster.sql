-- What joins nodes, on PostgreSQL. Time is that of the server: microseconds since 1970.

-- name: channel (postgresql)
SELECT 'roomkey_' || md5(current_schema())

-- name: heads (postgresql)
SELECT id, era, head, gone FROM roomkey_broker_partitions ORDER BY id

-- name: found (postgresql)
INSERT INTO roomkey_broker_partitions (id, era) SELECT id, ? FROM generate_series(0, ?) AS id ORDER BY id
ON CONFLICT DO NOTHING

-- name: publish (postgresql)
SELECT outcomes, eras, numbers, epochs, places FROM roomkey_publish_1(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: news (postgresql)
SELECT p.id, p.era, p.head, p.gone, n.number, n.room, n.epoch, n.place, n.origin, n.message
FROM unnest(CAST(? AS smallint[]), CAST(? AS text[]), CAST(? AS bigint[]), CAST(? AS bigint[])) AS q (id, era, last, upto)
JOIN roomkey_broker_partitions AS p ON p.id = q.id
LEFT JOIN LATERAL (
    SELECT number, room, epoch, place, origin, message FROM roomkey_broker_publications AS b
    WHERE b.partition_id = q.id AND b.number <= q.upto
        AND b.number > CASE WHEN p.era = q.era THEN q.last ELSE 0 END
        AND b.room = ANY (CAST(? AS bytea[]))
    ORDER BY b.number LIMIT ?
) AS n ON true
ORDER BY p.id, n.number

-- name: look (postgresql)
SELECT q.n, p.era, p.head, r.epoch, r.head, r.tail, b.place, b.origin, b.message
FROM unnest(CAST(? AS integer[]), CAST(? AS smallint[]), CAST(? AS bytea[]), CAST(? AS text[]), CAST(? AS bigint[]))
    AS q (n, partition_id, room, epoch, place)
LEFT JOIN roomkey_broker_partitions AS p ON p.id = q.partition_id
LEFT JOIN roomkey_broker_rooms AS r ON r.name = q.room
LEFT JOIN LATERAL (
    SELECT place, origin, message FROM roomkey_broker_publications AS b
    WHERE b.room = q.room AND b.place > q.place AND r.epoch = q.epoch AND r.tail <= q.place
) AS b ON true
ORDER BY q.n, b.place

-- name: found_rooms (postgresql)
INSERT INTO roomkey_broker_rooms (name, epoch, used)
SELECT name, ?, CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)
FROM unnest(CAST(? AS bytea[])) AS name ORDER BY name
ON CONFLICT DO NOTHING

-- name: let_go (postgresql)
UPDATE roomkey_broker_partitions AS p SET gone = greatest(p.gone, q.upto)
FROM unnest(CAST(? AS smallint[]), CAST(? AS text[]), CAST(? AS bigint[])) AS q (id, era, upto)
WHERE p.id = q.id AND p.era = q.era
RETURNING p.id

-- name: sweep_passing (postgresql)
DELETE FROM roomkey_broker_publications WHERE (partition_id, number) IN (
    SELECT partition_id, number FROM roomkey_broker_publications
    WHERE partition_id = ? AND number > ? AND number <= ? AND place IS NULL
    ORDER BY number LIMIT ?
) RETURNING number

-- name: crowded (postgresql)
SELECT name FROM roomkey_broker_rooms
WHERE head - tail > ? OR bytes > ? OR oldest < CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint) - ?
LIMIT ?

-- name: trim (postgresql)
WITH due AS MATERIALIZED (
    SELECT name, head, tail, bytes FROM roomkey_broker_rooms WHERE name IN (*) ORDER BY name FOR UPDATE SKIP LOCKED
), cut AS MATERIALIZED (
    SELECT d.name, max(x.place) AS upto, sum(x.weight) AS weight
    FROM due AS d CROSS JOIN LATERAL (
        SELECT place, at, weight, sum(weight) OVER (ORDER BY place) - weight AS lighter
        FROM (
            SELECT place, at, length(message) + 100 AS weight FROM roomkey_broker_publications AS b
            WHERE b.room = d.name AND b.place > d.tail ORDER BY b.place LIMIT ?
        ) AS first
    ) AS x
    WHERE x.place <= d.head - ? OR d.bytes - x.lighter > ?
        OR x.at < CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint) - ?
    GROUP BY d.name
), gone AS (
    DELETE FROM roomkey_broker_publications AS b USING cut AS c WHERE b.room = c.name AND b.place <= c.upto
)
UPDATE roomkey_broker_rooms AS r
SET tail = c.upto, bytes = r.bytes - c.weight, oldest = CASE WHEN r.head > c.upto THEN coalesce((
    SELECT b.at FROM roomkey_broker_publications AS b WHERE b.room = r.name AND b.place > c.upto ORDER BY b.place LIMIT 1
), r.used) END
FROM cut AS c WHERE r.name = c.name
RETURNING r.name

-- name: forget_keys (postgresql)
DELETE FROM roomkey_broker_keys WHERE key IN (
    SELECT key FROM roomkey_broker_keys
    WHERE ends <= CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint) LIMIT ?
) RETURNING key

-- name: forget_rooms (postgresql)
DELETE FROM roomkey_broker_rooms
WHERE head = tail AND used < CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint) - ?

-- name: forget_senders (postgresql)
DELETE FROM roomkey_broker_senders WHERE at < CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint) - ?

-- name: show (postgresql)
WITH taken AS (
    INSERT INTO roomkey_broker_senders AS s (name, turn, at)
    VALUES (?, ?, CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint))
    ON CONFLICT (name) DO UPDATE SET turn = excluded.turn, at = excluded.at WHERE s.turn < excluded.turn
    RETURNING name
), gone AS (
    DELETE FROM roomkey_presence AS p USING unnest(CAST(? AS bytea[]), CAST(? AS bytea[])) AS g (room, member), taken
    WHERE p.room = g.room AND p.node = ? AND p.member = g.member
)
INSERT INTO roomkey_presence (room, node, member, shown)
SELECT s.room, ?, s.member, s.shown
FROM unnest(CAST(? AS bytea[]), CAST(? AS bytea[]), CAST(? AS bytea[])) AS s (room, member, shown), taken
ON CONFLICT (room, node, member) DO UPDATE SET shown = excluded.shown

-- name: here (postgresql)
SELECT p.node, p.member, p.shown
FROM roomkey_presence AS p JOIN roomkey_cluster_nodes AS n ON n.id = p.node
WHERE p.room = ? AND n.ends > CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)

-- name: forget_node (postgresql)
DELETE FROM roomkey_presence WHERE (room, node, member) IN (
    SELECT room, node, member FROM roomkey_presence WHERE node = ? LIMIT ?
) RETURNING room

-- name: forget_strangers (postgresql)
DELETE FROM roomkey_presence WHERE (room, node, member) IN (
    SELECT room, node, member FROM roomkey_presence AS p
    WHERE NOT EXISTS (SELECT 1 FROM roomkey_cluster_nodes AS n WHERE n.id = p.node)
    LIMIT ?
) RETURNING room

-- name: renew (postgresql)
INSERT INTO roomkey_cluster_nodes (id, ends, record)
VALUES (?, CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint) + ?, ?)
ON CONFLICT (id) DO UPDATE SET ends = excluded.ends, record = excluded.record

-- name: leave (postgresql)
DELETE FROM roomkey_cluster_nodes WHERE id = ?

-- name: nodes (postgresql)
SELECT record FROM roomkey_cluster_nodes
WHERE ends > CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint) ORDER BY id

-- name: bury (postgresql)
DELETE FROM roomkey_cluster_nodes WHERE ends < CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint) - ?
