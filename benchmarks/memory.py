"""What a session costs in memory with every index on, and whether commands stay as fast while sessions become many."""

import asyncio
import gc
import os
import random
import subprocess
import sys
import time
from typing import Final

import msgspec
import uvloop
from msgspec import Struct

from benchmarks.harness import (
    FLAT,
    TIMES,
    Benchmark,
    Figure,
    Finding,
    Goal,
    Plan,
    Row,
    find,
    installed,
    main,
    ratio,
    value,
)
from benchmarks.processes import SERVER_CORE, usage_of
from roomkey import SessionManager
from roomkey.backends.memory import MemorySessionStorage
from roomkey.domain.session import SessionId

SESSIONS_PER_USER: Final = 4
SIZES: Final = (1_000, 100_000, 1_000_000)
WANTED_BYTES: Final = 600

BATCHES: Final = 20
BATCH: Final = 500
CHILD_SECONDS: Final = 300


class Level(Struct, frozen=True):
    """What was found when so many sessions were there."""

    sessions: int
    bytes_each: float
    create_seconds: list[float]
    get_seconds: list[float]


async def fill(sizes: list[int]) -> list[Level]:
    """Create sessions, and stop at each size to measure."""
    sessions = SessionManager(MemorySessionStorage())
    await _create(sessions, ["warm-up"])
    before = _resident()
    levels: list[Level] = []
    sample: list[SessionId] = []
    number = 0
    for size in sizes:
        step = max(size // 10_000, 1)
        while number < size:
            issued = await sessions.create_session(f"user-{number // SESSIONS_PER_USER}")
            if number % 2:
                await sessions.activate_session(issued.id)
            if number % step == 0:
                sample.append(issued.id)
            number += 1
        resident = _resident()
        levels.append(
            Level(size, (resident - before) / size, await _time_creates(sessions), await _time_gets(sessions, sample))
        )
    return levels


def _resident() -> int:
    gc.collect()
    return usage_of(os.getpid()).resident


async def _create(sessions: SessionManager, users: list[str]) -> list[SessionId]:
    return [(await sessions.create_session(user)).id for user in users]


async def _time_creates(sessions: SessionManager) -> list[float]:
    """Seconds for one create, batch by batch; what was created is deleted again."""
    found: list[float] = []
    for batch in range(BATCHES):
        users = [f"guest-{batch}-{number // SESSIONS_PER_USER}" for number in range(BATCH)]
        begun = time.perf_counter()
        ids = await _create(sessions, users)
        found.append((time.perf_counter() - begun) / BATCH)
        for id in ids:
            await sessions.delete_session(id)
    return found


async def _time_gets(sessions: SessionManager, sample: list[SessionId]) -> list[float]:
    """Seconds for one get, batch by batch, of sessions from everywhere."""
    found: list[float] = []
    for _ in range(BATCHES):
        ids = random.choices(sample, k=BATCH)
        begun = time.perf_counter()
        for id in ids:
            await sessions.get_session(id)
        found.append((time.perf_counter() - begun) / BATCH)
    return found


def run(plan: Plan) -> Finding:
    """Fill a fresh process, for memory that others used before must not be counted or reused."""
    sizes = [200, 2_000] if plan.quick else list(SIZES)
    command = [sys.executable, "-m", "benchmarks.memory", "--fill", *map(str, sizes)]
    child = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=CHILD_SECONDS)
    levels = msgspec.json.decode(child.stdout, type=list[Level])
    rows = [
        Row(
            f"{level.sessions:,} sessions",
            "Roomkey",
            {
                "memory per session": Figure([level.bytes_each], "B"),
                "create": Figure([seconds * 1e6 for seconds in level.create_seconds], "µs"),
                "get": Figure([seconds * 1e6 for seconds in level.get_seconds], "µs"),
            },
        )
        for level in levels
    ]
    most = rows[-1].case
    goals = [
        Goal(
            f"memory per session at {most}",
            value(rows, most, "Roomkey", "memory per session"),
            WANTED_BYTES,
            "B",
            at_least=False,
        ),
        *(
            Goal(
                f"{most}: {command}, against {rows[0].case}",
                ratio(find(rows, most, "Roomkey"), rows[0], command),
                FLAT,
                TIMES,
                at_least=False,
            )
            for command in ("create", "get")
        ),
    ]
    return Finding(rows, goals, NOTES)


NOTES: Final = [
    (
        "Memory is the growth of the process's resident set, after a collection of garbage, divided by the sessions: "
        "records, indexes, deadlines and the event log, which is a ring of 131,072 events and makes sessions look "
        "dearer while they are few."
    ),
    f"{SESSIONS_PER_USER} sessions per user; every second one is active, the others are pending.",
    f"Flat means at most {FLAT:g} times as dear, for caches get colder.",
    f"Speeds are medians of {BATCHES} batches of {BATCH}; the sessions that are read are chosen at random.",
]

BENCHMARK: Final = Benchmark(
    name="memory",
    title="Memory per session, and cost as sessions become many",
    about="Resident memory and the time of create and get from a thousand to a million sessions in memory.",
    run=run,
    versions=installed("msgspec"),
    core=SERVER_CORE,
)

if __name__ == "__main__":
    if sys.argv[1:2] == ["--fill"]:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(fill([int(size) for size in sys.argv[2:]]))
        sys.stdout.buffer.write(msgspec.json.encode(found))
    else:
        main(BENCHMARK)
