"""The supervisor, with workers that die, hang and refuse as a test wants it."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from tests.support import supervised

PATIENCE_SECONDS = 20


class Supervised:
    """A supervisor in a process of its own, and its words."""

    def __init__(self, process: Process, notes: Path) -> None:
        self.process = process
        self.notes = notes

    async def says(self) -> list[str]:
        """The words of its next line."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            return (await self.process.stdout.readline()).decode().split()

    async def ends(self) -> tuple[int, list[str]]:
        """Its exit code, and all that it still said."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            rest = await self.process.stdout.read()
            return await self.process.wait(), rest.decode().splitlines()


@asynccontextmanager
async def supervising(behaviour: str, folder: Path, *, workers: int = 2) -> AsyncGenerator[Supervised]:
    notes = folder / "notes"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, supervised.__file__, behaviour, str(workers), str(notes)), stdout=PIPE
    )
    try:
        yield Supervised(process, notes)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def running(pids: list[str]) -> list[str]:
    """Those of the processes that are there, even if only to be buried."""
    return [pid for pid in pids if psutil.pid_exists(int(pid))]


async def test_what_one_worker_cannot_do_no_worker_is_asked_for_again(tmp_path: Path) -> None:
    async with supervising("refuse", tmp_path, workers=3) as boss:
        code, said = await boss.ends()

    assert (code, said) == (2, ["refused it cannot be"])


async def test_it_gives_up_if_no_worker_ever_gets_ready(tmp_path: Path) -> None:
    async with supervising("die", tmp_path) as boss:
        code, said = await boss.ends()

    deaths, last = said[:-1], said[-1]
    assert code == 3
    assert last.startswith("never ready:")
    assert "exit code 7" in last
    assert set(deaths) == {"worker_died exit code 7"}
    assert 5 <= len(deaths) <= 2 * 3 + 1


async def test_a_worker_that_does_not_get_ready_is_killed(tmp_path: Path) -> None:
    async with supervising("sleep", tmp_path, workers=1) as boss:
        code, said = await boss.ends()

    assert code == 3
    assert said[:2] == ["worker_killed not ready", "worker_died signal 9"]


async def test_one_that_dies_at_first_does_not_keep_the_others_from_being_announced_once(tmp_path: Path) -> None:
    async with supervising("first-dies", tmp_path) as boss:
        said = [await boss.says(), await boss.says()]
        boss.process.terminate()
        code, rest = await boss.ends()

    assert sorted(words[0] for words in said) == ["ready", "worker_died"]
    assert code == 0
    assert not any(line.startswith("ready") for line in rest)


async def test_workers_that_do_not_end_are_killed(tmp_path: Path) -> None:
    async with supervising("hang", tmp_path) as boss:
        _, *pids = await boss.says()
        boss.process.terminate()
        code, said = await boss.ends()

    assert code == 1
    assert said == ["worker_killed it did not end"] * 2
    assert running(pids) == []


async def test_workers_learn_that_their_supervisor_was_killed(tmp_path: Path) -> None:
    async with supervising("serve", tmp_path) as boss:
        _, *pids = await boss.says()
        boss.process.kill()
        await boss.ends()  # their ends of the pipe are closed when they have ended
        told = boss.notes.read_text().split()

    assert told == ["ORPHANED", "ORPHANED"]
    assert len(pids) == 2


async def test_a_paused_worker_is_killed_by_a_second_signal(tmp_path: Path) -> None:
    async with supervising("serve", tmp_path, workers=1) as boss:
        _, pid = await boss.says()
        os.kill(int(pid), signal.SIGSTOP)
        boss.process.terminate()
        boss.process.send_signal(signal.SIGINT)  # another one, as two of the same kind at the same time are one
        code, said = await boss.ends()

    assert code == 1
    assert said == ["worker_killed it did not end"]
    assert running([pid]) == []


async def test_a_worker_that_hangs_ends_all_the_same_when_its_supervisor_is_killed(tmp_path: Path) -> None:
    async with supervising("hang", tmp_path) as boss:
        await boss.says()
        boss.process.kill()

        await boss.ends()  # which it does when nobody has the pipe any more
