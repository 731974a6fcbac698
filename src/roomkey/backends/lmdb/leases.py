"""Leases in a file, for the processes of one machine that share a directory."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self, TypeVar

import msgspec
from msgspec import Struct

from roomkey.backends.lmdb.file import FileSystemSettings, Table, Transaction
from roomkey.backends.lmdb.short_transactions import ShortTransactions
from roomkey.ports import Clock, SystemClock

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

    Of several processes one has the lease, because ``ShortTransactions`` see one another. Every change is durable when
    it returns, so tokens grow over every restart. Time is that of the machine.
    """

    def __init__(
        self, directory: Path, *, clock: Clock | None = None, settings: FileSystemSettings | None = None
    ) -> None:
        self._clock = clock or SystemClock()
        self._file = ShortTransactions(
            directory,
            settings or FileSystemSettings(map_size=MAP_SIZE),
            names=_Tables._fields,
            tables=_Tables,
            format=FORMAT,
        )

    async def __aenter__(self) -> Self:
        self._file.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._file.close()

    async def acquire(self, name: str, holder: str, lifetime: timedelta) -> int | None:
        return await self._change(lambda leases: leases.acquire(name, holder, lifetime))

    async def renew(self, name: str, token: int, lifetime: timedelta) -> bool:
        return await self._change(lambda leases: leases.renew(name, token, lifetime))

    async def release(self, name: str, token: int) -> bool:
        return await self._change(lambda leases: leases.release(name, token))

    async def _change(self, change: Callable[[_Leases], T]) -> T:
        return await self._file.change(
            lambda transaction, tables: change(_Leases(transaction, tables, self._clock.now()))
        )
