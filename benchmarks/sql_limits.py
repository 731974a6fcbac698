"""
What PostgreSQL and MariaDB reach with the very statements of the stores, and nothing of ours around them.

The texts are those of ``queries/sessions.sql``. For ``pgbench`` each parameter becomes an expression that makes as many
values as a group has; MariaDB gets values from a loop on its driver. New sessions go into a database of their own.
"""

import asyncio
import math
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

from benchmarks.databases import Database, find
from benchmarks.harness import Measures
from benchmarks.httpload import Unexpected
from benchmarks.processes import HOST
from roomkey.backends.sql.database import Database as SqlDatabase
from roomkey.backends.sql.database import DatabaseSettings
from roomkey.backends.sql.dialects import Dialect
from roomkey.backends.sql.rows import SessionQueries
from roomkey.backends.sql.statements import Query, load

CONNECTIONS: Final = 2
"""As many transactions as a store has in flight, and statements that read."""

LIMITS: Final = "limits"
"""The database of what is created."""

PROBED: Final = 20
"""So many transactions say how many fill a round."""

_PARTITIONS: Final = 256
_TPS: Final = re.compile(r"^tps = ([\d.]+)", re.MULTILINE)


class Sizes(NamedTuple):
    """How many sessions a transaction has, how many partitions they lie in, and how large records are."""

    sessions: int
    partitions: int
    record: int
    event: int

    @classmethod
    def of(cls, callers: int, record: int, event: int) -> "Sizes":
        """Those of so many callers. Sessions lie anywhere, several in some partitions and none in others."""
        sessions = max(callers // CONNECTIONS, 1)
        own = _PARTITIONS // CONNECTIONS
        return cls(sessions, max(round(own * (1 - math.exp(-sessions / own))), 1), record, event)


async def prepare(database: Database) -> str:
    """Make the database of what is created; returns its URL."""
    dialect = Dialect.POSTGRESQL if database.url.startswith("postgresql") else Dialect.MYSQL
    url = f"{database.url.rpartition('/')[0]}/{LIMITS}"
    if dialect is Dialect.POSTGRESQL:
        connection = await _driver("asyncpg").connect(database.url)
        await connection.execute(f"DROP DATABASE IF EXISTS {LIMITS}")
        await connection.execute(f"CREATE DATABASE {LIMITS}")
        await connection.close()
    else:
        connection = await _connected(database, None)
        async with connection.cursor() as cursor:
            await cursor.execute(f"CREATE OR REPLACE DATABASE {LIMITS}")
        connection.close()
    async with SqlDatabase(url, DatabaseSettings(migrate=True)):
        return url


# --- pgbench ----------------------------------------------------------------------------------------------


class Pgbench:
    """``pgbench`` with a script of its own."""

    def __init__(self, database: Database, script: str, each: int, *, name: str, variables: Mapping[str, str]) -> None:
        """``each`` is how many operations one run of the script stands for; ``name`` is that of the database."""
        self._port = database.port
        self._user = database.url.partition("://")[2].partition("@")[0]
        self._script = script
        self._each = each
        self._name = name
        self._variables = variables

    def measure(self, seconds: float) -> Measures:
        """Run the script for about so long."""
        probed = self._tps(PROBED)
        return {"operations": (self._tps(max(int(probed * seconds / CONNECTIONS), PROBED)) * self._each, "/s")}

    def _tps(self, transactions: int) -> float:
        program = find("pgbench")
        assert program is not None
        with TemporaryDirectory(prefix="roomkey-benchmark-") as folder:
            file = Path(folder) / "script.sql"
            file.write_text(self._script)
            given = [part for variable in self._variables.items() for part in ("-D", "=".join(variable))]
            command = (
                *(program, "-h", HOST, "-p", str(self._port), "-U", self._user, "-n", "-M", "prepared"),
                *("-c", str(CONNECTIONS), "-j", "1", "-t", str(transactions), "-f", str(file), *given, self._name),
            )
            done = subprocess.run(command, check=False, capture_output=True, text=True)
        found = _TPS.search(done.stdout)
        if done.returncode != 0 or found is None:
            raise Unexpected(f"pgbench fails: {done.stderr[-1000:]}")
        return float(found[1])


def pgbench_get(database: Database, ids: Sequence[str], callers: int) -> Pgbench:
    """The statement that reads as many sessions as wait at a time; always the same ones."""
    each = max(callers // CONNECTIONS, 1)
    wanted = "{" + ",".join(f'"\\\\x{id.encode().hex()}"' for id in ids[:each]) + "}"
    script = filled_in(_QUERIES[Dialect.POSTGRESQL].get, [":ids"])
    return Pgbench(database, script, min(each, len(ids)), name="postgres", variables={"ids": wanted})


def pgbench_create(database: Database, sizes: Sizes) -> Pgbench:
    """The transaction that creates as many sessions as wait at a time."""
    queries, count, partitions = _QUERIES[Dialect.POSTGRESQL], sizes.sessions, sizes.partitions
    own = f"{CONNECTIONS} * ((i - 1) % {partitions}) + :client_id"
    now = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    users = _many("decode(md5('user' || random()), 'hex')", count)
    ids = _many("decode(md5('id' || random() || i), 'hex') || '\\x616263646566676869303132'::bytea", count)
    one, none = f"array_fill(1, ARRAY[{count}])", f"array_fill(NULL::bigint, ARRAY[{count}])"
    times = _many(f"{now} + i", count)
    record = f"array_fill('\\x{'ab' * sizes.record}'::bytea, ARRAY[{count}])"
    event = f"array_fill('\\x{'ab' * sizes.event}'::bytea, ARRAY[{count}])"
    figures = [f"array_fill(1, ARRAY[{partitions}])"] * 12
    statements = [
        "BEGIN",
        filled_in(queries.lock_partitions, [f"{_many(own, partitions)}::smallint[]"]),
        filled_in(queries.standing, [users, users]),
        filled_in(queries.add_sessions, [ids, users, one, one, one, times, times, times, none, record]),
        filled_in(queries.add_events, [_many(own, count), _many(f"{now} * 1000 + i", count), times, event]),
        filled_in(queries.put_partitions, [*figures, _many(own, partitions)]),
        "COMMIT",
    ]
    script = "".join(f"{' '.join(statement.split())};\n" for statement in statements)
    return Pgbench(database, script, count, name=LIMITS, variables={})


def _many(expression: str, count: int) -> str:
    """As many values, ``i`` being the number of each, as an array."""
    return f"ARRAY(SELECT {expression} FROM generate_series(1, {count}) i)"


def filled_in(query: Query, expressions: Sequence[str]) -> str:
    """The statement with these in the place of its parameters."""
    first, *rest = query.text.replace("IN (*)", "= ANY(?)").split("?")
    return first + "".join(expression + part for expression, part in zip(expressions, rest, strict=True))


# --- a loop on MariaDB's driver ---------------------------------------------------------------------------


class DriverLoop:
    """Connections of asyncmy that run the same statements again and again."""

    def __init__(self, database: Database, ids: Sequence[str], sizes: Sizes) -> None:
        self._database = database
        self._ids = [id.encode() for id in ids[: sizes.sessions]]
        self._sizes = sizes
        self._sequence = time.time_ns()

    async def get(self, seconds: float) -> Measures:
        """The statement that reads as many sessions as wait at a time."""
        text, parameters = _QUERIES[Dialect.MYSQL].get.prepared([self._ids])

        async def read(cursor: Any, _number: int) -> int:
            await cursor.execute(text, parameters)
            return len(await cursor.fetchall())

        return await self._again_and_again(read, seconds, None)

    async def create(self, seconds: float) -> Measures:
        """The transaction that creates as many sessions as wait at a time."""
        return await self._again_and_again(self._create, seconds, LIMITS)

    async def _create(self, cursor: Any, number: int) -> int:
        queries, count = _QUERIES[Dialect.MYSQL], self._sizes.sessions
        own = [CONNECTIONS * each + number for each in range(self._sizes.partitions)]
        users, now = [os.urandom(16) for _ in range(count)], time.time_ns() // 1000
        record, event = bytes(self._sizes.record), bytes(self._sizes.event)
        sessions = [(os.urandom(28), user, 1, 1, 0, now, now, now, None, record) for user in users]
        self._sequence += count
        events = [(own[each % len(own)], self._sequence + each, now, event) for each in range(count)]
        await cursor.execute("START TRANSACTION")
        for text, parameters in (
            queries.lock_partitions.prepared([own]),
            queries.standing.prepared([users, users]),
            for_rows(queries.add_sessions, sessions),
            for_rows(queries.add_events, events),
            for_rows(queries.put_partitions, [(*[1] * 12, each) for each in own]),
        ):
            await cursor.execute(text, parameters)
            await cursor.fetchall()
        await cursor.execute("COMMIT")
        return count

    async def _again_and_again(self, act: Any, seconds: float, name: str | None) -> Measures:
        connections = [await _connected(self._database, name) for _ in range(CONNECTIONS)]
        clock, done = time.perf_counter, 0
        begun = clock()

        async def work(number: int, connection: Any) -> None:
            nonlocal done
            async with connection.cursor() as cursor:
                while clock() < begun + seconds:
                    done += await act(cursor, number)

        async with asyncio.TaskGroup() as group:
            for number, connection in enumerate(connections):
                group.create_task(work(number, connection))
        elapsed = clock() - begun
        for connection in connections:
            connection.close()
        return {"operations": (done / elapsed, "/s")}


def for_rows(query: Query, rows: Sequence[Sequence[Any]]) -> tuple[str, list[Any]]:
    """The statement for so many rows: it says in braces what is repeated, and what stands between."""
    head, _, rest = query.text.partition("{")
    repeated, _, tail = rest.partition("}")
    row, _, between = repeated.partition("|")
    text = head + between.join([row] * len(rows)) + tail
    return text.replace("?", "%s"), [value for each in rows for value in each]


async def _connected(database: Database, name: str | None) -> Any:
    place = database.url.rpartition("/")[2] if name is None else name
    connect = _driver("asyncmy").connect
    return await connect(host=HOST, port=database.port, user="root", db=place, charset="utf8mb4", autocommit=True)


async def record_sizes(database: Database) -> tuple[int, int]:
    """How large records of sessions and of events are on the average, in bytes."""
    asked = [f"SELECT avg(octet_length(record)) FROM roomkey_{table}" for table in ("sessions", "events")]
    if database.url.startswith("postgresql"):
        connection = await _driver("asyncpg").connect(database.url)
        found = [await connection.fetchval(statement) for statement in asked]
        await connection.close()
    else:
        connection, found = await _connected(database, None), list[Any]()
        async with connection.cursor() as cursor:
            for statement in asked:
                await cursor.execute(statement)
                found += (await cursor.fetchall())[0]
        connection.close()
    return int(found[0]), int(found[1])


def _driver(name: str) -> Any:
    """A driver, of which nothing but these few calls is used."""
    return import_module(name)


_QUERIES: Final[Mapping[Dialect, SessionQueries]] = {
    dialect: load("sessions", dialect, SessionQueries) for dialect in (Dialect.POSTGRESQL, Dialect.MYSQL)
}
