"""A document of a million single-character edits: how long it takes to load, before and after it is compacted."""

import asyncio
import os
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import uvloop
from pycrdt import Doc, Text, TransactionEvent

from benchmarks.editing import ROOT
from benchmarks.harness import Benchmark, Figure, Finding, Goal, Plan, Row, installed, main, value
from benchmarks.httpload import Unexpected
from benchmarks.processes import SERVER_CORE, usage_of
from roomkey.backends import open_documents
from roomkey.documents.maintenance import Maintenance
from roomkey.documents.open_documents import OpenDocuments, assemble
from roomkey.ports import Author, DocumentRecord, DocumentStore, DocumentUpdate, SystemClock

NAME: Final = "typed"

EDITS: Final = 1_000_000
QUICK_EDITS: Final = 2_000
AUTHORS: Final = 10
PARAGRAPH: Final = 200
"""After so many letters the author puts the cursor to another place."""

BATCH: Final = 1_000
WANTED_MILLISECONDS: Final = 1_000

BEFORE: Final = "before compaction"
AFTER: Final = "after compaction"


# --- the document ---------------------------------------------------------------------------------------


def _type(edits: int) -> Iterator[tuple[int, bytes]]:
    """Letters that authors type one after the other at random places of one text: author and update of each."""
    numbers = random.Random(1)  # the same document each time
    state = b"\x00\x00"
    for author in range(AUTHORS):
        document: Doc[Any] = Doc(client_id=author + 1)
        document.apply_update(state)
        text = document.get(ROOT, type=Text)
        updates: list[bytes] = []

        def note(event: TransactionEvent, updates: list[bytes] = updates) -> None:
            updates.append(event.update)

        document.observe(note)
        cursor = 0
        for typed in range(edits // AUTHORS):
            if typed % PARAGRAPH == 0:
                cursor = numbers.randint(0, len(text))
            text.insert(cursor, "abcdefghij"[author])
            cursor += 1
            yield author, updates.pop()
        state = document.get_update()


async def _write(store: DocumentStore, edits: int) -> None:
    """The letters as they lie there when everybody has typed, and nobody has tidied up yet."""
    now = SystemClock().now()
    lineage = (await store.create(NAME, "history", now)).lineage
    batch: list[DocumentUpdate] = []
    for author, update in _type(edits):
        batch.append(DocumentUpdate(update, Author(f"user:{author}", user=str(author)), now))
        if len(batch) == BATCH:
            await store.append(NAME, lineage, batch)
            batch.clear()
    if batch:
        await store.append(NAME, lineage, batch)


# --- what is measured -----------------------------------------------------------------------------------


async def _load(store: DocumentStore, edits: int, rounds: int) -> list[float]:
    """
    Seconds from the question for the document until it can be used, again and again.

    Raises:
        Unexpected: If something is missing in it.
    """
    durations: list[float] = []
    for _ in range(rounds):
        begun = time.perf_counter()
        stored = await store.load(NAME)
        assert stored is not None
        replica = await assemble(stored)
        durations.append(time.perf_counter() - begun)
        if (length := len(replica.doc.get(ROOT, type=Text))) != edits:
            raise Unexpected(f"{length} letters were loaded instead of {edits}")
    return durations


async def _record(store: DocumentStore) -> DocumentRecord:
    record = await store.find(NAME)
    assert record is not None
    return record


async def _measure(edits: int, rounds: int) -> dict[str, dict[str, Figure]]:
    found: dict[str, dict[str, Figure]] = {}
    with tempfile.TemporaryDirectory(prefix="roomkey-benchmark-") as folder:
        async with open_documents(f"lmdb://{folder}") as store:
            await _write(store, edits)
            maintenance = Maintenance(OpenDocuments(store, clock=SystemClock()))
            for moment in (BEFORE, AFTER):
                record = await _record(store)
                found[moment] = {
                    "load": Figure([seconds * 1e3 for seconds in await _load(store, edits, rounds)], "ms"),
                    "log": Figure([record.log_bytes / 1e6], "MB"),
                    "snapshot": Figure([record.snapshot_bytes / 1e6], "MB"),
                    "peak memory of the process": Figure([usage_of(os.getpid()).peak / 1e6], "MB"),
                }
                if moment == BEFORE:
                    begun = time.perf_counter()
                    await maintenance.compact(record)
                    found["compaction"] = {"takes": Figure([time.perf_counter() - begun], "s")}
            found["compaction"]["on the disk"] = Figure([_bytes_in(folder) / 1e6], "MB")
    return found


def _bytes_in(folder: str) -> int:
    return sum(path.stat().st_blocks * 512 for path in Path(folder).rglob("*") if path.is_file())


def run(plan: Plan) -> Finding:
    """Write the document, load it, compact it, and load it again."""
    edits = plan.size(EDITS, QUICK_EDITS)
    case = f"{edits:,} edits"
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(_measure(edits, plan.rounds))
    rows = [Row(case, side, measured) for side, measured in found.items()]
    load = value(rows, case, AFTER, "load")
    return Finding(rows, [Goal(f"{case}: load {AFTER}", load, WANTED_MILLISECONDS, "ms", at_least=False)], NOTES)


NOTES: Final = [
    (
        f"{AUTHORS} authors, one after the other, type single letters at random places, {PARAGRAPH} in a row at each. "
        "Every letter is an update of its own with author and time, as an editor sends it."
    ),
    "In process, from LMDB until the document can be joined. All text is counted after every load.",
    "A server that runs compacts long before there are so many; see `documents.compact_updates`.",
]

BENCHMARK: Final = Benchmark(
    name="compaction",
    title="A million edits, compacted",
    about="The time to load a document from LMDB, and its size, before and after its log is merged.",
    run=run,
    versions=installed("lmdb", "pycrdt"),
    core=SERVER_CORE,
)

if __name__ == "__main__":
    main(BENCHMARK)
