"""Moving house: sessions, epochs, events and checkpoints that are handed over, or taken in as they were elsewhere."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Final, NamedTuple

from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.records import encode_event
from roomkey.backends.session_changes import Held
from roomkey.backends.sql.commit import Commit, Stored
from roomkey.backends.sql.database import Database
from roomkey.backends.sql.rows import Records, SessionQueries, micros, moment
from roomkey.backends.sql.shared_queries import SharedQueries
from roomkey.backends.sql.statements import Query, Row, load, run
from roomkey.backends.taking_in import follows, raised, succeeds
from roomkey.domain.lifecycle import deadline
from roomkey.domain.session import LIVE_STATES, SessionId
from roomkey.errors import RoomkeyError, Serialization
from roomkey.ports import (
    CheckpointItem,
    EpochItem,
    EventItem,
    Gone,
    LoggedEvent,
    LogStart,
    PartitionItem,
    SessionItem,
    Unreadable,
)

BATCH: Final = 500
"""Number of rows that one statement reads or one transaction writes."""


class MovingQueries(NamedTuple):
    """The statements of ``queries/moving.sql``."""

    sessions: Query
    epochs: Query
    epochs_of: Query
    consumers: Query


class Moving:
    """``MovableSessions`` in a database. ``touched`` is what was seen of sessions and is not in the table yet."""

    def __init__(
        self, database: Database, queries: SessionQueries, records: Records, touched: dict[SessionId, datetime]
    ) -> None:
        self._database = database
        self._queries = queries
        self._records = records
        self._touched = touched
        self._moving = load("moving", database.dialect, MovingQueries)
        self._shared = SharedQueries.of(database.dialect)

    async def _run(self, query: Query, *parameters: object) -> list[Row]:
        async def work(connection: AsyncConnection) -> list[Row]:
            return await run(connection, query, *parameters)

        return await self._database.read(work)

    # --- handing over ---------------------------------------------------------------------------------

    async def sessions(self, partition: int) -> AsyncIterator[Sequence[SessionItem | Unreadable]]:
        """``MovableSessions.export_sessions``."""
        prefix = b"%02x" % partition
        after, end = prefix, prefix + b"\xff"
        while rows := await self._run(self._moving.sessions, after, end, BATCH):
            after = rows[-1][0]
            yield [self._item(row) for row in rows]

    def _item(self, row: Row) -> SessionItem | Unreadable:
        held = self._records.readable(row)
        if held is None:
            return Unreadable(f"session {row[0].decode(errors='replace')}")
        session = held.session
        seen = self._touched.get(session.id)
        if seen is not None and seen > session.last_seen_at and session.state in LIVE_STATES:
            held = held._replace(session=replace(session, last_seen_at=seen))
        return item_of(held, row[5])

    async def epochs(self) -> AsyncIterator[Sequence[EpochItem | Unreadable]]:
        """``MovableSessions.export_epochs``."""
        after = b""
        while rows := await self._run(self._moving.epochs, after, BATCH):
            after = rows[-1][0]
            yield [_epoch(*row) for row in rows]

    async def checkpoints(self) -> AsyncIterator[Sequence[CheckpointItem]]:
        """``MovableSessions.export_checkpoints``."""
        for (consumer,) in await self._run(self._moving.consumers):
            rows = await self._run(self._shared.checkpoints, consumer)
            yield [CheckpointItem(consumer.decode(), place, sequence) for place, sequence in rows]

    # --- taking in ------------------------------------------------------------------------------------

    async def take_in(self, partition: int, items: Sequence[PartitionItem]) -> None:
        """``MovableSessions.take_in``."""

        async def work(connection: AsyncConnection) -> RoomkeyError | None:
            commit = TakingIn(self._queries, self._records, self._touched)
            await commit.lock(connection, [partition])
            await commit.fill(connection, partition, items, self._moving.epochs_of)
            refused = commit.take_in_all(partition, items)
            await commit.write(connection)
            return refused

        # May be repeated: an item that was taken in before changes nothing.
        refused = await self._database.write(work, may_repeat=True)
        if refused is not None:
            raise refused
        for item in items:
            if isinstance(item, SessionItem):
                # It is as it was elsewhere, whoever was seen here.
                self._touched.pop(item.session.id, None)

    async def take_in_checkpoints(self, items: Sequence[CheckpointItem]) -> None:
        """``MovableSessions.take_in_checkpoints``."""
        for start in range(0, len(items), BATCH):
            # May be repeated: positions are the same the second time.
            await self._database.write(
                partial(self._save_checkpoints, items=items[start : start + BATCH]), may_repeat=True
            )

    async def _save_checkpoints(self, connection: AsyncConnection, items: Sequence[CheckpointItem]) -> None:
        for item in items:
            place = item.consumer.encode(), item.partition, item.sequence
            await run(connection, self._shared.save_checkpoint, *place)


def item_of(held: Held, ended: int | None) -> SessionItem:
    """A session in the form in which it is handed over."""
    is_over = held.session.state not in LIVE_STATES and ended is not None
    return SessionItem(held.session, held.secret, held.epoch, moment(ended) if is_over and ended is not None else None)


def _epoch(user: bytes, epoch: int) -> EpochItem | Unreadable:
    try:
        return EpochItem(user.decode(), epoch)
    except UnicodeDecodeError:
        return Unreadable(f"the epoch of user {user.decode(errors='replace')!r}")


class TakingIn(Commit):
    """A commit of items that are taken in, all of one partition. No event tells of it."""

    def __init__(self, queries: SessionQueries, records: Records, touched: Mapping[SessionId, datetime]) -> None:
        super().__init__(queries, records, touched)
        self._logged: dict[int, LoggedEvent] = {}
        self._forgotten: tuple[int, int] | None = None

    async def fill(
        self, connection: AsyncConnection, partition: int, items: Sequence[PartitionItem], epochs_of: Query
    ) -> None:
        """Load what is there of the items."""
        ids = {item.session.id.encode() for item in items if isinstance(item, SessionItem)}
        ids |= {item.session.encode() for item in items if isinstance(item, Gone)}
        if ids:
            for row in await run(connection, self._queries.get, sorted(ids)):
                self._take(row)
        users = sorted(item.user.encode() for item in items if isinstance(item, EpochItem))
        if users:
            # Together with those that sessions have brought along, which are the same.
            self._epochs |= {user: epoch for user, epoch in await run(connection, epochs_of, users)}  # noqa: C416
        head = self.partition(partition).head
        numbers = [item.sequence for item in items if isinstance(item, EventItem) and item.sequence <= head]
        if numbers:
            first, last = min(numbers), max(numbers)
            rows = await run(connection, self._queries.events, partition, first - 1, last - first + 1)
            for sequence, record in rows:
                self._keep_logged(partition, sequence, record)

    def _keep_logged(self, partition: int, sequence: int, record: bytes) -> None:
        try:
            event = self._records.event(partition, sequence, record)
        except Serialization:
            return  # nobody can say whether it is another one
        self._logged[sequence] = LoggedEvent(sequence, event)

    def take_in_all(self, partition: int, items: Sequence[PartitionItem]) -> RoomkeyError | None:
        """Take in the items up to one that is refused; why it is."""
        for item in items:
            try:
                self._take_in(partition, item)
            except RoomkeyError as error:
                return error
        return None

    def _take_in(self, partition: int, item: PartitionItem) -> None:
        match item:
            case SessionItem():
                self._take_in_session(partition, item)
            case EpochItem(user, epoch):
                held = self.epoch_of(user)
                if raised(epoch, held) != held:
                    self.raise_epoch(user, epoch)
            case LogStart(after):
                self._begin_log(partition, after)
            case EventItem(sequence, event):
                if follows(sequence, event, self.partition(partition).head, self._logged.get(sequence)):
                    self._append(partition, event.at, encode_event(event))
                    self._logged[sequence] = LoggedEvent(sequence, event)
            case Gone(id):
                self._take_out(partition, id)

    def _take_in_session(self, partition: int, item: SessionItem) -> None:
        session = item.session
        id = session.id.encode()
        held = self.find(id)
        ended = self._stored(session).ended if held is not None else None
        if not succeeds(item, None if held is None else item_of(held, ended)):
            return
        record = self._records.sealed_session(session, item.secret)
        self._take_out(partition, session.id)
        is_live = session.state in LIVE_STATES
        place = micros((None if is_live else item.ended_at) or deadline(session) or session.expires_at)
        taken_in = Held(session, item.secret, item.epoch)
        self._sessions[id] = Stored(taken_in, place if is_live else None, None if is_live else place, record)
        self._new[id] = session.user_id.encode(), micros(session.created_at)
        self.partition(partition).added(session.state)

    def _take_out(self, partition: int, id: SessionId) -> None:
        key = id.encode()
        held = self.find(key)
        if held is None:
            return
        del self._sessions[key]
        if self._new.pop(key, None) is None:
            self._removed.append(key)
        self.partition(partition).removed(held.session.state)
        self.partition(partition).is_changed = True

    def _begin_log(self, partition: int, after: int) -> None:
        place = self.partition(partition)
        self._events = [row for row in self._events if row[1] > after]
        self._logged = {sequence: each for sequence, each in self._logged.items() if sequence > after}
        self._forgotten = partition, after
        place.tail, place.head = max(place.tail, after), max(place.head, after)
        place.is_changed = True

    async def write(self, connection: AsyncConnection) -> None:
        if self._forgotten is not None:
            await run(connection, self._queries.remove_events, *self._forgotten)
        await super().write(connection)
