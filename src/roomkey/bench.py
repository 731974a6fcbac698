"""The benchmark of ``roomkey bench``: creating, reading, changing and deleting sessions in process."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from time import perf_counter
from typing import Final, TypeVar

from msgspec import Struct

from roomkey.backends import open_storage
from roomkey.sessions.manager import SessionManager

STORAGES: Final = ("memory", "file")

SESSIONS_PER_USER: Final = 4

T = TypeVar("T")


class Measurement(Struct, frozen=True, kw_only=True):
    """Seconds that ``count`` commands of one kind took, called by ``callers`` tasks at the same time."""

    storage: str
    command: str
    count: int
    callers: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Commands per second."""
        return self.count / self.seconds


async def measure(storage: str, count: int) -> list[Measurement]:
    """
    Create, read, change and delete ``count`` sessions in a new ``memory`` or ``file`` storage.

    The whole command is measured: rules, token, event and indexes included. One caller suffices for memory;
    in a file the commits of 256 callers share a write to the disk, as those of many connections do.
    """
    with tempfile.TemporaryDirectory(prefix="roomkey-bench-") as folder:
        url = "memory://" if storage == "memory" else f"lmdb://{folder}"
        callers = 1 if storage == "memory" else 256
        async with open_storage(url) as opened:
            return await _measure(SessionManager(opened), storage, count, callers)


async def _measure(sessions: SessionManager, storage: str, count: int, callers: int) -> list[Measurement]:
    users = [f"user-{number // SESSIONS_PER_USER}" for number in range(count)]
    ids = [(await sessions.create_session(user)).id for user in users[:100]]
    for id in ids:  # the first ones warm up and do not count
        await sessions.delete_session(id)
    ids.clear()

    async def create(user: str) -> None:
        ids.append((await sessions.create_session(user)).id)

    results: list[Measurement] = []

    async def timed(command: str, call: Callable[[T], Awaitable[object]], arguments: Iterable[T]) -> None:
        seconds = await _run(call, arguments, callers)
        results.append(Measurement(storage=storage, command=command, count=count, callers=callers, seconds=seconds))

    await timed("create", create, users)
    await timed("get", sessions.get_session, ids)
    await timed("update", sessions.activate_session, ids)
    await timed("delete", sessions.delete_session, ids)
    return results


async def _run(call: Callable[[T], Awaitable[object]], arguments: Iterable[T], callers: int) -> float:
    remaining = iter(list(arguments))

    async def work() -> None:
        for argument in remaining:
            await call(argument)

    begun = perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(work())
    return perf_counter() - begun
