"""Values of one use that processes share: in memory, for their owner alone."""

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from roomkey.backends.lmdb import one_time
from roomkey.backends.lmdb.one_time import FileSystemOneTime, claim, folder_in_memory, remove_from_memory
from roomkey.errors import Storage
from roomkey.ports import OneTimeLimits
from roomkey.testing.clock import ManualClock

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)

NEIGHBOUR = """
import asyncio, sys
from datetime import timedelta
from pathlib import Path
from roomkey.backends.lmdb.one_time import FileSystemOneTime
from roomkey.ports import OneTimeLimits

async def main():
    async with FileSystemOneTime(Path(sys.argv[1]), OneTimeLimits()) as values:
        taken = [await values.take(str(number)) for number in range(200)]
        print(sum(value is not None for value in taken))

asyncio.run(main())
"""


async def test_of_several_processes_each_value_is_had_by_one(tmp_path: Path) -> None:
    async with FileSystemOneTime(tmp_path, OneTimeLimits()) as values:
        for number in range(200):
            await values.add(str(number), b"value", HOUR)
        neighbours = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", NEIGHBOUR, str(tmp_path)), stdout=asyncio.subprocess.PIPE
            )
            for _ in range(2)
        ]

        mine = [await values.take(str(number)) for number in range(200)]
        theirs = [int((await process.communicate())[0]) for process in neighbours]

    assert sum(value is not None for value in mine) + sum(theirs) == 200


async def test_what_is_overdue_takes_no_room_for_ever(tmp_path: Path) -> None:
    clock = ManualClock(NOON)
    settings = one_time.FileSystemSettings(map_size=256 * 1024, durable=False)  # a hundred values fit

    async with FileSystemOneTime(tmp_path, OneTimeLimits(), clock=clock, settings=settings) as values:
        for number in range(2_000):
            await values.add(str(number), bytes(500), HOUR, owner="ada")
            clock.advance(HOUR / 20)

        assert await values.take("1999") == bytes(500)


async def test_what_is_there_outlives_the_process_that_put_it_there(tmp_path: Path) -> None:
    async with FileSystemOneTime(tmp_path, OneTimeLimits()) as values:
        await values.add("k", b"value", HOUR)

    async with FileSystemOneTime(tmp_path, OneTimeLimits()) as values:
        assert await values.take("k") == b"value"


def test_the_folder_in_memory_is_that_of_one_directory_and_one_secret(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"

    folders = [folder_in_memory(one, b"secret"), folder_in_memory(other, b"secret"), folder_in_memory(one, b"another")]

    assert len({*folders}) == 3
    assert folder_in_memory(one / ".." / "one", b"secret") == folders[0]


def test_without_shared_memory_there_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_time, "SHARED_MEMORY", tmp_path / "nowhere")

    assert folder_in_memory(tmp_path, b"secret") is None


def test_a_folder_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir(mode=0o755)

    with pytest.raises(Storage, match="others may read it"):
        claim(open_to_all)


def test_a_folder_that_is_a_link_to_one_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")

    with pytest.raises(Storage):
        claim(tmp_path / "link")


def test_a_folder_that_is_claimed_belongs_to_its_owner_alone_until_it_is_removed(tmp_path: Path) -> None:
    claim(tmp_path / "new")
    claim(tmp_path / "new")
    mode = (tmp_path / "new").stat().st_mode & 0o777

    remove_from_memory(tmp_path / "new")
    remove_from_memory(tmp_path / "new")

    assert mode == 0o700
    assert not (tmp_path / "new").exists()
