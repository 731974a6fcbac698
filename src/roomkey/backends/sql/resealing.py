"""Writing the records of sessions and events anew, under the key that the codec seals with now."""

from collections.abc import Sequence
from functools import partial
from itertools import groupby
from typing import Final, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.resealing import Anew, Sealed, sealed_anew
from roomkey.backends.sql.database import Database
from roomkey.backends.sql.repair import RepairQueries, SessionRow, partition_of_key
from roomkey.backends.sql.rows import EVENT_ID, SessionQueries
from roomkey.backends.sql.statements import Query, Row, load, run, run_many
from roomkey.domain.session import PARTITIONS
from roomkey.ports import RecordCodec, RecordKind, Resealed, SealingCodec

_SESSIONS: Final = b"s"
_EVENTS: Final = b"e"

Key = tuple[bytes] | tuple[int, int]
"""The id of a session, or the partition and the number of an event."""


class ResealingQueries(NamedTuple):
    """The statements of ``queries/resealing.sql``."""

    put_sessions: Query
    put_events: Query
    put_document: Query
    put_update: Query
    put_piece: Query
    put_version: Query


class Resealing:
    """``Resealable`` for sessions."""

    def __init__(self, database: Database, queries: SessionQueries, codec: RecordCodec) -> None:
        self._database = database
        self._queries = queries
        self._codec = codec
        self._repair = load("repair", database.dialect, RepairQueries)
        self._resealing = load("resealing", database.dialect, ResealingQueries)

    async def reseal(self, after: bytes, limit: int, *, only_counts: bool) -> Resealed:
        """``Resealable.reseal``: a page of sessions, or of the events of one partition."""
        if not isinstance(self._codec, SealingCodec):
            return Resealed(None, 0, 0, 0)
        if after[:1] != _EVENTS:
            rows = await self._rows(self._repair.sessions, after[1:], limit)
            following = _SESSIONS + rows[-1][0] if len(rows) == limit else _events(0)
            records = [_session(row) for row in rows]
        else:
            partition, sequence = EVENT_ID.unpack(after[1:])
            rows = await self._rows(self._repair.events, partition, sequence, limit)
            following = _events(partition, rows[-1][1]) if len(rows) == limit else _events(partition + 1)
            records = [_event(row) for row in rows]
        anew, left = sealed_anew(self._codec, records)
        if not only_counts:
            await self._write_all(anew)
        return Resealed(following, len(rows), len(anew), left)

    async def _rows(self, query: Query, *parameters: object) -> list[Row]:
        async def work(connection: AsyncConnection) -> list[Row]:
            return await run(connection, query, *parameters)

        return await self._database.read(work)

    async def _write_all(self, anew: Sequence[Anew[Key]]) -> None:
        for partition, group in groupby(anew, _partition_of):
            write = partial(self._write, partition=partition, anew=[*group])
            # May be repeated: what was written is not what it was any more.
            await self._database.write(write, may_repeat=True)

    async def _write(self, connection: AsyncConnection, partition: int, anew: Sequence[Anew[Key]]) -> None:
        """Write when it is the turn of the partition: whoever else writes its rows does so, too."""
        await run(connection, self._queries.lock_partitions, [partition])
        put = self._resealing.put_sessions if anew[0].kind is RecordKind.SESSION else self._resealing.put_events
        await run_many(connection, put, [(record, *key, former) for key, _, former, record in anew])


def _session(values: Row) -> Sealed[Key]:
    row = SessionRow(*values)
    return Sealed((row.id,), RecordKind.SESSION, row.id, row.version, row.record)


def _event(row: Row) -> Sealed[Key]:
    partition, sequence, _, record = row
    return Sealed((partition, sequence), RecordKind.EVENT, EVENT_ID.pack(partition, sequence), 0, record)


def _events(partition: int, after: int = 0) -> bytes | None:
    return _EVENTS + EVENT_ID.pack(partition, after) if partition < PARTITIONS else None


def _partition_of(anew: Anew[Key]) -> int:
    first = anew.key[0]
    return first if isinstance(first, int) else partition_of_key(first)
