"""Which rows of sessions and events are damaged, and putting them aside."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Final, NamedTuple

import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.damage import NewerSchema, shown
from roomkey.backends.sql.database import Database
from roomkey.backends.sql.rows import EVENT_ID, NUMBER_OF, STATES, Partition, Records, SessionQueries, micros
from roomkey.backends.sql.statements import Query, Row, load, run, run_many
from roomkey.domain.lifecycle import deadline
from roomkey.domain.session import LIVE_STATES, PARTITIONS
from roomkey.errors import Serialization
from roomkey.ports import DamagedRecord, RecordKind

BATCH: Final = 500
"""Number of rows that one statement reads."""

SESSIONS: Final = "roomkey_sessions"
EVENTS: Final = "roomkey_events"

_log = structlog.get_logger("roomkey.storage")


class RepairQueries(NamedTuple):
    """The statements of ``queries/repair.sql``."""

    sessions: Query
    session: Query
    put_columns: Query
    events: Query
    event: Query
    remove_event: Query
    count_states: Query
    put_aside: Query


class SessionRow(NamedTuple):
    """A row of ``roomkey_sessions``, all of it."""

    id: bytes
    user_id: bytes
    state: int
    version: int
    epoch: int
    created: int
    last_seen: int
    deadline: int | None
    ended: int | None
    record: bytes


class _WrongColumns(Serialization):
    """The record can be read, and what stands beside it, by which it is found, does not say the same."""


class Repair:
    """``Repairable`` for sessions."""

    def __init__(self, database: Database, queries: SessionQueries, records: Records) -> None:
        self._database = database
        self._queries = queries
        self._records = records
        self._repair = load("repair", database.dialect, RepairQueries)

    # --- looking --------------------------------------------------------------------------------------

    async def damaged(self) -> list[DamagedRecord]:
        """``Repairable.damaged``."""
        found: list[DamagedRecord] = []
        id = b""
        while rows := await self._rows(self._repair.sessions, id, BATCH):
            id = rows[-1][0]
            found += [record for row in rows if (record := self._session_damage(row)) is not None]
        for partition in range(PARTITIONS):
            sequence = 0
            while rows := await self._rows(self._repair.events, partition, sequence, BATCH):
                sequence = rows[-1][1]
                found += [record for row in rows if (record := self._event_damage(row)) is not None]
        return found

    async def _rows(self, query: Query, *parameters: object) -> list[Row]:
        async def work(connection: AsyncConnection) -> list[Row]:
            return await run(connection, query, *parameters)

        return await self._database.read(work)

    def _session_damage(self, values: Row) -> DamagedRecord | None:
        flaw = self._flaw(SessionRow(*values))
        if flaw is None:
            return None
        return damage_of(RecordKind.SESSION, shown(values[0]), flaw, place_of(SESSIONS, values[0]))

    def _event_damage(self, row: Row) -> DamagedRecord | None:
        partition, sequence, _, record = row
        try:
            self._records.event(partition, sequence, record)
        except Serialization as error:
            place = place_of(EVENTS, EVENT_ID.pack(partition, sequence))
            return damage_of(RecordKind.EVENT, f"partition {partition}, number {sequence}", error, place)
        return None

    def _flaw(self, row: SessionRow) -> Serialization | None:
        """What is wrong with a row."""
        try:
            session, _ = self._records.opened(row.id, row.version, row.record)
        except Serialization as error:
            return error
        if session.id.encode() != row.id:
            return Serialization("a session record is at a wrong place")
        latest = micros(deadline(session) or session.expires_at)  # an earlier one is put right when it comes up
        is_live = session.state in LIVE_STATES
        is_right = (
            (row.user_id, row.state, row.version, row.created)
            == (session.user_id.encode(), NUMBER_OF[session.state], session.version, micros(session.created_at))
            and (row.deadline is not None, row.ended is not None) == (is_live, not is_live)
            and (row.deadline is None or row.deadline <= latest)
        )
        return None if is_right else _WrongColumns("what finds a session does not say what its record says")

    # --- putting aside --------------------------------------------------------------------------------

    async def set_aside(self, records: Sequence[DamagedRecord]) -> int:
        """``Repairable.set_aside``, in a transaction for each partition."""
        done = 0
        places = sorted(_places(records))
        for partition, group in groupby(places, lambda place: place[0]):
            keys = [(table, key) for _, table, key in group]
            # May be repeated: what was put aside is not there any more, and then is not counted.
            done += await self._database.write(
                partial(self._set_aside, partition=partition, places=keys), may_repeat=True
            )
        if done:
            self._records.forget_reports()
        return done

    async def _set_aside(self, connection: AsyncConnection, partition: int, places: list[tuple[str, bytes]]) -> int:
        (row,) = await run(connection, self._queries.lock_partitions, [partition])
        done = 0
        for table, key in places:
            put = self._set_session_aside if table == SESSIONS else self._set_event_aside
            done += await put(connection, key)
        if done:
            counted = Partition(row)
            prefix = b"%02x" % partition
            states = dict(map(tuple, await run(connection, self._repair.count_states, prefix, prefix + b"\xff")))
            counted.states = [states.get(number, 0) for number in range(len(STATES))]
            await run_many(connection, self._queries.put_partitions, [counted.row()])
        return done

    async def _set_session_aside(self, connection: AsyncConnection, id: bytes) -> bool:
        rows = await run(connection, self._repair.session, id)
        flaw = self._flaw(SessionRow(*rows[0])) if rows else None
        if flaw is None or isinstance(flaw, NewerSchema):
            return False
        row = SessionRow(*rows[0])
        if isinstance(flaw, _WrongColumns):
            await self._put_columns(connection, row)
            return True
        await put_aside(connection, self._repair.put_aside, SESSIONS, id, row)
        await run(connection, self._queries.remove_sessions, [id])
        return True

    async def _put_columns(self, connection: AsyncConnection, row: SessionRow) -> None:
        """Let a session be found by what its record says."""
        session, secret = self._records.opened(row.id, row.version, row.record)
        place = micros(deadline(session) or session.expires_at)
        is_live = session.state in LIVE_STATES
        columns = session.user_id.encode(), NUMBER_OF[session.state], session.version, micros(session.created_at)
        times = (place, None) if is_live else (None, place if row.ended is None else row.ended)
        record = self._records.sealed_session(session, secret)
        await run(connection, self._repair.put_columns, *columns, *times, record, row.id)

    async def _set_event_aside(self, connection: AsyncConnection, key: bytes) -> bool:
        place = EVENT_ID.unpack(key)
        rows = await run(connection, self._repair.event, *place)
        damage = self._event_damage(rows[0]) if rows else None
        if damage is None or damage.is_newer:
            return False
        await put_aside(connection, self._repair.put_aside, EVENTS, key, rows[0])
        await run(connection, self._repair.remove_event, *place)
        return True


def damage_of(kind: RecordKind, key: str, flaw: Serialization, place: bytes) -> DamagedRecord:
    """A damaged record in the form in which it is named."""
    return DamagedRecord(kind=kind, key=key, reason=str(flaw), place=place, is_newer=isinstance(flaw, NewerSchema))


def place_of(table: str, key: bytes) -> bytes:
    """Where a row lies."""
    return table.encode() + b"\0" + key


async def put_aside(connection: AsyncConnection, query: Query, table: str, key: bytes, row: Row) -> None:
    """Keep a row where nothing reads it."""
    await run(connection, query, table, key, msgspec.msgpack.encode(tuple(row)))
    _log.warning("storage_record_set_aside", table=table, key=shown(key))


def _places(records: Sequence[DamagedRecord]) -> Iterator[tuple[int, str, bytes]]:
    """The partition, the table and the key of each record that is one of ours."""
    for record in records:
        name, _, key = record.place.partition(b"\0")
        if name == EVENTS.encode() and len(key) == EVENT_ID.size:
            yield key[0], EVENTS, key
        elif name == SESSIONS.encode():
            yield partition_of_key(key), SESSIONS, key


def partition_of_key(id: bytes) -> int:
    """The partition whose lock whoever changes the row of a session holds."""
    try:
        return int(id[:2], 16)
    except ValueError:
        return 0  # it is counted nowhere
