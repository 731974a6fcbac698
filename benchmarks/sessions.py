"""How fast session commands are in process, on memory, next to a bare loop that does the least that must be done."""

import asyncio
import gc
import secrets
import time
from base64 import b32encode
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final

import uvloop
from msgspec import Struct

from benchmarks.harness import (
    TIMES,
    Benchmark,
    Figure,
    Finding,
    Goal,
    Measures,
    Plan,
    Row,
    figures,
    find,
    installed,
    main,
    ratio,
)
from benchmarks.processes import SERVER_CORE
from roomkey import SessionManager
from roomkey.backends.memory import MemorySessionStorage

SESSIONS_PER_USER: Final = 4

WANTED_SHARES: Final = {"create": 0.70, "get": 0.55}
"""Of the speed of the bare loop."""


class _Record(Struct, gc=False):
    id: str
    user: str
    digest: bytes
    created: datetime
    expires: datetime


class _Bare:
    """Token, hash, id, a value and three indexes: no rules, no events, no deadlines to settle, nobody told."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}
        self._users: dict[str, list[str]] = {}
        self._deadlines: dict[str, datetime] = {}

    async def create(self, user: str) -> str:
        id = b32encode(secrets.token_bytes(16)).decode().lower().rstrip("=")
        token = f"{id}.{secrets.token_urlsafe(32)}"
        now = datetime.now(UTC)
        record = _Record(id, user, sha256(token.encode()).digest(), now, now + timedelta(hours=24))
        self._records[id] = record
        self._users.setdefault(user, []).append(id)
        self._deadlines[id] = record.expires
        return id

    async def get(self, id: str) -> _Record | None:
        record = self._records.get(id)
        return record if record is not None and datetime.now(UTC) < record.expires else None


async def _timed(call: Callable[[Any], Awaitable[object]], arguments: Iterable[Any]) -> float:
    gc.collect()
    begun = time.perf_counter()
    for argument in arguments:
        await call(argument)
    return time.perf_counter() - begun


async def _roomkey(count: int) -> Measures:
    sessions = SessionManager(MemorySessionStorage())
    ids: list[Any] = []
    issued: list[tuple[Any, str]] = []

    async def create(user: str) -> None:
        one = await sessions.create_session(user)
        issued.append((one.id, one.token))

    seconds = {"create": await _timed(create, _users(count))}
    ids = [id for id, _ in issued]
    tokens = [token for _, token in issued]
    seconds["activate"] = await _timed(sessions.activate_session, ids)
    seconds["get"] = await _timed(sessions.get_session, ids)
    seconds["validate"] = await _timed(sessions.validate_session, ids)
    seconds["authenticate"] = await _timed(sessions.authenticate, tokens)
    seconds["touch"] = await _timed(sessions.touch, ids)
    seconds["suspend"] = await _timed(sessions.suspend_session, ids)
    seconds["delete"] = await _timed(sessions.delete_session, ids)
    return _rates(seconds, count)


async def _bare(count: int) -> Measures:
    bare = _Bare()
    ids: list[str] = []

    async def create(user: str) -> None:
        ids.append(await bare.create(user))

    seconds = {"create": await _timed(create, _users(count)), "get": await _timed(bare.get, ids)}
    return _rates(seconds, count)


def _users(count: int) -> list[str]:
    return [f"user-{number // SESSIONS_PER_USER}" for number in range(count)]


def _rates(seconds: dict[str, float], count: int) -> Measures:
    return {command: (count / spent, "/s") for command, spent in seconds.items()}


def run(plan: Plan) -> Finding:
    """Rounds of both sides in turns; each round begins with nothing stored."""
    count = plan.size(100_000, 500)
    sides = {"Roomkey": _roomkey, "bare loop": _bare}
    rounds: dict[str, list[Measures]] = {side: [] for side in sides}
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for number in range(plan.rounds + 1):
            for side, measure in sides.items():
                measures = runner.run(measure(count))
                if number:  # the first round warms up
                    rounds[side].append(measures)
    rows = [
        Row(command, side, {"operations": figure, "each": _each(figure)}, paced=False)
        for side, measured in rounds.items()
        for command, figure in figures(measured).items()
    ]
    goals = [
        Goal(
            f"{command}, in process, against a bare loop",
            ratio(find(rows, command, "Roomkey"), find(rows, command, "bare loop"), "operations"),
            wanted,
            TIMES,
        )
        for command, wanted in WANTED_SHARES.items()
    ]
    return Finding(rows, goals, [f"{count:,} sessions a round, {SESSIONS_PER_USER} per user.", *NOTES])


def _each(figure: Figure) -> Figure:
    return Figure([1e6 / rate for rate in figure.values], "µs")


NOTES: Final = [
    (
        "The bare loop makes token, hash, id and a value, and writes three indexes; its get is a look-up and a look at "
        "the clock. It shows what this machine allows in Python."
    ),
    "touch is throttled: most calls find that it is too early to write, as in a server.",
]

BENCHMARK: Final = Benchmark(
    name="sessions",
    title="Session commands in process",
    about="Commands per second through SessionManager, on memory, one after the other on one core.",
    run=run,
    versions=installed("msgspec", "uvloop"),
    core=SERVER_CORE,
)

if __name__ == "__main__":
    main(BENCHMARK)
