"""Leases in a file, for the processes of one machine that share a directory."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self, TypeVar

import msgspec
from msgspec import Struct

from roomkey.backends.lmdb.file import FileSystemSettings, MappedFile, Table, Transaction, clear_errors
from roomkey.errors import Storage
from roomkey.ports import PLAIN_RECORDS, Clock, SystemClock

FORMAT: Final = b"roomkey leases 1"
TOKEN_KEY: Final = b"token"
"""Where the last token is, one count for all names, so that nothing has to be kept of a lease that is over."""

MAP_SIZE: Final = 1024 * 1024
"""Thousands of leases at a time, and a lease is per task or open document of a process."""

T = TypeVar("T")


class _Lease(Struct, frozen=True, array_like=True):
    holder: str
    token: int
    ends_at: datetime


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Lease).decode


class _Tables(NamedTuple):
    leases: Table
    meta: Table


class _Leases:
    """The leases within one transaction, which no other process can interrupt."""

    def __init__(self, transaction: Transaction, tables: _Tables, now: datetime) -> None:
        self._transaction = transaction
        self._tables = tables
        self._now = now

    def acquire(self, name: str, holder: str, lifetime: timedelta) -> int | None:
        self._forget_overdue()
        present = self._find(name)
        if present is not None and present.holder != holder:
            return None
        token = int.from_bytes(self._transaction.get(TOKEN_KEY, b"", self._tables.meta)) + 1
        self._transaction.put(TOKEN_KEY, token.to_bytes(8), db=self._tables.meta)
        self._put(name, _Lease(holder, token, self._now + lifetime))
        return token

    def renew(self, name: str, token: int, lifetime: timedelta) -> bool:
        lease = self._held(name, token)
        if lease is None:
            return False
        self._put(name, _Lease(lease.holder, token, self._now + lifetime))
        return True

    def release(self, name: str, token: int) -> bool:
        if self._held(name, token) is None:
            return False
        return self._transaction.delete(name.encode(), db=self._tables.leases)

    def _held(self, name: str, token: int) -> _Lease | None:
        lease = self._find(name)
        return lease if lease is not None and lease.token == token and self._now < lease.ends_at else None

    def _find(self, name: str) -> _Lease | None:
        value = self._transaction.get(name.encode(), db=self._tables.leases)
        return None if value is None else _decode(value)

    def _put(self, name: str, lease: _Lease) -> None:
        self._transaction.put(name.encode(), _encode(lease), db=self._tables.leases)

    def _forget_overdue(self) -> None:
        with self._transaction.cursor(self._tables.leases) as cursor:
            over = [name for name, value in cursor if _decode(value).ends_at <= self._now]
        for name in over:
            self._transaction.delete(name, db=self._tables.leases)


class FileSystemLeases:
    """
    ``ports.Leases`` in ``directory``, which is made.

    LMDB lets one process write at a time, and what a dead one had begun is undone; so of several one has the
    lease. Every change is durable when it returns, so tokens grow over every restart. Time is that of the machine.
    """

    def __init__(
        self, directory: Path, *, clock: Clock | None = None, settings: FileSystemSettings | None = None
    ) -> None:
        self._directory = directory
        self._clock = clock or SystemClock()
        self._settings = settings or FileSystemSettings(map_size=MAP_SIZE)
        self._file: MappedFile[_Tables] | None = None
        # One thread, so that closing comes after what is still under way.
        self._thread = ThreadPoolExecutor(1, "roomkey-lmdb-leases")

    async def __aenter__(self) -> Self:
        # Who does which chore is no secret, so leases are plain records.
        self._file = MappedFile(
            self._directory, self._settings, PLAIN_RECORDS, names=_Tables._fields, tables=_Tables, format=FORMAT
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        file, self._file = self._file, None
        if file is not None:
            await self._in_thread(file.close)

    async def acquire(self, name: str, holder: str, lifetime: timedelta) -> int | None:
        return await self._change(lambda leases: leases.acquire(name, holder, lifetime))

    async def renew(self, name: str, token: int, lifetime: timedelta) -> bool:
        return await self._change(lambda leases: leases.renew(name, token, lifetime))

    async def release(self, name: str, token: int) -> bool:
        return await self._change(lambda leases: leases.release(name, token))

    async def _change(self, change: Callable[[_Leases], T]) -> T:
        file = self._file
        if file is None:
            raise Storage("the leases are not open")
        return await self._in_thread(partial(self._commit, file, change))

    def _commit(self, file: MappedFile[_Tables], change: Callable[[_Leases], T]) -> T:
        with clear_errors(self._directory), file.environment.begin(write=True) as transaction:
            return change(_Leases(transaction, file.tables, self._clock.now()))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Do it beside the event loop: the disk, or another process that is writing, may take its time."""
        try:
            async with asyncio.timeout(self._settings.timeout.total_seconds()):
                return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except TimeoutError:
            raise Storage(f"{self._directory}: another process does not let go of it") from None
