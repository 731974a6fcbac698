"""How many sessions per second are on the disk, and said to be, when so many callers create them at once."""

import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from itertools import count
from typing import Final

import uvloop

from benchmarks.harness import (
    TIMES,
    Benchmark,
    Contender,
    Finding,
    Goal,
    Measures,
    Plan,
    Row,
    installed,
    interleaved,
    main,
    quantiles,
    value,
)
from benchmarks.processes import SERVER_CORE, usage_of
from roomkey import SessionManager, open_storage

CALLERS: Final = (1, 16, 256, 1024)
WANTED_RATIOS: Final = {256: 4}
"""Creates for each fsync that the disk is capable of."""
SESSIONS_PER_USER: Final = 4

FSYNC: Final = "fsync of 4 KiB"
FSYNC_BYTES: Final = 4096
MOST_FSYNCS: Final = 1000


async def _create(callers: int, seconds: float) -> Measures:
    """Create sessions in a new LMDB store until the time is over; every create returns after its fsync."""
    durations: list[float] = []
    numbers = count()
    with tempfile.TemporaryDirectory(prefix="roomkey-benchmark-") as folder:
        async with open_storage(f"lmdb://{folder}") as storage:
            sessions = SessionManager(storage)
            clock = time.perf_counter
            before, begun = usage_of(os.getpid()), clock()
            end = begun + seconds

            async def call_again_and_again() -> None:
                while (sent := clock()) < end:
                    await sessions.create_session(f"user-{next(numbers) // SESSIONS_PER_USER}")
                    durations.append(clock() - sent)

            async with asyncio.TaskGroup() as group:
                for _ in range(callers):
                    group.create_task(call_again_and_again())
            elapsed, after = clock() - begun, usage_of(os.getpid())
    cpu = after.since(before)
    return {
        "creates": (len(durations) / elapsed, "/s"),
        "CPU per create": (cpu / len(durations) * 1e6, "µs"),
        "CPU": (cpu / elapsed * 100, "%"),
        **quantiles(durations),
    }


def _fsync(seconds: float) -> Measures:
    """What the disk takes to keep a page: the floor for a lone caller."""
    durations: list[float] = []
    page = os.urandom(FSYNC_BYTES)
    with tempfile.TemporaryFile() as file:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end and len(durations) < MOST_FSYNCS:
            begun = time.perf_counter()
            os.pwrite(file.fileno(), page, 0)
            os.fsync(file.fileno())
            durations.append(time.perf_counter() - begun)
    return {"fsyncs": (len(durations) / sum(durations), "/s"), **quantiles(durations)}


def run(plan: Plan) -> Finding:
    """All numbers of callers in turns, and the disk by itself among them."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        def creating(callers: int) -> Contender:
            return lambda seconds: runner.run(_create(callers, seconds))

        found = interleaved(plan, {"fsync": _fsync} | {str(callers): creating(callers) for callers in CALLERS})
    rows = [Row(FSYNC, "the disk", found.pop("fsync"), paced=False)]
    rows += [Row(_case(int(callers)), "Roomkey, LMDB", figures, paced=False) for callers, figures in found.items()]
    goals = [
        Goal(f"durable creates per fsync of the disk, {callers} callers", _per_fsync(rows, callers), wanted, TIMES)
        for callers, wanted in WANTED_RATIOS.items()
    ]
    return Finding(rows, goals, NOTES)


def _per_fsync(rows: Sequence[Row], callers: int) -> float | None:
    creates, fsyncs = value(rows, _case(callers), "Roomkey, LMDB", "creates"), value(rows, FSYNC, "the disk", "fsyncs")
    return None if creates is None or fsyncs is None else creates / fsyncs


def _case(callers: int) -> str:
    return f"{callers:,} {'caller' if callers == 1 else 'callers'}"


NOTES: Final = [
    "A create returns after the fsync of the transaction that it is in; callers who wait share one.",
    (
        "In process, rules, token, event and indexes included, on one core. The store lies in the directory for "
        "temporary files; set TMPDIR to measure another disk."
    ),
]

BENCHMARK: Final = Benchmark(
    name="durable",
    title="Durable creates on LMDB",
    about="Sessions created per second through SessionManager with an fsync before each answer.",
    run=run,
    versions=installed("lmdb", "msgspec", "uvloop"),
    core=SERVER_CORE,
)

if __name__ == "__main__":
    main(BENCHMARK)
