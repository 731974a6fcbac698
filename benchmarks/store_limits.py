"""
What servers reach with nothing of ours in between: the limits that stores are measured against.

Redis: ``redis-benchmark`` with the very commands that a store sends, which the server's own monitor names. Databases of
SQL: see ``sql_limits``.
"""

import asyncio
import re
import socket
import subprocess
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

from benchmarks import sql_limits
from benchmarks.databases import Database, find
from benchmarks.harness import Contender, Measures, Row
from benchmarks.httpload import Unexpected
from benchmarks.processes import HOST
from benchmarks.sql_limits import DriverLoop, Sizes, pgbench_create, pgbench_get
from benchmarks.store_sides import MARIADB, POSTGRESQL, REDIS, SESSIONS_PER_USER, Side, user
from roomkey.backends.redis.layout import id_key
from roomkey.domain.session import SessionId

Command = Sequence[bytes]

LIMIT_DATABASE: Final = 1
"""What ``redis-benchmark`` writes goes there, so that it is not among what is measured."""

PROBES: Final = 2_000
BYTES_PER_CREATE: Final = 300
"""At least so many a Redis must have more when a session was created, or it was not."""

LARGEST_NUMBER: Final = 10**9

_ANY_NUMBER: Final = b"__rand_int__"
"""What ``redis-benchmark`` replaces by twelve digits, other ones each time."""

_NUMBER: Final = re.compile(r'"([\d.]+)"')
_USED_MEMORY: Final = re.compile(rb"\r\nused_memory_dataset:(\d+)\r\n")
"""Without buffers, which come and go."""

_QUOTED: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_ESCAPED: Final = re.compile(rb"\\(x[0-9a-f]{2}|.)", re.DOTALL)
_LETTERS: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}


# --- Redis: which commands ------------------------------------------------------------------------------


@contextmanager
def monitored(port: int) -> Generator[Callable[[], list[Command]]]:
    """What a Redis is sent while the block runs; the function that it gets returns the commands until then."""
    mark = b"the end of what is monitored"
    with socket.create_connection((HOST, port), timeout=10) as watching:
        watching.sendall(b"MONITOR\r\n")
        lines = watching.makefile("rb")
        if lines.readline() != b"+OK\r\n":
            raise Unexpected("Redis does not say what it is sent")

        def commands() -> list[Command]:
            with socket.create_connection((HOST, port), timeout=10) as other:
                other.sendall(b"*2\r\n$4\r\nECHO\r\n$%d\r\n%s\r\n" % (len(mark), mark))
                other.recv(64)
            found: list[Command] = []
            while mark not in (line := lines.readline()):
                if b" lua] " not in line:  # what a script does is not sent
                    found.append([unescaped(quoted) for quoted in _QUOTED.findall(line)])
            return found

        yield commands


async def commands_of(port: int, call: Callable[[], Awaitable[object]]) -> list[Command]:
    """What a store sends for one call, alone."""
    with monitored(port) as commands:
        await call()
        found = commands()
    return [command for command in found if command[0].upper() not in {b"PING", b"HELLO", b"CLIENT", b"TIME"}]


def unescaped(quoted: bytes) -> bytes:
    """An argument as it was sent, of one that the monitor shows."""

    def meant(match: re.Match[bytes]) -> bytes:
        letter = match[1]
        return bytes((int(letter[1:], 16),)) if len(letter) == 3 else _LETTERS.get(letter, letter)

    return _ESCAPED.sub(meant, quoted)


def for_anybody(command: Command, id: SessionId, user: str) -> Command:
    """
    The command that creates the session ``id`` of ``user``, as one that creates another session each time.

    The last twelve bytes of both, in whatever form they are sent, are numbers then. A zero byte, which no argument of
    a program can have, becomes a one.
    """
    forms = [id.encode(), user.encode(), id_key(id) or id.encode()]
    return [_with_numbers(argument, forms).replace(b"\0", b"\1") for argument in command]


def _with_numbers(argument: bytes, forms: Sequence[bytes]) -> bytes:
    for form in forms:
        argument = argument.replace(form, form[: -len(_ANY_NUMBER)] + _ANY_NUMBER)
    return argument


# --- Redis: how fast ------------------------------------------------------------------------------------


class RedisBenchmark:
    """``redis-benchmark`` for one command, or for several that a store needs for one thing."""

    def __init__(self, port: int, commands: Sequence[Command], *, database: int = 0, grows: bool = False) -> None:
        """``grows`` says that each command stores something new."""
        self._port = port
        self._commands = commands
        self._database = database
        self._least = BYTES_PER_CREATE if grows else 0

    def measure(self, seconds: float, connections: int, pipeline: int) -> Measures:
        """So many commands in flight on so many connections, for about so long."""
        rates = [
            self._rate(command, seconds / len(self._commands), connections, pipeline) for command in self._commands
        ]
        return {"operations": (1 / sum(1 / rate for rate in rates), "/s")}

    def _rate(self, command: Command, seconds: float, connections: int, pipeline: int) -> float:
        probed = self._run(command, PROBES, connections, pipeline)
        return self._run(command, max(int(probed * seconds), PROBES), connections, pipeline)

    def _run(self, command: Command, count: int, connections: int, pipeline: int) -> float:
        program = find("redis-benchmark")
        assert program is not None
        options = ("-h", HOST, "-p", self._port, "--dbnum", self._database, "-n", count, "-r", LARGEST_NUMBER)
        line = (program, *options, "-c", connections, "-P", pipeline, "--csv", *command)
        given = [each if isinstance(each, bytes) else str(each).encode() for each in line]
        memory = self._memory()
        done = subprocess.run(given, check=False, capture_output=True, text=True, errors="replace")
        if done.returncode != 0:
            raise Unexpected(
                f"Redis refuses what is repeated of {command[:2]!r}: {(done.stderr or done.stdout)[-500:]}"
            )
        if self._least and self._memory() < memory + count * self._least:
            raise Unexpected(f"Redis does not store what is repeated of {command[:2]!r}")
        # The name of the command, which comes first on the line, may be anything; then come seven numbers.
        numbers = _NUMBER.findall(done.stdout.splitlines()[-1])
        return float(numbers[-7])

    def _memory(self) -> int:
        with socket.create_connection((HOST, self._port), timeout=10) as connection:
            connection.sendall(b"*2\r\n$4\r\nINFO\r\n$6\r\nmemory\r\n")
            said = b""
            while not (found := _USED_MEMORY.search(said)):
                said += connection.recv(65_536)
        return int(found[1])


# --- the limits of each case ----------------------------------------------------------------------------

REDIS_BENCHMARK: Final = "redis-benchmark"

PGBENCH: Final = "pgbench"
DRIVER_LOOP: Final = "loop on asyncmy"

NAMES: Final[Mapping[str, str]] = {REDIS: REDIS_BENCHMARK, POSTGRESQL: PGBENCH, MARIADB: DRIVER_LOOP}
"""What measures the limit of a backend."""

CONNECTIONS: Final = 16


class Limits:
    """What there is to compare the cases ``get`` and ``create`` with, with so many in flight."""

    def __init__(self, callers: int, runner: asyncio.Runner) -> None:
        self._callers = callers
        self._runner = runner

    def contenders(self, side: Side, case: str) -> dict[str, Contender]:
        """Every shape of the limit, by name; none for a backend whose limit is not measured."""
        if side.database is None:
            return {}
        if side.name == REDIS:
            return self._runner.run(self._redis(side, case))
        return self._runner.run(self._sql(side, side.database, case))

    async def _sql(self, side: Side, database: Database, case: str) -> dict[str, Contender]:
        sizes = Sizes.of(self._callers, *await sql_limits.record_sizes(database))
        if case == "create":
            await sql_limits.prepare(database)
        if side.name == POSTGRESQL:
            if find("pgbench") is None:
                return {}
            made = pgbench_get(database, side.ids, self._callers) if case == "get" else pgbench_create(database, sizes)
            return {PGBENCH: made.measure}
        loop = DriverLoop(database, side.ids, sizes)
        work = loop.get if case == "get" else loop.create
        return {DRIVER_LOOP: lambda seconds: self._runner.run(work(seconds))}

    async def _redis(self, side: Side, case: str) -> dict[str, Contender]:
        if side.database is None or find("redis-benchmark") is None:
            return {}
        port = side.database.port
        if case == "get":
            benchmark = RedisBenchmark(port, await _readable(side, port))
        else:
            name, issued = user(SESSIONS_PER_USER * (LARGEST_NUMBER - 1)), list[SessionId]()

            async def create() -> None:
                issued.append((await side.sessions.create_session(name)).id)

            await create()  # so that scripts are loaded
            commands = await commands_of(port, create)
            commands = [for_anybody(command, issued[-1], name) for command in commands]
            benchmark = RedisBenchmark(port, commands, database=LIMIT_DATABASE, grows=True)
        return {
            f"{REDIS_BENCHMARK}, {connections} × {self._callers // connections}": _shape(  # noqa: RUF001  # the sign is meant
                benchmark, connections, self._callers // connections
            )
            for connections in (1, CONNECTIONS)
        }


async def _readable(side: Side, port: int) -> Sequence[Command]:
    """What reads a session in whose key is no zero byte, which no argument of a program can have."""
    for id in side.ids:
        commands = await commands_of(port, partial(side.storage.get, id))
        if not any(b"\0" in argument for command in commands for argument in command):
            return commands
    raise Unexpected("the key of every session has a zero byte")


def _shape(benchmark: RedisBenchmark, connections: int, pipeline: int) -> Contender:
    return lambda seconds: benchmark.measure(seconds, connections, pipeline)


def fastest(rows: Sequence[Row], case: str, side: str) -> Row | None:
    """The limit of a backend in a case: the fastest of its shapes."""
    limits = [row for row in rows if row.case == case and row.side.startswith(NAMES[side]) and row.figures]
    return max(limits, key=lambda row: row.figures["operations"].median, default=None)
