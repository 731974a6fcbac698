"""On a full disk writes fail with a clear error, reads go on, and writes succeed when there is room again."""

import asyncio
import resource
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from roomkey.backends.lmdb import FileSystemSessionStorage, FileSystemSettings
from roomkey.domain.session import SessionFilter, SessionState, Suspended
from roomkey.errors import Storage
from roomkey.testing.storage import disagreements, issue
from roomkey.testing.storage.suite import MINUTE, NOON, ROOMY, change, everything, found, store
from tests.support.disks import fill, small_disk
from tests.support.lmdb_file import index_faults

SETTINGS = FileSystemSettings(map_size=256 * 1024, flush_interval=timedelta(milliseconds=5))


async def test_a_file_that_may_not_grow_refuses_writes_and_goes_on_reading(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "data.mdb").stat().st_size, hard))

    def make_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    try:
        await refuse_and_recover(tmp_path, fill, make_room, "file too large")
    finally:
        make_room()


async def test_a_full_disk_refuses_writes_and_goes_on_reading(tmp_path: Path) -> None:
    with small_disk(tmp_path, "2m"):
        ballast = tmp_path / "ballast"

        await refuse_and_recover(tmp_path, lambda: fill(ballast), ballast.unlink, "no space left on device")


async def refuse_and_recover(
    directory: Path, fill: Callable[[], None], make_room: Callable[[], None], reason: str
) -> None:
    async with FileSystemSessionStorage(directory, SETTINGS) as storage:
        sessions = [await store(storage, f"user-{number}", active=True) for number in range(20)]
        fill()

        refused = await writes_until_refused(storage)
        assert str(refused) in {f"{directory}: {reason}", f"{directory}: the disk is full or does not work"}
        outcomes = await asyncio.gather(
            *(storage.create([issue("late", metadata={"x": "y" * 4000})], ROOMY, NOON) for _ in range(50)),
            return_exceptions=True,
        )
        assert {type(outcome) for outcome in outcomes} == {Storage}
        with pytest.raises(Storage, match=f"{reason}|full or does not work"):
            await storage.ping()
        await storage.touch(sessions[0].id, NOON + MINUTE)
        assert (await found(storage, sessions[0].id)).last_seen_at == NOON + MINUTE
        assert await storage.get_many([session.id for session in sessions[1:]]) == sessions[1:]
        assert await everything(storage, SessionFilter(user_id="late")) == []
        assert await disagreements(storage) == []

        make_room()
        await storage.ping()
        await change(storage, sessions[1], Suspended, NOON)
        await storage.create([issue("late") for _ in range(50)], ROOMY, NOON)

        assert await storage.count(SessionFilter(user_id="late")) == 50
        assert await storage.count(SessionFilter(state=SessionState.SUSPENDED)) == 1
        assert await disagreements(storage) == []
    assert index_faults(directory) == []
    async with FileSystemSessionStorage(directory, SETTINGS) as storage:
        assert (await found(storage, sessions[0].id)).last_seen_at == NOON + MINUTE


async def writes_until_refused(storage: FileSystemSessionStorage) -> Storage:
    """Write into the pages that are still free, until there are none."""
    for number in range(1000):
        try:
            await storage.create([issue(f"filler-{number}", metadata={"x": "y" * 4000})], ROOMY, NOON)
        except Storage as error:
            return error
    raise AssertionError("the disk is not full")
