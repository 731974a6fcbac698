"""Objects in a table of a SQL database."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, NamedTuple, Self

import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.object_records import (
    ObjectRecords,
    ObjectRow,
    PreparedCommit,
    check_space,
    name_of,
    split_place,
)
from roomkey.backends.sql.database import Database, DatabaseSettings, opened
from roomkey.backends.sql.statements import Query, load, run, run_many, touched
from roomkey.errors import Conflict, OutcomeUnknown
from roomkey.ports import (
    CHECKSUMMED_RECORDS,
    PLAIN_RECORDS,
    DamagedRecord,
    NamedObject,
    RecordCodec,
    StoredObject,
)
from roomkey.ports.objects import ABSENT, NOTHING_EXPECTED, Changes

TABLE: Final = "roomkey_objects"

_log = structlog.get_logger("roomkey.storage")


class ObjectQueries(NamedTuple):
    """The statements of ``queries/objects.sql``."""

    objects: Query
    revisions: Query
    hold_revisions: Query
    page: Query
    make: Query
    put: Query
    remove: Query
    put_aside: Query


class DatabaseObjectStore:
    """``ObjectStore`` in a database. A commit is one transaction, which holds the rows that it expects something of."""

    def __init__(
        self,
        database: str | Database,
        settings: DatabaseSettings | None = None,
        *,
        codec: RecordCodec = CHECKSUMMED_RECORDS,
    ) -> None:
        """``database`` is its URL, or one that other stores use, too."""
        self._database = opened(database, settings)
        self._queries = load("objects", self._database.dialect, ObjectQueries)
        self._records = ObjectRecords(codec)
        self._has_checksums = codec is not PLAIN_RECORDS

    async def __aenter__(self) -> Self:
        await self._database.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._database.__aexit__(kind, error, trace)

    # --- read -----------------------------------------------------------------------------------------

    async def get(self, space: str, name: str) -> StoredObject | None:
        (found,) = await self.get_many(space, [name])
        return found

    async def get_many(self, space: str, names: Sequence[str]) -> list[StoredObject | None]:
        keys = [name_of(name) for name in names]
        if not keys:
            return []
        rows = await self._read(self._queries.objects, check_space(space), keys)
        found = {row.name: row for row in rows}
        return [
            None if (row := found.get(key)) is None else StoredObject(row.revision, self._records.value(space, row))
            for key in keys
        ]

    async def list(self, space: str, *, prefix: str = "", after: str = "", limit: int = 100) -> Sequence[NamedObject]:
        return await self._records.listed(self._rows, space, prefix=prefix, after=after, limit=limit)

    async def _rows(self, space: str, start: bytes, end: bytes, limit: int) -> Sequence[ObjectRow]:
        return await self._read(self._queries.page, space, start, end, limit)

    async def _read(self, query: Query, *parameters: object) -> Sequence[ObjectRow]:
        rows = await self._database.read(lambda connection: run(connection, query, *parameters))
        return [ObjectRow(bytes(name), revision, bytes(value)) for name, revision, value in rows]

    # --- write ----------------------------------------------------------------------------------------

    async def commit(self, space: str, changes: Changes, *, expected: Mapping[str, int] = NOTHING_EXPECTED) -> None:
        commit = self._records.prepared(check_space(space), changes, expected)
        try:
            await self._database.write(lambda connection: self._commit(connection, space, commit), may_repeat=False)
        except OutcomeUnknown:
            if not commit.puts or not commit.is_done(await self._revisions(space, commit.names)):
                raise

    async def _commit(self, connection: AsyncConnection, space: str, commit: PreparedCommit) -> None:
        queries = self._queries
        if commit.expected:
            present = await run(connection, queries.hold_revisions, space, [*commit.expected])
            if not commit.agrees({bytes(name): revision for name, revision in present}):
                raise Conflict("somebody else has changed an object first")
        # What is not there cannot be held, so it is made, if only for this moment: of two who do that one waits.
        puts = {put.name: put for put in commit.puts}
        for name in [name for name, revision in commit.expected.items() if revision == ABSENT]:
            row = puts.pop(name, None)
            made = row or ObjectRow(name, 1, b"")
            if not await touched(connection, queries.make, space, *made):
                raise Conflict("somebody else has made an object first")
            if row is None:
                await run(connection, queries.remove, space, [name])
        await run_many(connection, queries.put, [(space, *put) for put in puts.values()])
        if commit.removed:
            await run(connection, queries.remove, space, [*commit.removed])

    async def _revisions(self, space: str, names: Sequence[bytes]) -> Mapping[bytes, int]:
        query = self._queries.revisions
        rows = await self._database.read(lambda connection: run(connection, query, space, [*names]))
        return {bytes(name): revision for name, revision in rows}

    async def ping(self) -> None:
        await self._database.read(lambda connection: run(connection, self._queries.page, "", b"", 1))

    def degradations(self) -> Mapping[str, str]:
        return {**self._database.degradations(), **self._records.damage.degradations()}

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
        queries = self._queries

        async def work(connection: AsyncConnection) -> bool:
            await run(connection, queries.hold_revisions, space, [name])
            rows = await run(connection, queries.objects, space, [name])
            flaw = self._records.flaw(space, ObjectRow(name, rows[0][1], bytes(rows[0][2]))) if rows else None
            if flaw is None or flaw.is_newer:
                return False
            row = msgspec.msgpack.encode([space, name, rows[0][1], bytes(rows[0][2])])
            await run(connection, queries.put_aside, TABLE, record.place, row)
            await run(connection, queries.remove, space, [name])
            return True

        # May be repeated: what is gone stays so.
        done = await self._database.write(work, may_repeat=True)
        if done:
            _log.warning("storage_record_set_aside", table=TABLE, key=record.key)
        return done

    async def has_checksums(self) -> bool:
        return self._has_checksums
