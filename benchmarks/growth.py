"""Whether an operation costs the same when there is more: sessions on the disk, open documents, subscribers."""

import asyncio
import random
import resource
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import count, islice
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from benchmarks.crowd import READ_BYTES, Room
from benchmarks.documents import contender
from benchmarks.editing import ANY_LETTER, ROOMKEY, Side, ours, typed
from benchmarks.harness import (
    FLAT,
    TIMES,
    Benchmark,
    Finding,
    Goal,
    Measures,
    Plan,
    Row,
    figures,
    find,
    installed,
    interleaved,
    main,
    quantiles,
    ratio,
)
from benchmarks.httpload import Unexpected
from benchmarks.processes import Meter
from benchmarks.websocket import close
from roomkey import SessionManager, open_storage
from roomkey.domain.session import SessionId
from roomkey.realtime.protocol import yjs_messages as yjs

SESSIONS: Final = (1_000, 100_000, 1_000_000)
SESSIONS_PER_USER: Final = 4
CALLERS: Final = 256
MOST_FILL_SECONDS: Final = 240.0
"""A disk that needs longer for all sessions is measured with fewer."""

CREATES: Final = 4_096
GETS: Final = 2_000

DOCUMENTS: Final = (100, 1_000, 10_000)
EDITS: Final = 16_384
AT_ONCE: Final = 32
JOINED_AT_ONCE: Final = 500
SETTINGS: Final = {"websocket.ping_interval": "1h"}
"""Clients who wait for their turn to type do not answer pings."""

RESERVED_FILES: Final = 100

SUBSCRIBERS: Final = (10, 100, 1_000)
DELIVERIES_PER_SECOND: Final = 5_000

LMDB: Final = "Roomkey, LMDB"


# --- sessions -------------------------------------------------------------------------------------------


async def _sessions(sizes: Sequence[int], plan: Plan) -> list[Row]:
    """Create sessions on the disk, and stop at each size to measure."""
    rows: list[Row] = []
    ids: list[SessionId] = []
    users = (f"user-{number // SESSIONS_PER_USER}" for number in count())
    deadline = time.perf_counter() + MOST_FILL_SECONDS
    with tempfile.TemporaryDirectory(prefix="roomkey-benchmark-") as folder:
        async with open_storage(f"lmdb://{folder}") as storage:
            sessions = SessionManager(storage)
            for size in sizes:
                while len(ids) < size and time.perf_counter() < deadline:
                    await _create(sessions, islice(users, min(size - len(ids), CREATES)), ids)
                case = _of_sessions(size)
                if len(ids) < size:
                    rows.append(Row(case, LMDB, skipped=f"the disk took {len(ids):,} in {MOST_FILL_SECONDS:g} s"))
                    continue
                disk = _bytes_in(folder) / len(ids)
                found = [await _time(sessions, users, ids, plan) for _ in range(plan.rounds)]
                rows.append(Row(case, LMDB, figures([{**measures, "disk each": (disk, "B")} for measures in found])))
    return rows


async def _create(sessions: SessionManager, users: Iterator[str], ids: list[SessionId]) -> None:
    """Create a session for each of the users, by many callers at once, as those of many connections are."""

    async def call_again_and_again() -> None:
        for user in users:
            issued = await sessions.create_session(user)
            ids.append(issued.id)

    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(call_again_and_again())


async def _time(sessions: SessionManager, users: Iterator[str], ids: list[SessionId], plan: Plan) -> Measures:
    """How long a create takes where many come at once, and a get of any session."""
    creates, gets = plan.size(CREATES, CALLERS), plan.size(GETS, 100)
    sample = random.choices(ids, k=gets)
    begun = time.perf_counter()
    await _create(sessions, islice(users, creates), ids)
    created = time.perf_counter()
    for id in sample:
        await sessions.get_session(id)
    done = time.perf_counter()
    return {"create": ((created - begun) / creates * 1e6, "µs"), "get": ((done - created) / gets * 1e6, "µs")}


def _bytes_in(folder: str) -> int:
    return sum(path.stat().st_blocks * 512 for path in Path(folder).rglob("*") if path.is_file())


def _of_sessions(size: int) -> str:
    return f"{size:,} sessions"


# --- documents ------------------------------------------------------------------------------------------


class _Open:
    """Documents with a client each, who types a letter now and then."""

    def __init__(self, side: Side, letters: int) -> None:
        self.side = side
        self._names: list[str] = []
        self._connections: list[socket.socket] = []
        self._typed: list[int] = []
        [self._updates] = typed(1, letters)

    def grow(self, size: int) -> None:
        """Open more, until there are so many."""
        while (first := len(self._names)) < size:
            fresh = [f"one-of-many-{number:06d}" for number in range(first, min(first + JOINED_AT_ONCE, size))]
            side = msgspec.structs.replace(self.side, tokens=self.side.tokens[first:])
            self._connections += side.join(fresh)
            self._names += fresh
            self._typed += [0] * len(fresh)

    def edit(self, edits: int) -> Measures:
        """So many letters in documents anywhere, some at a time; each is read back by who typed it."""
        durations: list[float] = []
        meter = Meter(self.side.server)
        for _ in range(edits // AT_ONCE):
            chosen = random.sample(range(len(self._names)), min(AT_ONCE, len(self._names)))
            begun = time.perf_counter()
            for number in chosen:
                self._type(number)
            for number in chosen:
                self._read(number)
                durations.append(time.perf_counter() - begun)
        return {**meter.measures(len(durations), "edit", "edits"), **quantiles(durations)}

    def _type(self, number: int) -> None:
        update = self._updates[self._typed[number]]
        self._typed[number] += 1
        self._connections[number].sendall(self.side.frame(self._names[number], yjs.update(update)))

    def _read(self, number: int) -> None:
        seen = b""
        while ANY_LETTER not in seen:
            chunk = self._connections[number].recv(READ_BYTES)
            if not chunk:
                raise Unexpected("the server closed a connection")
            seen = seen[-1:] + chunk

    def close(self) -> None:
        """Everybody leaves."""
        close(self._connections)


def _documents(side: Side, sizes: Sequence[int], plan: Plan) -> list[Row]:
    """Open documents, and stop at each size to measure."""
    edits = plan.size(EDITS, 4 * AT_ONCE)
    most = len(sizes) * (plan.rounds + 1) * edits // AT_ONCE  # in one document, if it is chosen every time
    rows: list[Row] = []
    with closing(_Open(side, most)) as documents:
        for size in sizes:
            documents.grow(size)
            documents.edit(edits)
            found = [documents.edit(edits) for _ in range(plan.rounds)]
            rows.append(Row(_of_documents(size), ROOMKEY, figures(found)))
    return rows


def _possible(sizes: Sequence[int]) -> list[int]:
    """Sizes that do not need more sockets than a process may have here."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(sizes) if files == resource.RLIM_INFINITY else files - RESERVED_FILES
    return [min(size, most) for size in sizes]


def _of_documents(size: int) -> str:
    return f"{size:,} open documents"


# --- subscribers ----------------------------------------------------------------------------------------


def _subscribers(side: Side, sizes: Sequence[int], plan: Plan) -> list[Row]:
    """Rooms of these sizes in turns, with as many deliveries per second in each."""
    rooms = {_of_subscribers(size): Room(size, 1, rate=plan.size(DELIVERIES_PER_SECOND, 100) / size) for size in sizes}
    found = interleaved(plan, {case: contender(side, room) for case, room in rooms.items()})
    return [Row(case, ROOMKEY, measured, paced=True) for case, measured in found.items()]


def _of_subscribers(size: int) -> str:
    return f"{size:,} subscribers of a document"


# --- all of it ------------------------------------------------------------------------------------------


def run(plan: Plan) -> Finding:
    """Each kind by itself, from few to many."""
    sessions = [200, 1_000] if plan.quick else list(SESSIONS)
    documents = _possible([40, 80] if plan.quick else DOCUMENTS)
    subscribers = [4, 20] if plan.quick else list(SUBSCRIBERS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rows = runner.run(_sessions(sessions, plan))
    with ours(max(*documents, *subscribers) + 1, SETTINGS) as side:
        rows += _documents(side, documents, plan)
        rows += _subscribers(side, subscribers, plan)
    goals = [
        _flat(rows, [_of_sessions(size) for size in sessions], LMDB, "create"),
        _flat(rows, [_of_sessions(size) for size in sessions], LMDB, "get"),
        _flat(rows, [_of_documents(size) for size in documents], ROOMKEY, "CPU per edit"),
        _flat(rows, [_of_subscribers(size) for size in subscribers], ROOMKEY, "CPU per delivery"),
    ]
    return Finding(rows, goals, NOTES)


def _flat(rows: Sequence[Row], cases: Sequence[str], side: str, quantity: str) -> Goal:
    few, many = cases[0], cases[-1]
    dearer = ratio(find(rows, many, side), find(rows, few, side), quantity)
    return Goal(f"{many}: {quantity}, against {few}", dearer, FLAT, TIMES, at_least=False)


NOTES: Final = [
    f"Flat means at most {FLAT:g} times as dear: caches get colder and trees deeper, but nothing is gone through.",
    (
        f"Sessions are created by {CALLERS} callers at once, and read one after the other at random, in process, on "
        "one core. What all sessions of a size take on the disk is divided by them."
    ),
    (
        f"Each open document has a client of its own. Letters are typed in {AT_ONCE} of them at once, anywhere, and "
        "stored on the disk; the time is until the client has read back its own. The server sends no pings meanwhile."
    ),
    (
        "In rooms of different sizes one person types so fast that there are as many deliveries per second in each; "
        "what an edit costs beside its deliveries is less in a large room. Linear means that a delivery costs the same."
    ),
]

BENCHMARK: Final = Benchmark(
    name="growth",
    title="Cost as work grows",
    about="The cost of one operation as sessions on the disk, open documents and subscribers become many.",
    run=run,
    versions=installed("lmdb", "picows", "pycrdt", "uvloop"),
)

if __name__ == "__main__":
    main(BENCHMARK)
