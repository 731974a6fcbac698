-- What joins nodes: what they publish, whom they show, and which of them live. Names are bytes: they compare as they
-- are. Times are microseconds since 1970, by the clock of the server.
--
-- What is published is UNLOGGED: it survives a restart in good order, and is gone after a crash of the server or on a
-- standby that took over. Then eras and epochs begin anew, so nobody takes what comes for a continuation. With a log,
-- every publication would wait for the disk, and NOTIFY lets the transactions of all nodes commit one after the other.

-- The order of what is published: rooms are spread over partitions, each with numbers without holes. What is not kept
-- may be missing up to `gone`. Each row lies in a page of its own, so that it is changed where it lies.
CREATE UNLOGGED TABLE roomkey_broker_partitions (
    id smallint PRIMARY KEY,
    era text NOT NULL,
    head bigint NOT NULL DEFAULT 0,
    gone bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 25);

-- Rooms in which something was kept: the offset of the last publication, and up to which they are gone.
CREATE UNLOGGED TABLE roomkey_broker_rooms (
    name bytea PRIMARY KEY,
    epoch text NOT NULL,
    head bigint NOT NULL DEFAULT 0,
    tail bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    oldest bigint,
    used bigint NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

-- `place` is the offset in the room, of what is kept.
CREATE UNLOGGED TABLE roomkey_broker_publications (
    partition_id smallint NOT NULL,
    number bigint NOT NULL,
    room bytea NOT NULL,
    epoch text,
    place bigint,
    at bigint NOT NULL,
    origin bytea NOT NULL,
    message bytea NOT NULL,
    PRIMARY KEY (partition_id, number)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX roomkey_broker_publications_by_place ON roomkey_broker_publications (room, place)
WHERE place IS NOT NULL;

-- Hashes of what makes a message the same one again, and where it stands.
CREATE UNLOGGED TABLE roomkey_broker_keys (
    key bytea PRIMARY KEY,
    content bigint NOT NULL,
    epoch text,
    place bigint,
    ends bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX roomkey_broker_keys_by_end ON roomkey_broker_keys (ends);

-- How often each writer has written, and what it was told the last time: whoever asks again is told the same.
CREATE UNLOGGED TABLE roomkey_broker_senders (
    name bytea PRIMARY KEY,
    turn bigint NOT NULL,
    at bigint NOT NULL,
    outcomes smallint[],
    eras text[],
    numbers bigint[],
    epochs text[],
    places bigint[]
) WITH (fillfactor = 50);

-- Publishes, in one statement: no lock is held while a node is slow or gone. Of each publication it says whether it was
-- made (0), was made before (1), or has the key of another one (2); its number in its partition; epoch and offset.
-- Partitions come in ascending order, once each; `hints` are what the others are told of each, on `channel` if any.
CREATE FUNCTION roomkey_publish_1(
    sender bytea,
    in_turn bigint,
    fresh text,
    key_lifetime bigint,
    channel text,
    tag text,
    partition_ids smallint[],
    hints text[],
    to_partitions smallint[],
    to_rooms bytea[],
    are_kept boolean[],
    with_keys bytea[],
    with_contents bigint[],
    from_origins bytea[],
    with_messages bytea[]
) RETURNS TABLE (outcomes smallint[], eras text[], numbers bigint[], epochs text[], places bigint[])
LANGUAGE plpgsql SET plan_cache_mode = 'force_generic_plan' AS $$
#variable_conflict use_column
DECLARE
    present bigint;
    locked integer;
    told text;
    made record;
BEGIN
    -- A try that comes late, after its answer was given up, finds that it was made, or that the next one was.
    INSERT INTO roomkey_broker_senders AS s (name, turn, at)
    VALUES (sender, in_turn, CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint))
    ON CONFLICT (name) DO UPDATE SET turn = excluded.turn, at = excluded.at WHERE s.turn < excluded.turn;
    IF NOT FOUND THEN
        RETURN QUERY SELECT s.outcomes, s.eras, s.numbers, s.epochs, s.places
        FROM roomkey_broker_senders AS s WHERE s.name = sender AND s.turn = in_turn;
        RETURN;
    END IF;
    -- Numbers are handed out under these locks, and seen when they are released: whoever has seen a number has seen
    -- all before it.
    LOOP
        PERFORM 1 FROM roomkey_broker_partitions WHERE id = ANY (partition_ids) ORDER BY id FOR UPDATE;
        GET DIAGNOSTICS locked = ROW_COUNT;
        EXIT WHEN locked = cardinality(partition_ids);
        INSERT INTO roomkey_broker_partitions (id, era) SELECT id, fresh FROM unnest(partition_ids) AS id ORDER BY id
        ON CONFLICT DO NOTHING;
    END LOOP;
    present := CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint);
    WITH item AS MATERIALIZED (
        SELECT i.*, k.epoch AS known_epoch, k.place AS known_place,
            CASE WHEN k.key IS NULL THEN 0 WHEN k.content = i.content THEN 1 ELSE 2 END AS outcome
        FROM unnest(to_partitions, to_rooms, are_kept, with_keys, with_contents, from_origins, with_messages)
            WITH ORDINALITY AS i (partition_id, room, is_kept, key, content, origin, message, n)
        LEFT JOIN roomkey_broker_keys AS k ON k.key = i.key AND k.ends > present
    ), head AS (
        UPDATE roomkey_broker_partitions AS p SET head = p.head + c.added
        FROM (SELECT partition_id, count(*) AS added FROM item WHERE outcome = 0 GROUP BY partition_id) AS c
        WHERE p.id = c.partition_id
        RETURNING p.id, p.era, p.head - c.added AS before, p.head
    ), room AS (
        INSERT INTO roomkey_broker_rooms AS r (name, epoch, head, bytes, oldest, used)
        SELECT room, fresh, count(*), sum(length(message) + 100), present, present
        FROM item WHERE outcome = 0 AND is_kept GROUP BY room ORDER BY room
        ON CONFLICT (name) DO UPDATE SET head = r.head + excluded.head, bytes = r.bytes + excluded.bytes,
            oldest = coalesce(r.oldest, excluded.oldest), used = excluded.used
        RETURNING r.name, r.epoch, r.head
    ), placed AS MATERIALIZED (
        SELECT i.*, h.era, r.epoch,
            CASE WHEN outcome = 0 THEN
                h.before + row_number() OVER (PARTITION BY i.partition_id, outcome = 0 ORDER BY n)
            END AS number,
            r.head - count(*) OVER (PARTITION BY i.room, is_kept, outcome = 0)
                + row_number() OVER (PARTITION BY i.room, is_kept, outcome = 0 ORDER BY n) AS place
        FROM item AS i
        LEFT JOIN head AS h ON h.id = i.partition_id
        LEFT JOIN room AS r ON r.name = i.room AND i.is_kept AND i.outcome = 0
    ), written AS (
        INSERT INTO roomkey_broker_publications (partition_id, number, room, epoch, place, at, origin, message)
        SELECT partition_id, number, room, epoch, place, present, origin, message FROM placed WHERE outcome = 0
    ), remembered AS (
        INSERT INTO roomkey_broker_keys AS k (key, content, epoch, place, ends)
        SELECT key, content, epoch, place, present + key_lifetime
        FROM placed WHERE outcome = 0 AND key IS NOT NULL ORDER BY key
        ON CONFLICT (key) DO UPDATE SET content = excluded.content, epoch = excluded.epoch, place = excluded.place,
            ends = excluded.ends
        WHERE k.ends <= present
    )
    SELECT array_agg(CAST(outcome AS smallint) ORDER BY n) AS outcomes,
        array_agg(era ORDER BY n) AS eras, array_agg(number ORDER BY n) AS numbers,
        array_agg(CASE outcome WHEN 1 THEN known_epoch ELSE epoch END ORDER BY n) AS epochs,
        array_agg(CASE outcome WHEN 1 THEN known_place ELSE place END ORDER BY n) AS places,
        (
            SELECT string_agg(concat(';', h.id, ':', h.before + 1, ':', h.head, ':', t.hint), '' ORDER BY h.id)
            FROM head AS h JOIN unnest(partition_ids, hints) AS t (id, hint) ON t.id = h.id
        ) AS told
    INTO made FROM placed;
    UPDATE roomkey_broker_senders AS s
    SET outcomes = made.outcomes, eras = made.eras, numbers = made.numbers, epochs = made.epochs, places = made.places
    WHERE s.name = sender;
    IF channel IS NOT NULL AND made.told IS NOT NULL THEN
        PERFORM pg_notify(channel, tag || made.told);
    END IF;
    RETURN QUERY SELECT made.outcomes, made.eras, made.numbers, made.epochs, made.places;
END
$$;

-- Whom each node shows in which room.
CREATE TABLE roomkey_presence (
    room bytea NOT NULL,
    node bytea NOT NULL,
    member bytea NOT NULL,
    shown bytea NOT NULL,
    PRIMARY KEY (room, node, member)
);

CREATE INDEX roomkey_presence_by_node ON roomkey_presence (node);

-- Which nodes live, and what they say of themselves: a document in JSON.
CREATE TABLE roomkey_cluster_nodes (
    id bytea PRIMARY KEY,
    ends bigint NOT NULL,
    record bytea NOT NULL
) WITH (fillfactor = 50);
