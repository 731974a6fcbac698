"""What sessions take in each backend: records and every index, and the event log by itself. In bytes."""

import sqlite3
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from importlib import import_module
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from benchmarks.databases import DATABASE
from benchmarks.node import output_of
from benchmarks.store_sides import LMDB, MARIADB, POSTGRESQL, REDIS, SQLITE, Side

Sizes = Mapping[str, int]
"""What each table takes, or each kind of key."""

SCANNED: Final = 1_000
"""So many keys of Redis are looked at in one pipeline."""


async def sizes(side: Side) -> tuple[int, int] | None:
    """What all sessions take together, and what their events take; ``None`` where that cannot be asked."""
    measure = _MEASURES.get(side.name)
    if measure is None:
        return None
    found = await measure(side)
    log = sum(size for name, size in found.items() if "event" in name)
    return sum(found.values()) - log, log


async def _redis(side: Side) -> Sizes:
    """``MEMORY USAGE`` of every key, all of its elements counted; streams are the event log."""
    found: dict[str, int] = {}
    client = _driver("redis.asyncio").Redis.from_url(side.url)
    async with client:
        cursor = None
        while cursor != 0:
            cursor, keys = await client.scan(cursor or 0, count=SCANNED)
            async with client.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.type(key)
                    pipeline.memory_usage(key, samples=0)
                answers = await pipeline.execute()
            for kind, size in zip(answers[::2], answers[1::2], strict=True):
                name = "events" if kind == b"stream" else kind.decode()
                found[name] = found.get(name, 0) + (size or 0)
    return found


async def _postgresql(side: Side) -> Sizes:
    """Tables with their indexes and what is stored beside them."""
    connection = await _driver("asyncpg").connect(side.url)
    try:
        rows = await connection.fetch(
            "SELECT relname, pg_total_relation_size(oid) AS size FROM pg_class "
            "WHERE relkind = 'r' AND relnamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema')"
        )
    finally:
        await connection.close()
    return {row["relname"]: row["size"] for row in rows}


async def _mariadb(side: Side) -> Sizes:
    """Tables with their indexes, as InnoDB has counted their pages."""
    place = urlsplit(side.url)
    connection = await _driver("asyncmy").connect(
        host=place.hostname, port=place.port, user=place.username, db=DATABASE
    )
    try:
        async with connection.cursor() as cursor:
            await cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()")
            names = [row[0] for row in await cursor.fetchall()]
            for name in names:
                await cursor.execute(f"ANALYZE TABLE `{name}`")
                await cursor.fetchall()
            await cursor.execute(
                "SELECT table_name, data_length + index_length FROM information_schema.tables "
                "WHERE table_schema = DATABASE()"
            )
            return {row[0]: int(row[1]) for row in await cursor.fetchall()}
    finally:
        connection.close()


async def _sqlite(side: Side) -> Sizes:
    """Pages of each table and index; an index is named after its table."""
    with closing(sqlite3.connect(f"file:{urlsplit(side.url).path.removeprefix('/')}?mode=ro", uri=True)) as database:
        tables = dict(database.execute("SELECT name, tbl_name FROM sqlite_schema"))
        found: dict[str, int] = {}
        for name, size in database.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name"):
            table = tables.get(name, name)
            found[table] = found.get(table, 0) + size
    return found


async def _lmdb(side: Side) -> Sizes:
    """Pages of each table, looked at by another process, for this one has the file open."""
    folder = side.url.removeprefix("lmdb://")
    return msgspec.json.decode(output_of([sys.executable, "-m", "benchmarks.store_sizes", folder]), type=dict[str, int])


def _tables_of(folder: str) -> Sizes:
    found: dict[str, int] = {}
    environment = _driver("lmdb").open(folder, readonly=True, lock=False, max_dbs=64)
    with closing(environment), environment.begin() as transaction:
        for name in [bytes(key) for key, _ in transaction.cursor()]:
            stat = transaction.stat(environment.open_db(name, transaction, create=False))
            pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
            found[name.decode()] = pages * stat["psize"]
    return found


def _driver(name: str) -> Any:
    """A driver, of which nothing but these few calls is used; loaded where it is needed."""
    return import_module(name)


_MEASURES: Final[Mapping[str, Callable[[Side], Awaitable[Sizes]]]] = {
    LMDB: _lmdb,
    SQLITE: _sqlite,
    POSTGRESQL: _postgresql,
    MARIADB: _mariadb,
    REDIS: _redis,
}

if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(_tables_of(sys.argv[1])))
