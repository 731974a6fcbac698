"""Leases of processes that share a directory."""

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from roomkey.backends.lmdb import FileSystemSessionStorage, FileSystemSettings
from roomkey.backends.lmdb.leases import FileSystemLeases
from roomkey.errors import Storage
from roomkey.testing.clock import ManualClock

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)

NEIGHBOUR = """
import asyncio, sys
from datetime import timedelta
from pathlib import Path
from roomkey.backends.lmdb.leases import FileSystemLeases

async def main():
    async with FileSystemLeases(Path(sys.argv[1])) as leases:
        print(await leases.acquire("janitor", sys.argv[2], timedelta(hours=1)), flush=True)
        sys.stdin.readline()

asyncio.run(main())
"""


async def neighbour(directory: Path, holder: str) -> tuple[asyncio.subprocess.Process, str]:
    """Another process that asks for the lease and stays, and what it was answered."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", NEIGHBOUR, str(directory), holder),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    return process, (await process.stdout.readline()).decode().strip()


async def test_of_several_processes_one_has_the_lease(tmp_path: Path) -> None:
    neighbours = await asyncio.gather(*(neighbour(tmp_path / "leases", f"node {number}") for number in range(3)))
    async with FileSystemLeases(tmp_path / "leases") as leases:
        mine = await leases.acquire("janitor", "me", HOUR)
    for process, _ in neighbours:
        await process.communicate(b"\n")

    assert sorted(answer for _, answer in neighbours) == ["1", "None", "None"]
    assert mine is None


async def test_a_holder_that_was_killed_loses_the_lease_when_its_time_is_over(tmp_path: Path) -> None:
    process, token = await neighbour(tmp_path / "leases", "killed")
    process.kill()
    await process.communicate()
    clock = ManualClock(datetime.now(UTC))

    async with FileSystemLeases(tmp_path / "leases", clock=clock) as leases:
        before = await leases.acquire("janitor", "me", HOUR)
        clock.advance(2 * HOUR)
        after = await leases.acquire("janitor", "me", HOUR)

    assert before is None
    assert (token, after) == ("1", 2)


async def test_a_directory_of_something_else_is_not_touched(tmp_path: Path) -> None:
    async with FileSystemSessionStorage(tmp_path / "sessions"):
        pass

    with pytest.raises(Storage):
        async with FileSystemLeases(tmp_path / "sessions"):
            pass


async def test_leases_that_are_not_open_are_none(tmp_path: Path) -> None:
    leases = FileSystemLeases(tmp_path / "leases")

    with pytest.raises(Storage):
        await leases.acquire("janitor", "me", HOUR)


async def test_nothing_is_left_of_leases_that_are_over(tmp_path: Path) -> None:
    clock = ManualClock(NOON)
    settings = FileSystemSettings(map_size=64 * 1024, durable=False)  # a few hundred leases fit

    async with FileSystemLeases(tmp_path / "leases", clock=clock, settings=settings) as leases:
        for number in range(2_000):
            assert await leases.acquire(f"document:{number}", "me", HOUR) == number + 1
            clock.advance(HOUR / 20)
