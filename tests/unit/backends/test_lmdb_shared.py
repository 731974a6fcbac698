"""What processes on one directory share besides it, and how they know of one another."""

import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE
from datetime import UTC, datetime
from pathlib import Path

import pytest

from roomkey.backends import SharedSettings, open_shared
from roomkey.backends.lmdb import one_time
from roomkey.backends.lmdb.processes import Processes
from roomkey.ports import OneTimeLimits, SharedState
from roomkey.testing.clock import ManualClock
from tests.unit.backends.test_lmdb_one_time import HOUR

SERVER = """
import sys
from pathlib import Path
from roomkey.backends.lmdb.processes import Processes

processes = Processes(Path(sys.argv[1]))
processes.join("theirs")
print("joined", flush=True)
sys.stdin.readline()
"""


def shared(url: str) -> SharedState:
    clock = ManualClock(datetime(2026, 1, 2, 12, tzinfo=UTC))
    limits = OneTimeLimits(entries=10)
    return open_shared(url, SharedSettings(tickets=limits, answers=limits, clock=clock, secret=b"secret"))


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The memory of a machine of the test's own."""
    folder = tmp_path / "memory"
    folder.mkdir()
    monkeypatch.setattr(one_time, "SHARED_MEMORY", folder)
    return folder


def content_of(folder: Path) -> list[Path]:
    return [*folder.iterdir()]


def test_processes_know_of_one_another_until_they_leave(tmp_path: Path) -> None:
    one, other = Processes(tmp_path), Processes(tmp_path)
    alone = one.others()
    one.join("one")
    other.join("other")

    seen = [one.others(), other.others(), Processes(tmp_path).others()]
    last = [one.leave(), other.others() == [], other.leave()]

    assert alone == []
    assert [[name.split()[0] for name in names] for names in seen] == [["other"], ["one"], ["one", "other"]]
    assert last == [False, True, True]


async def test_a_process_that_was_killed_is_not_taken_for_alive(tmp_path: Path) -> None:
    process = await create_subprocess_exec(sys.executable, "-c", SERVER, str(tmp_path), stdin=PIPE, stdout=PIPE)
    assert process.stdout is not None
    await process.stdout.readline()
    alive = Processes(tmp_path).others()

    process.kill()
    await process.communicate()

    assert alive == [f"theirs (process {process.pid})"]
    assert Processes(tmp_path).others() == []


async def test_tickets_and_answers_are_two_things_and_go_with_the_last_process(tmp_path: Path, memory: Path) -> None:
    state = shared(f"lmdb://{tmp_path}/data")
    await state.join("one")
    await state.tickets.add("k", b"ticket", HOUR)

    other = await state.answers.add("k", b"answer", HOUR)
    ticket = await state.tickets.take("k")
    there = content_of(memory)
    await state.leave()

    assert (other, ticket) == (None, b"ticket")
    assert (state.is_complete, len(there)) == (True, 1)
    assert content_of(memory) == []


async def test_as_long_as_another_process_is_there_they_stay(tmp_path: Path, memory: Path) -> None:
    state, other = shared(f"lmdb://{tmp_path}/data"), Processes(tmp_path / "data")
    await state.join("one")
    other.join("other")

    await state.leave()
    left = content_of(memory)
    other.leave()

    assert len(left) == 1


async def test_a_machine_without_shared_memory_has_tickets_of_each_process_alone_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_time, "SHARED_MEMORY", tmp_path / "nowhere")
    state = shared(f"lmdb://{tmp_path}/data")
    await state.join("one")
    await state.tickets.add("k", b"ticket", HOUR)

    ticket = await state.tickets.take("k")
    await state.leave()

    assert (ticket, state.is_complete) == (b"ticket", False)


async def test_in_memory_a_node_is_alone() -> None:
    state = shared("memory://")
    await state.join("one")

    assert (state.others(), state.is_complete) == ([], True)
