"""Killed at any moment or on a full disk, a store has every update that it acknowledged, and nothing by halves."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from roomkey.backends.lmdb import FileSystemSettings
from roomkey.backends.lmdb.documents import FileSystemDocumentStore
from roomkey.errors import Storage
from roomkey.ports import DocumentStore
from roomkey.testing.documents.suite import loaded, log_of, make, names_in, update, updates, was_deleted
from tests.support.document_file import document_faults
from tests.support.effort import repeats

KILLS = repeats(3, nightly=8)


class Acknowledged(NamedTuple):
    """An update that was appended, as the child knew before it died; a deletion has the number 0."""

    document: str
    lineage: str
    number: int
    word: str


async def test_nothing_acknowledged_is_lost_however_often_the_process_is_killed(tmp_path: Path) -> None:
    random = Random()  # another moment each time the test is run
    reports: list[Acknowledged] = []

    for life in range(KILLS):
        # So many reports, and then the process dies in the middle of what it is doing.
        reports += killed_after(tmp_path, life, random.randrange(1, 4000))

        assert document_faults(tmp_path) == []
        async with FileSystemDocumentStore(tmp_path) as store:
            assert await lost(store, reports) == []
            for name in await names_in(store, limit=500):
                await loaded(store, name)


def killed_after(directory: Path, life: int, lines: int) -> list[Acknowledged]:
    """What a child reported until it was killed, which is at once after that many lines."""
    command = [sys.executable, "-m", "tests.support.document_crash_child", str(directory), str(life)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as child:
        assert child.stdout is not None
        reported = [child.stdout.readline() for _ in range(lines)]
        os.kill(child.pid, signal.SIGKILL)
        reported += child.stdout.readlines()
        assert child.wait() == -signal.SIGKILL
    # The last line may be cut in the middle.
    rows = [line.decode().split() for line in reported if line.endswith(b"\n")]
    return [Acknowledged(name, lineage, int(number), word) for name, lineage, number, word in rows]


async def lost(store: DocumentStore, reports: Sequence[Acknowledged]) -> list[Acknowledged]:
    """What was acknowledged and is not at its place, in documents that nobody deleted."""
    words: dict[tuple[str, str], list[str]] = {}
    for name in await names_in(store, limit=500):
        document = await loaded(store, name)
        content = (document.snapshot or b"") + b"".join(each.data for each in document.updates)
        words[name, document.record.lineage] = content.decode().split()
    missing: list[Acknowledged] = []
    for report in reports:
        known = words.get((report.document, report.lineage))
        if report.number == 0 or known is None:
            is_there = await was_deleted(store, report.document, report.lineage)
        else:
            is_there = known[report.number - 1 : report.number] == [report.word]
        if not is_there:
            missing.append(report)
    return missing


async def test_a_file_that_may_not_grow_refuses_writes_and_goes_on_reading(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    large = update(bytes(2**20))

    try:
        async with FileSystemDocumentStore(tmp_path, FileSystemSettings(map_size=256 * 1024)) as store:
            await make(store, updates=updates(5))
            resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "data.mdb").stat().st_size, hard))

            outcomes = await asyncio.gather(
                *(store.append("notes", "first", [large]) for _ in range(5)),
                store.compact("notes", "first", snapshot=large.data, upto=3, authorship=b""),
                return_exceptions=True,
            )
            assert {type(outcome) for outcome in outcomes} == {Storage}
            with pytest.raises(Storage):
                await store.ping()
            assert await log_of(store) == updates(5)
            assert await names_in(store) == ["notes"]

            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            await store.ping()
            assert await store.append("notes", "first", [large]) == 6
            assert await log_of(store) == [*updates(5), large]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert document_faults(tmp_path) == []
