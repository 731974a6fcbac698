"""Objects in an LMDB file of their own."""

import asyncio
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

import structlog

from roomkey.backends.lmdb.file import FileSystemSettings, Format, MappedFile, ReadTransaction, Table
from roomkey.backends.lmdb.write_batch import Changes as FileChanges
from roomkey.backends.lmdb.writer import Writer
from roomkey.backends.object_records import (
    SEPARATOR,
    ObjectRecords,
    ObjectRow,
    PreparedCommit,
    check_space,
    name_of,
    place_of,
    split_place,
)
from roomkey.errors import Conflict, Storage
from roomkey.ports import (
    CHECKSUMMED_RECORDS,
    PLAIN_RECORDS,
    DamagedRecord,
    NamedObject,
    RecordCodec,
    StoredObject,
)
from roomkey.ports.objects import ABSENT, NOTHING_EXPECTED, Changes

FORMAT: Final = Format(b"roomkey objects 1", "objects")

REVISION: Final = struct.Struct(">Q")
"""Stands before the record of an object, whose key is its space, a zero byte and its name."""

_log = structlog.get_logger("roomkey.storage")


class ObjectTables(NamedTuple):
    """The tables of the file."""

    objects: Table
    meta: Table
    aside: Table


class ObjectFile(MappedFile[ObjectTables]):
    """The file that objects are in."""

    def __init__(self, directory: Path, settings: FileSystemSettings) -> None:
        # What goes in and out is encoded by the store.
        names = ObjectTables._fields
        super().__init__(directory, settings, PLAIN_RECORDS, names=names, tables=ObjectTables, format=FORMAT)


class ObjectChanges(FileChanges[ObjectTables]):
    """Changes of objects in the making."""

    __slots__ = ()

    def commit(self, space: str, commit: PreparedCommit) -> None:
        """All of it, or nothing and ``Conflict``."""
        if not commit.agrees({name: self._revision(space, name) for name in commit.expected}):
            raise Conflict("somebody else has changed an object first")
        table = self.tables.objects
        for name, revision, stored in commit.puts:
            self.put(table, place_of(space, name), REVISION.pack(revision) + stored)
        for name in commit.removed:
            self.remove(table, place_of(space, name))

    def _revision(self, space: str, name: bytes) -> int:
        value = self.get(self.tables.objects, place_of(space, name))
        return ABSENT if value is None else _row(name, value).revision

    def put_aside(self, place: bytes, damage: DamagedRecord, records: ObjectRecords) -> bool:
        """Move an object to where nothing reads it, if it is damaged now."""
        space, name = split_place(place)
        value = self.get(self.tables.objects, place) if name else None
        flaw = None if value is None else records.flaw(space, _row(name, value))
        if flaw is None or flaw.is_newer:
            return False
        self.set_aside("objects", place)
        _log.warning("storage_record_set_aside", table="objects", key=damage.key)
        return True


class Snapshot(ReadTransaction[ObjectTables]):
    """The objects of one moment."""

    __slots__ = ()

    def row(self, space: str, name: bytes) -> ObjectRow | None:
        """An object."""
        value = self._get(place_of(space, name), None, self._file.tables.objects)
        return None if value is None else _row(name, value)

    def rows(self, space: str, start: bytes, end: bytes, limit: int) -> list[ObjectRow]:
        """At most so many objects of a space, from a name on, and before another one."""
        return list(islice(self._rows_from(space, start, end), limit))

    def _rows_from(self, space: str, start: bytes, end: bytes) -> Iterator[ObjectRow]:
        within = space.encode() + SEPARATOR
        with self._transaction.cursor(self._file.tables.objects) as cursor:
            if not cursor.set_range(within + start):
                return
            for key, value in cursor.iternext():
                if key >= within + end:
                    return
                yield _row(key[len(within) :], value)


class FileSystemObjectStore:
    """``ObjectStore`` in a directory of this machine, to which applies what is said of ``FileSystemSessionStorage``."""

    def __init__(
        self,
        path: str | PathLike[str],
        settings: FileSystemSettings | None = None,
        *,
        codec: RecordCodec = CHECKSUMMED_RECORDS,
    ) -> None:
        self._directory = Path(path)
        self._settings = settings or FileSystemSettings()
        self._records = ObjectRecords(codec)
        self._has_checksums = codec is not PLAIN_RECORDS
        self._file: ObjectFile | None = None
        self._writer: Writer[ObjectFile, ObjectChanges]

    async def __aenter__(self) -> Self:
        self._writer = Writer(self._directory, self._settings, open_file=ObjectFile, begin=ObjectChanges)
        self._file = await self._writer.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file = None  # from now on nobody reads
            await self._writer.close()

    async def get(self, space: str, name: str) -> StoredObject | None:
        (found,) = await self.get_many(space, [name])
        return found

    async def get_many(self, space: str, names: Sequence[str]) -> list[StoredObject | None]:
        keys = [name_of(name) for name in names]
        with self._snapshot() as snapshot:
            rows = [snapshot.row(check_space(space), key) for key in keys]
        return [row and StoredObject(row.revision, self._records.value(space, row)) for row in rows]

    async def list(self, space: str, *, prefix: str = "", after: str = "", limit: int = 100) -> Sequence[NamedObject]:
        return await self._records.listed(self._rows, space, prefix=prefix, after=after, limit=limit)

    async def _rows(self, space: str, start: bytes, end: bytes, limit: int) -> Sequence[ObjectRow]:
        with self._snapshot() as snapshot:
            return snapshot.rows(space, start, end, limit)

    async def commit(self, space: str, changes: Changes, *, expected: Mapping[str, int] = NOTHING_EXPECTED) -> None:
        prepared = self._records.prepared(check_space(space), changes, expected)
        await self._opened_writer().submit(lambda file: file.commit(space, prepared))

    async def ping(self) -> None:
        await self._opened_writer().ping()

    def degradations(self) -> Mapping[str, str]:
        return {} if self._file is None else {**self._writer.degradations(), **self._records.damage.degradations()}

    # --- repair ---------------------------------------------------------------------------------------

    async def damaged(self) -> Sequence[DamagedRecord]:
        async def rows(space: str, start: bytes, end: bytes, limit: int) -> Sequence[ObjectRow]:
            await asyncio.sleep(0)  # others have their turn
            return await self._rows(space, start, end, limit)

        return await self._records.damaged(rows)

    async def set_aside(self, records: Sequence[DamagedRecord]) -> int:
        write = self._opened_writer().submit
        done = [await write(partial(ObjectChanges.put_aside, place=each.place, damage=each, records=self._records))
                for each in records]  # fmt: skip
        if any(done):
            self._records.damage.forget()
        return sum(done)

    async def has_checksums(self) -> bool:
        return self._has_checksums

    def _snapshot(self) -> Snapshot:
        if self._file is None:
            raise Storage("the storage is not open")
        return Snapshot(self._file)

    def _opened_writer(self) -> Writer[ObjectFile, ObjectChanges]:
        if self._file is None:
            raise Storage("the storage is not open")
        return self._writer


def _row(name: bytes, value: bytes) -> ObjectRow:
    """What lies under a key; what is too short for an object has no revision, and cannot be read."""
    if len(value) < REVISION.size:
        return ObjectRow(name, ABSENT, value)
    return ObjectRow(name, REVISION.unpack_from(value)[0], value[REVISION.size :])
