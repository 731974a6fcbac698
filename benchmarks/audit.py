"""How fast the audit log is in process: recording, integrating, and a receipt from a log of ten million entries."""

import asyncio
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from random import Random
from typing import Final

import uvloop

from benchmarks.harness import (
    Benchmark,
    Finding,
    Goal,
    Measures,
    Plan,
    Row,
    figures,
    installed,
    main,
    value,
)
from benchmarks.processes import SERVER_CORE
from roomkey.audit.log import AuditLog
from roomkey.audit.merkle import leaf_hash
from roomkey.audit.opening import open_log
from roomkey.audit.settings import AuditSettings
from roomkey.audit.stored import StoredLog, Tree
from roomkey.audit.tiles import TILE_BYTES, WIDTH, Tile, bundle_of, grown, root_of
from roomkey.backends import Stores
from roomkey.backends.memory.leases import MemoryLeases
from roomkey.ports import ObjectStore
from roomkey.ports.objects import MAX_CHANGES, MAX_COMMIT_BYTES
from roomkey.testing.clock import ManualClock

ENTRY_BYTES: Final = 300
BATCH: Final = 200
"""Entries in one commit, as the recorder of a busy server brings them."""

WANTED_PER_SECOND: Final = 20_000.0
WANTED_RECEIPT_MS: Final = 5.0

LARGE: Final = 10_000_000


def _log(objects: ObjectStore) -> AuditLog:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    settings = AuditSettings(origin="benchmark.example/log", publish_interval=timedelta(seconds=1))
    return open_log(
        objects, MemoryLeases(clock), key_of=lambda _number: bytes(32), node="node", clock=clock, settings=settings
    )


async def _recorded(objects: AbstractAsyncContextManager[ObjectStore], count: int) -> Measures:
    """Record and integrate ``count`` entries, a second's worth at a time, on one core."""
    async with objects as store:
        log = _log(store)
        recording = integrating = 0.0
        for start in range(0, count, int(WANTED_PER_SECOND)):
            entries = [b"%0*d" % (ENTRY_BYTES, number) for number in range(start, min(count, start + 20_000))]
            begun = time.perf_counter()
            for first in range(0, len(entries), BATCH):
                await log.append(entries[first : first + BATCH])
            recorded = time.perf_counter()
            await log.integrate()
            recording += recorded - begun
            integrating += time.perf_counter() - recorded
    return {
        "record": (count / recording, "/s"),
        "integrate and publish": (count / integrating, "/s"),
        "both": (count / (recording + integrating), "/s"),
    }


async def _generated(objects: ObjectStore, size: int) -> AuditLog:
    """A published log of ``size`` equal entries: so all full tiles of a level are one object in memory."""
    entry = bytes(ENTRY_BYTES)
    tiles: dict[Tile, bytes] = {}
    level, count, hash = 0, size, leaf_hash(entry)
    while count:
        full = hash * WIDTH
        tiles |= dict.fromkeys((Tile(level, number) for number in range(count // WIDTH)), full)
        if count % WIDTH:
            tiles[Tile(level, count // WIDTH)] = full[: count % WIDTH * len(hash)]
        above = grown(0, {}, [hash] * WIDTH)[Tile(1, 0)]
        assert len(full) == TILE_BYTES
        level, count, hash = level + 1, count // WIDTH, above
    bundle = bundle_of([entry] * WIDTH)
    parts = dict.fromkeys(range(0, size - WIDTH + 1, WIDTH), bundle)
    if size % WIDTH:
        parts[size - size % WIDTH] = bundle_of([entry] * (size % WIDTH))
    stored = StoredLog(objects)
    await _store(stored, tiles, parts, Tree(size, root_of(size, tiles), size - size % WIDTH))
    log = _log(objects)
    await log.integrate()
    return log


async def _store(stored: StoredLog, tiles: Mapping[Tile, bytes], parts: Mapping[int, bytes], after: Tree) -> None:
    hashes, bundles = iter(tiles.items()), iter(parts.items())
    at_once = min(MAX_CHANGES // 2, MAX_COMMIT_BYTES // (TILE_BYTES + WIDTH * (ENTRY_BYTES + 2))) - 1
    while True:
        some, more = dict(islice(hashes, at_once)), dict(islice(bundles, at_once))
        if not some and not more:
            return
        await stored.integrate(await stored.tree(), after, tiles=some, parts=more, batches=())


async def _receipts(log: AuditLog, size: int, count: int) -> Measures:
    random = Random(7)
    spent: list[float] = []
    for _ in range(count):
        index = random.randrange(size)
        begun = time.perf_counter()
        await log.receipt(index)
        spent.append(time.perf_counter() - begun)
    spent.sort()
    return {"median": (1e3 * spent[count // 2], "ms"), "p99": (1e3 * spent[count * 99 // 100], "ms")}


def _stores(folder: Path) -> Mapping[str, Callable[[], AbstractAsyncContextManager[ObjectStore]]]:
    numbers = iter(range(10_000))
    return {
        "memory": lambda: Stores().objects("memory://"),
        "LMDB": lambda: Stores().objects(f"lmdb://{folder / str(next(numbers))}"),
    }


def run(plan: Plan) -> Finding:
    """Rounds of both stores in turns, then receipts from one large log."""
    count, size = plan.size(100_000, 1_000), plan.size(LARGE, 100_000)
    rounds: dict[str, list[Measures]] = {}
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        stores = _stores(Path(folder))
        for _ in range(plan.rounds):
            for name, open_store in stores.items():
                rounds.setdefault(name, []).append(runner.run(_recorded(open_store(), count)))
        log = runner.run(_generated(Stores().objects("memory://"), size))
        receipts = [runner.run(_receipts(log, size, plan.size(2_000, 50))) for _ in range(plan.rounds)]
    rows = [
        Row(command, store, {"entries": figure}, paced=False)
        for store, measured in rounds.items()
        for command, figure in figures(measured).items()
    ]
    rows += [Row(f"receipt, {name}", "memory", {"time": each}, paced=False) for name, each in figures(receipts).items()]
    goals = [
        *(
            Goal(f"recorded and integrated, {store}", value(rows, "both", store, "entries"), WANTED_PER_SECOND, "/s")
            for store in rounds
        ),
        Goal(
            f"receipt from a log of {size:,}, p99",
            value(rows, "receipt, p99", "memory", "time"),
            WANTED_RECEIPT_MS,
            "ms",
            at_least=False,
        ),
    ]
    return Finding(rows, goals, [f"{count:,} entries of {ENTRY_BYTES} bytes, {BATCH} in a commit.", *NOTES])


NOTES: Final = [
    "A second's worth is recorded, then integrated, signed and published; all of it in one process on one core.",
    "The large log has ten million equal entries: making it is cheap, and receipts read as many tiles as of any other.",
]

BENCHMARK: Final = Benchmark(
    name="audit",
    title="The audit log in process",
    about="Entries per second recorded and integrated, and the time of a receipt.",
    run=run,
    versions=installed("cryptography", "msgspec", "uvloop"),
    core=SERVER_CORE,
)

if __name__ == "__main__":
    main(BENCHMARK)
