"""Objects in Redis: those of a space in one slot, in a hash, with their names in order beside it."""

import struct
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

import structlog

from roomkey.backends.object_records import (
    ObjectRecords,
    ObjectRow,
    PreparedCommit,
    check_space,
    name_of,
    split_place,
)
from roomkey.backends.redis.connection import Argument
from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import AGAIN, Again, RedisServer, RedisSettings
from roomkey.errors import Conflict
from roomkey.ports import (
    CHECKSUMMED_RECORDS,
    PLAIN_RECORDS,
    DamagedRecord,
    NamedObject,
    RecordCodec,
    StoredObject,
)
from roomkey.ports.objects import ABSENT, NOTHING_EXPECTED, Changes

REVISION: Final = struct.Struct(">Q")
"""Stands before the record of an object."""

_COMMIT: Final = Script("objects_commit")
_PAGE: Final = Script("objects_page")
_SET_ASIDE: Final = Script("objects_set_aside")

_log = structlog.get_logger("roomkey.storage")


class RedisObjectStore:
    """``ObjectStore`` on Redis. A space is in one slot, so a Cluster has each on one of its masters."""

    def __init__(
        self,
        server: str | RedisServer,
        settings: RedisSettings | None = None,
        *,
        codec: RecordCodec = CHECKSUMMED_RECORDS,
    ) -> None:
        """``server`` is its URL, or one that other stores use, too."""
        self._server = server if isinstance(server, RedisServer) else RedisServer(server, settings)
        self._records = ObjectRecords(codec)
        self._has_checksums = codec is not PLAIN_RECORDS

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.__aexit__(kind, error, trace)

    # --- read -----------------------------------------------------------------------------------------

    async def get(self, space: str, name: str) -> StoredObject | None:
        (found,) = await self.get_many(space, [name])
        return found

    async def get_many(self, space: str, names: Sequence[str]) -> list[StoredObject | None]:
        keys = [name_of(name) for name in names]
        if not keys:
            return []
        values: Sequence[bytes | None] = await self._server.ask("HMGET", self._keys(check_space(space))[0], *keys)
        rows = [None if value is None else _row(key, value) for key, value in zip(keys, values, strict=True)]
        return [row and StoredObject(row.revision, self._records.value(space, row)) for row in rows]

    async def list(self, space: str, *, prefix: str = "", after: str = "", limit: int = 100) -> Sequence[NamedObject]:
        return await self._records.listed(self._rows, space, prefix=prefix, after=after, limit=limit)

    async def _rows(self, space: str, start: bytes, end: bytes, limit: int) -> Sequence[ObjectRow]:
        asked = start, end, limit
        # May be repeated: it changes nothing.
        found: Sequence[bytes] = await self._server.run(_PAGE, self._keys(space)[:2], asked, may_repeat=True)
        return [_row(name, value) for name, value in zip(found[::2], found[1::2], strict=True)]

    # --- write ----------------------------------------------------------------------------------------

    async def commit(self, space: str, changes: Changes, *, expected: Mapping[str, int] = NOTHING_EXPECTED) -> None:
        commit = self._records.prepared(check_space(space), changes, expected)
        # May be repeated: it finds what an earlier try has put.
        if not await self._server.run(_COMMIT, self._keys(space)[:2], _arguments(commit), may_repeat=bool(commit.puts)):
            raise Conflict("somebody else has changed an object first")

    async def ping(self) -> None:
        await self._server.ping()

    def degradations(self) -> Mapping[str, str]:
        return {**self._server.degradations(), **self._records.damage.degradations()}

    # --- repair ---------------------------------------------------------------------------------------

    async def damaged(self) -> Sequence[DamagedRecord]:
        return await self._records.damaged(self._rows)

    async def set_aside(self, records: Sequence[DamagedRecord]) -> int:
        done = [await self._set_aside(record) for record in records]
        if any(done):
            self._records.damage.forget()
        return sum(done)

    async def _set_aside(self, record: DamagedRecord) -> bool:
        space, name = split_place(record.place)
        keys = self._keys(space)
        value: bytes | None = await self._server.ask("HGET", keys[0], name)
        flaw = None if value is None else self._records.flaw(space, _row(name, value))
        if value is None or flaw is None or flaw.is_newer:
            return False
        # May be repeated: what is gone stays so; only the number may be too small then.
        if not await self._server.run(_SET_ASIDE, keys, (name, value), may_repeat=True):
            return False
        _log.warning("storage_record_set_aside", table="objects", key=record.key)
        return True

    async def has_checksums(self) -> bool:
        return self._has_checksums

    def _keys(self, space: str) -> tuple[bytes, bytes, bytes]:
        """The hash of the objects, the names in order, and what was set aside."""
        tag = b"{%s:o:%s}:" % (self._server.prefix, space.encode())
        return tag + b"objects", tag + b"names", tag + b"aside"


def _arguments(commit: PreparedCommit) -> list[Argument | Again]:
    arguments: list[Argument | Again] = [AGAIN, len(commit.expected)]
    for name, revision in commit.expected.items():
        arguments += [name, b"" if revision == ABSENT else REVISION.pack(revision)]
    arguments.append(len(commit.puts))
    for name, revision, stored in commit.puts:
        arguments += [name, REVISION.pack(revision) + stored]
    return [*arguments, len(commit.removed), *commit.removed]


def _row(name: bytes, value: bytes) -> ObjectRow:
    """What lies under a name; what is too short for an object has no revision, and cannot be read."""
    if len(value) < REVISION.size:
        return ObjectRow(name, ABSENT, value)
    return ObjectRow(name, REVISION.unpack_from(value)[0], value[REVISION.size :])
