"""
Values of one use that the processes of one machine share.

They are in a file in the machine's memory, which no disk has to be waited for, and which a restart of the machine
empties: a ticket lives for seconds, and the answers that idempotency keys stand for contain tokens, which must not
get to a disk.
"""

import hmac
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from shutil import rmtree
from types import TracebackType
from typing import Final, NamedTuple, Self, TypeVar

import msgspec
from msgspec import Struct

from roomkey.backends.lmdb.file import FileSystemSettings, Table, Transaction, clear_errors
from roomkey.backends.lmdb.short_transactions import ShortTransactions
from roomkey.errors import Storage
from roomkey.ports import Clock, OneTimeLimits, SystemClock

FORMAT: Final = b"roomkey values of one use 1"

SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108  # what is made there belongs to its owner alone, or is not used
"""Where Linux has files that are in memory only."""

MAP_BYTES: Final = 64 * 1024 * 1024
"""What is reserved besides four times the bytes that values may have. It takes no room."""

ENTRY_OVERHEAD_BYTES: Final = 1024
"""What an entry costs besides its value, generously: so that many small ones are bounded, too."""

FORGOTTEN_AT_A_TIME: Final = 100
"""More than one is added at a time, so what is overdue never piles up."""

TOTALS_KEY: Final = b"totals"

T = TypeVar("T")

_TOTALS: Final = struct.Struct(">QQQ")
_NUMBER: Final = struct.Struct(">Q")
_DEADLINE: Final = struct.Struct(">QQ")


class _Entry(Struct, frozen=True, array_like=True):
    number: int
    value: bytes
    ends_at: int
    """Microseconds, as all times here."""
    owner: bytes
    is_pinned: bool

    @property
    def size(self) -> int:
        return ENTRY_OVERHEAD_BYTES + len(self.value)


class _Totals(NamedTuple):
    last_number: int = 0
    entries: int = 0
    bytes: int = 0


class _Tables(NamedTuple):
    """
    ``entries`` by the hash of the key. The others lead to those hashes: ``ages`` by number, ``owners`` by the hash of
    the owner and number, ``deadlines`` by time and number.
    """

    entries: Table
    ages: Table
    owners: Table
    deadlines: Table
    meta: Table


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Entry).decode


class _Values:
    """The values within one transaction."""

    def __init__(self, transaction: Transaction, tables: _Tables, limits: OneTimeLimits, now: int) -> None:
        self._transaction = transaction
        self._tables = tables
        self._limits = limits
        self._now = now
        stored = transaction.get(TOTALS_KEY, db=tables.meta)
        self._totals = _Totals() if stored is None else _Totals(*_TOTALS.unpack(stored))

    def add(self, key: bytes, value: bytes, lifetime: int, owner: bytes, *, pinned: bool) -> bytes | None:
        self._forget_overdue()
        present = self._find(key)
        if present is not None:
            if self._now < present.ends_at:
                return present.value
            self._forget(key, present)
        self._keep(key, _Entry(self._totals.last_number + 1, value, self._now + lifetime, owner, pinned))
        return None

    def take(self, key: bytes, expected: bytes | None) -> _Entry | None:
        present = self._find(key)
        if present is None or expected not in (None, present.value):
            return None
        self._forget(key, present)
        return present if self._now < present.ends_at else None

    def replace(self, key: bytes, expected: bytes, value: bytes, lifetime: int) -> bool:
        former = self.take(key, expected)
        if former is None:
            return False
        number = self._totals.last_number + 1
        self._keep(key, _Entry(number, value, self._now + lifetime, former.owner, is_pinned=False))
        return True

    def close(self) -> None:
        self._transaction.put(TOTALS_KEY, _TOTALS.pack(*self._totals), db=self._tables.meta)

    def _find(self, key: bytes) -> _Entry | None:
        stored = self._transaction.get(key, db=self._tables.entries)
        return None if stored is None else _decode(stored)

    def _keep(self, key: bytes, entry: _Entry) -> None:
        number = _NUMBER.pack(entry.number)
        put, tables = self._transaction.put, self._tables
        put(key, _encode(entry), db=tables.entries)
        put(number, key, db=tables.ages)
        put(_DEADLINE.pack(entry.ends_at, entry.number), key, db=tables.deadlines)
        if entry.owner:
            put(entry.owner + number, key, db=tables.owners)
        self._totals = _Totals(entry.number, self._totals.entries + 1, self._totals.bytes + entry.size)
        self._make_room(entry.owner)

    def _forget(self, key: bytes, entry: _Entry) -> None:
        number = _NUMBER.pack(entry.number)
        delete, tables = self._transaction.delete, self._tables
        delete(key, db=tables.entries)
        delete(number, db=tables.ages)
        delete(_DEADLINE.pack(entry.ends_at, entry.number), db=tables.deadlines)
        if entry.owner:
            delete(entry.owner + number, db=tables.owners)
        self._totals = self._totals._replace(entries=self._totals.entries - 1, bytes=self._totals.bytes - entry.size)

    def _make_room(self, owner: bytes) -> None:
        limits = self._limits
        if owner and limits.entries_per_owner is not None:
            of_owner = sum(1 for _ in self._keys(self._tables.owners, owner))
            for _ in range(of_owner - limits.entries_per_owner):
                self._forget_oldest(self._tables.owners, owner)
        while (
            _exceeds(self._totals.entries, limits.entries) or _exceeds(self._totals.bytes, limits.bytes)
        ) and self._forget_oldest(self._tables.ages, b""):
            pass

    def _forget_oldest(self, table: Table, prefix: bytes) -> bool:
        # What is pinned is passed over; that is as little as there are requests at a time.
        for key in self._keys(table, prefix):
            entry = self._find(key)
            if entry is not None and not entry.is_pinned:
                self._forget(key, entry)
                return True
        return False

    def _keys(self, table: Table, prefix: bytes) -> Iterator[bytes]:
        """What a table leads to, the oldest first."""
        with self._transaction.cursor(table) as cursor:
            if cursor.set_range(prefix) if prefix else cursor.first():
                for place, key in cursor:
                    if not place.startswith(prefix):
                        return
                    yield key

    def _forget_overdue(self) -> None:
        for _ in range(FORGOTTEN_AT_A_TIME):
            with self._transaction.cursor(self._tables.deadlines) as cursor:
                if not cursor.first() or _DEADLINE.unpack(cursor.key())[0] > self._now:
                    return
                key = cursor.value()
            entry = self._find(key)
            if entry is None:
                return
            self._forget(key, entry)


class FileSystemOneTime:
    """
    ``ports.OneTime`` in ``directory``, which is made. Time is that of the machine.

    Nothing is forced to a disk: what a crash of the machine takes is not worth one. So the directory should be one
    of the machine's memory, see ``folder_in_memory``, and must be if values are secrets.
    """

    def __init__(
        self,
        directory: Path,
        limits: OneTimeLimits,
        *,
        clock: Clock | None = None,
        settings: FileSystemSettings | None = None,
    ) -> None:
        self._limits = limits
        self._clock = clock or SystemClock()
        map_size = MAP_BYTES + 4 * (limits.bytes or 0)
        self._file = ShortTransactions(
            directory,
            settings or FileSystemSettings(map_size=map_size, durable=False),
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

    async def add(
        self, key: str, value: bytes, lifetime: timedelta, *, owner: str | None = None, pinned: bool = False
    ) -> bytes | None:
        place, whose = _hash(key), b"" if owner is None else _hash(owner)
        return await self._change(lambda values: values.add(place, value, _micros(lifetime), whose, pinned=pinned))

    async def take(self, key: str, *, expected: bytes | None = None) -> bytes | None:
        taken = await self._change(lambda values: values.take(_hash(key), expected))
        return None if taken is None else taken.value

    async def replace(self, key: str, expected: bytes, value: bytes, lifetime: timedelta) -> bool:
        return await self._change(lambda values: values.replace(_hash(key), expected, value, _micros(lifetime)))

    async def _change(self, change: Callable[[_Values], T]) -> T:
        def apply(transaction: Transaction, tables: _Tables) -> T:
            # The time is that of the transaction: whoever waited for another process does not act on an older one.
            values = _Values(transaction, tables, self._limits, _since_epoch(self._clock.now()))
            result = change(values)
            values.close()
            return result

        return await self._file.change(apply)


def folder_in_memory(directory: Path, secret: bytes) -> Path | None:
    """
    The folder in the machine's memory that belongs to ``directory``, which is made; ``None`` where machines have no
    such memory. Whoever does not know ``secret`` cannot guess its name.

    Raises:
        Storage: If the directory cannot be made.
    """
    if not SHARED_MEMORY.is_dir():
        return None
    with clear_errors(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = directory.stat()
    identity = f"{place.st_dev}:{place.st_ino}:{os.geteuid()}".encode()
    return SHARED_MEMORY / f"roomkey-{hmac.digest(secret, identity, 'sha256').hex()[:32]}"


def claim(folder: Path) -> None:
    """
    Make the folder, unless it is there.

    Raises:
        Storage: If it is not ours alone.
    """
    with clear_errors(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise Storage(f"{folder} belongs to somebody else, or others may read it")


def remove_from_memory(folder: Path) -> None:
    """Remove what was claimed; nobody may use it any more."""
    with suppress(OSError):
        rmtree(folder)


def _hash(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogatepass")).digest()


def _micros(lifetime: timedelta) -> int:
    return lifetime // timedelta(microseconds=1)


def _since_epoch(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000)


def _exceeds(amount: int, limit: int | None) -> bool:
    return limit is not None and amount > limit
