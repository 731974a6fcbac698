"""
Sessions and documents on every backend, against what its server reaches with nothing in between, and against peers.

``--size`` is how many sessions there are before the clock starts.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec
import uvloop

from benchmarks import city, databases, node, store_limits, store_peers
from benchmarks.city import City
from benchmarks.databases import Database
from benchmarks.editing import HOCUSPOCUS, ROOMKEY_HOCUSPOCUS, ours
from benchmarks.editing import Side as Editors
from benchmarks.harness import (
    FLAT,
    TIMES,
    Benchmark,
    Contender,
    Figure,
    Finding,
    Goal,
    Measures,
    Plan,
    Row,
    find,
    installed,
    interleaved,
    main,
    ratio,
    value,
)
from benchmarks.node import Missing
from benchmarks.store_cases import (
    CALLERS,
    CREATE,
    CREATE_GROUPS,
    DOCUMENTS,
    FIRST_PAGE,
    GET,
    GROUP,
    GROUP_CALLERS,
    LAST_PAGE,
    PACED,
    QUICK_CALLERS,
    QUICK_DOCUMENTS,
    QUICK_GROUP,
    REQUEST,
    REVOKE,
    SATURATED,
    TOUCH,
    UPDATE,
    DocumentCases,
    SessionCases,
)
from benchmarks.store_limits import REDIS_BENCHMARK, Limits
from benchmarks.store_peers import EXPRESS, LITESTAR, STARSESSIONS
from benchmarks.store_sides import LMDB, POSTGRESQL, REDIS, SESSIONS_PER_USER, SQLITE, Places, Side, opened, places
from benchmarks.store_sizes import sizes
from roomkey.observability.logs import configure_events
from roomkey.observability.settings import LogLevel, LogSettings

SIZE: Final = 100_000
QUICK_SIZE: Final = 500

MOST_ROUNDS: Final = 3

BYTES: Final = "stored per session"

STORED: Final = "people who type, and documents that are stored"

_PEER_CASES: Final = {CREATE: "create", GET: "get", REQUEST: "request"}

WANTED_SHARES: Final[Mapping[tuple[str, str], float]] = {
    (REDIS, GET): 0.7,
    (REDIS, CREATE): 0.4,
    (POSTGRESQL, GET): 0.6,
    (POSTGRESQL, CREATE): 0.6,
}
"""Of what the server's own benchmark reaches with the same commands."""

WANTED_OF_PEER: Final = 3
WANTED_OF_LMDB: Final = 0.25
WANTED_BYTES: Final = 650
WANTED_PAGE_MS: Final = 5
WANTED_DURABLE_MS: Final[Mapping[str, float]] = {REDIS: 50, POSTGRESQL: 100}

# --- sessions -------------------------------------------------------------------------------------------


class _Comparison:
    """Every case with its sides in turns, on one loop; rows are collected."""

    def __init__(self, plan: Plan, runner: asyncio.Runner, places: Places, sides: Mapping[str, Side | Missing]) -> None:
        self._plan = plan
        self._redis = places[REDIS]
        self._runner = runner
        self._sides = {name: side for name, side in sides.items() if isinstance(side, Side)}
        self._missing = {name: side.reason for name, side in sides.items() if isinstance(side, Missing)}
        self.rows: list[Row] = []

    def sessions(self) -> None:
        """Every command, with limits and peers where there are such."""
        own = {name: SessionCases(side, self._plan) for name, side in self._sides.items()}
        commands: Mapping[str, Callable[[SessionCases, float], Awaitable[Measures]]] = {
            FIRST_PAGE: SessionCases.first_page,
            LAST_PAGE: SessionCases.last_page,
            GET: SessionCases.get,
            REQUEST: SessionCases.request,
            UPDATE: SessionCases.update,
            TOUCH: SessionCases.touch,
            CREATE: SessionCases.create,
            CREATE_GROUPS: SessionCases.create_groups,
            REVOKE: SessionCases.revoke,
        }
        limits = Limits(self._plan.size(CALLERS, QUICK_CALLERS), self._runner)
        for case, command in commands.items():
            contenders = {name: self._contender(partial(command, cases)) for name, cases in own.items()}
            contenders |= self._limits(limits, case)
            contenders |= self._peers(case)
            self._measure(case, contenders, paced=False)

    def documents(self) -> None:
        """Changes of all documents, at a pace and without one."""
        own = {name: DocumentCases(side, self._plan) for name, side in self._sides.items()}
        for cases in own.values():
            self._runner.run(cases.prepare())
        commands = {PACED: (DocumentCases.paced, True), SATURATED: (DocumentCases.saturated, False)}
        for case, (command, is_paced) in commands.items():
            contenders = {name: self._contender(partial(command, cases)) for name, cases in own.items()}
            self._measure(case, contenders, paced=is_paced)

    def sizes(self, size: int) -> None:
        """What the sessions take, before anything else is stored."""
        for name, side in self._sides.items():
            found = self._runner.run(sizes(side))
            if found is not None:
                own, log = (Figure([each / size], "B") for each in found)
                self.rows.append(Row(BYTES, name, {"with all indexes": own, "its event": log}))

    def _contender(self, work: Callable[[float], Awaitable[Measures]]) -> Contender:
        async def working(seconds: float) -> Measures:
            return await work(seconds)

        return lambda seconds: self._runner.run(working(seconds))

    def _limits(self, limits: Limits, case: str) -> dict[str, Contender]:
        found: dict[str, Contender] = {}
        for side in self._sides.values():
            if side.database is not None and case in (GET, CREATE):
                kind = "get" if case == GET else "create"
                found |= limits.contenders(side, kind)
        return found

    def _peers(self, case: str) -> dict[str, Contender]:
        kind = _PEER_CASES.get(case)
        if kind is None:
            return {}
        found: dict[str, Contender] = {}
        for name in store_peers.NAMES:
            redis = store_peers.install(name) or self._redis
            if isinstance(redis, Missing):
                self.rows.append(Row(case, name, skipped=redis.reason))
            elif isinstance(redis, Database):
                found[name] = store_peers.contender(name, redis, kind, self._plan.size(CALLERS, QUICK_CALLERS))
        return found

    def _measure(self, case: str, contenders: Mapping[str, Contender], *, paced: bool) -> None:
        measured = interleaved(self._plan, contenders, warm_up=not self._plan.quick)
        self.rows += [Row(case, name, figures, paced=paced) for name, figures in measured.items()]
        self.rows += [Row(case, name, skipped=reason) for name, reason in self._missing.items()]


# --- documents that people type in ----------------------------------------------------------------------

WITH_DATABASE: Final = f"{HOCUSPOCUS}, Database extension (SQLite)"
WITH_REDIS: Final = f"{HOCUSPOCUS}, Database (SQLite) and Redis extensions"


@contextmanager
def _hocuspocus(*, redis: str | None = None) -> Generator[Editors | Missing]:
    with TemporaryDirectory(prefix="roomkey-benchmark-") as folder:
        arguments = [str(Path(folder) / "documents.sqlite"), *([redis] if redis else [])]
        with node.peer("hocuspocus-stored.mjs", *arguments) as server:
            yield server if isinstance(server, Missing) else Editors(server, "/", addressed=True)


@contextmanager
def _roomkey(people: int, documents: str) -> Generator[Editors | Missing]:
    """Roomkey with sessions in memory and documents at this URL, in the protocol of Hocuspocus."""
    with ours(people, {"storage.documents": documents}, storage="memory") as side:
        yield Editors(side.server, "/hocuspocus", addressed=True, tokens=side.tokens)


def _typed(plan: Plan) -> list[Row]:
    """Typing at human pace, on servers that store documents: every change, or now and then."""
    place = City(300) if not plan.quick else City(4, 5.0)
    people = place.documents * city.PEOPLE
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="roomkey-benchmark-")))
        redis = stack.enter_context(databases.redis(folder))
        starts: dict[str, Callable[[], AbstractContextManager[Editors | Missing]]] = {
            f"{ROOMKEY_HOCUSPOCUS}, LMDB": lambda: _on_file(people, "lmdb://{}"),
            f"{ROOMKEY_HOCUSPOCUS}, SQLite": lambda: _on_file(people, "sqlite:///{}/documents.sqlite"),
            WITH_DATABASE: _hocuspocus,
        }
        if not isinstance(redis, Missing):
            url = redis.url
            starts[f"{ROOMKEY_HOCUSPOCUS}, Redis"] = lambda: _roomkey(people, url)
            starts[WITH_REDIS] = lambda: _hocuspocus(redis=url)
        missing = {name: reason for name in starts if (reason := _reason_against(name))}
        quiet = plan.seconds / 2
        contenders = {
            name: city.contender(start, place, quiet=quiet) for name, start in starts.items() if name not in missing
        }
        measured = interleaved(plan, contenders, warm_up=False)
    rows = [Row(f"{STORED}: {place}", name, figures, paced=True) for name, figures in measured.items()]
    return rows + [Row(f"{STORED}: {place}", name, skipped=reason) for name, reason in missing.items()]


@contextmanager
def _on_file(people: int, url: str) -> Generator[Editors | Missing]:
    with TemporaryDirectory(prefix="roomkey-benchmark-") as folder, _roomkey(people, url.format(folder)) as side:
        yield side


def _reason_against(name: str) -> str | None:
    """Why a server does not take part."""
    missing = node.install() if name.startswith(HOCUSPOCUS) else None
    return missing and missing.reason


# --- everything -----------------------------------------------------------------------------------------


def run(plan: Plan) -> Finding:
    """All backends are there throughout, and one has work; each has a server of its own, or none."""
    plan = msgspec.structs.replace(plan, rounds=min(plan.rounds, MOST_ROUNDS))
    configure_events(LogSettings(level=LogLevel.WARNING), sys.stderr)  # what is printed may be read by a program
    size = plan.many or plan.size(SIZE, QUICK_SIZE)
    with places() as found, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        opening = opened(found, size)
        sides = runner.run(opening.__aenter__())
        try:
            comparison = _Comparison(plan, runner, found, sides)
            comparison.sizes(size)
            comparison.sessions()
            comparison.documents()
        finally:
            runner.run(opening.__aexit__(None, None, None))
    rows = comparison.rows + _typed(plan)
    return Finding(rows, _goals(rows), [_numbers(plan, size), *NOTES])


def _numbers(plan: Plan, size: int) -> str:
    """How much of everything there was."""
    return (
        f"{size:,} sessions, {SESSIONS_PER_USER} of each user; {plan.size(CALLERS, QUICK_CALLERS)} callers at a time, "
        f"{GROUP_CALLERS} for groups of {plan.size(GROUP, QUICK_GROUP)}, one for pages; "
        f"{plan.size(DOCUMENTS, QUICK_DOCUMENTS):,} documents."
    )


def _goals(rows: Sequence[Row]) -> list[Goal]:
    return [*_against_limits(rows), *_against_others(rows), *_bounds(rows)]


def _against_limits(rows: Sequence[Row]) -> list[Goal]:
    return [
        Goal(
            f"{case}, {side}, against {store_limits.NAMES[side]} with the same commands",
            ratio(find(rows, case, side), store_limits.fastest(rows, case, side), "operations"),
            wanted,
            TIMES,
        )
        for (side, case), wanted in WANTED_SHARES.items()
    ]


def _against_others(rows: Sequence[Row]) -> list[Goal]:
    def against(case: str, ours: str, theirs: str, wanted: float) -> Goal:
        measured = ratio(find(rows, case, ours), find(rows, case, theirs), "operations")
        return Goal(f"{case}: {ours} against {theirs}", measured, wanted, TIMES)

    return [
        *(against(case, REDIS, STARSESSIONS, WANTED_OF_PEER) for case in (CREATE, GET)),
        *(against(case, SQLITE, LMDB, WANTED_OF_LMDB) for case in (CREATE, GET)),
    ]


def _bounds(rows: Sequence[Row]) -> list[Goal]:
    sides = list(dict.fromkeys(row.side for row in rows if row.case == LAST_PAGE and row.figures))
    pages = [
        Goal(f"{case}, {side}", value(rows, case, side, "p50"), WANTED_PAGE_MS, "ms", at_least=False)
        for case in (FIRST_PAGE, LAST_PAGE)
        for side in sides
    ]
    flat = [
        Goal(
            f"{LAST_PAGE} against the first, {side}",
            ratio(find(rows, LAST_PAGE, side), find(rows, FIRST_PAGE, side), "p50"),
            FLAT,
            TIMES,
            at_least=False,
        )
        for side in sides
    ]
    durable = [
        Goal(f"{PACED}, {side}: durable p99", value(rows, PACED, side, "durable p99"), wanted, "ms", at_least=False)
        for side, wanted in WANTED_DURABLE_MS.items()
    ]
    each = value(rows, BYTES, REDIS, "with all indexes")
    return [*pages, *flat, Goal(f"{BYTES}, {REDIS}", each, WANTED_BYTES, "B", at_least=False), *durable]


NOTES: Final = [
    (
        "In process: the commands of SessionManager, or of the port of storage for get, update, touch and pages. "
        "Servers have one core, and whoever asks them the other. An operation returns when it is acknowledged: "
        + "; ".join(f"{name}: {how}" for name, how in databases.DURABILITY.items())
        + "; LMDB and SQLite: the file's fsync."
    ),
    (
        f"{REDIS_BENCHMARK} sends the very commands that Roomkey sends, which the server's monitor has named, with "
        "other ids each time, and as many of them in flight. The limit is the faster of its two shapes: one connection "
        "with all of them in a pipeline, and sixteen connections that share them. pgbench and the loop on MariaDB's "
        "driver run the same statements in transactions of the same size, on as many connections."
    ),
    (
        f"{STARSESSIONS}, {LITESTAR} and {EXPRESS} are measured without HTTP, too: their stores, called as their "
        "middlewares call them. They keep a blob with a time to live: no index of a user's sessions, no cap, no log."
    ),
    (
        "Documents: in each of them a change every twentieth of a second, all of them in one commit after the other, "
        "as a server's group commit brings them. Durable is from when a change is made until it is "
        "acknowledged; what comes while a commit is under way waits for the next."
    ),
    (
        f"{HOCUSPOCUS} stores a document as a whole, two seconds after a change or ten in a row: until then what was "
        "typed is in memory only. Roomkey appends every change, and says that it is saved when it is."
    ),
]

BENCHMARK: Final = Benchmark(
    name="stores",
    title="Sessions and documents on every backend",
    about="Session commands, pages of lists and changes of documents on six backends, against their servers' limits.",
    run=run,
    versions=installed(
        "aiosqlite", "asyncmy", "asyncpg", "hiredis", "lmdb", "msgspec", "redis", "sqlalchemy", "uvloop"
    ),
    peers={
        **store_peers.VERSIONS,
        **{
            f"@hocuspocus/{package}": node.version_of(f"@hocuspocus/{package}")
            for package in ("extension-database", "extension-redis", "server")
        },
    },
    many="number of sessions before the clock starts (100,000)",
)

if __name__ == "__main__":
    main(BENCHMARK)
