"""How sessions and partitions stand in their tables: rows, times, and records that go through the codec."""

import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from roomkey.backends.damage import DamageNotes
from roomkey.backends.records import StoredSession, decode_event, decode_session, encode_session
from roomkey.backends.session_changes import Held
from roomkey.backends.sql.statements import Query, Row
from roomkey.domain.session import AnyEvent, Session, SessionId, SessionState
from roomkey.errors import Serialization
from roomkey.ports import RecordCodec, RecordKind, Secret

STATES: Final = tuple(SessionState)
NUMBER_OF: Final = {state: number for number, state in enumerate(STATES)}

_ORIGIN: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
EVENT_ID: Final = struct.Struct(">BQ")


class SessionQueries(NamedTuple):
    """The statements of ``queries/sessions.sql``."""

    get: Query
    live_of: Query
    list_all: Query
    boundary: Query
    list_user: Query
    count_all: Query
    count_user: Query
    overdue: Query
    ended_before: Query
    lock_partitions: Query
    standing: Query
    event: Query
    add_sessions: Query
    put_sessions: Query
    remove_sessions: Query
    put_epochs: Query
    add_events: Query
    put_partitions: Query
    touch: Query
    events: Query
    heads: Query
    purgeable: Query
    oldest_events: Query
    remove_events: Query
    statistics: Query
    probe: Query


def micros(moment: datetime) -> int:
    """``moment`` as it stands in a column."""
    return (moment - _ORIGIN) // _MICROSECOND


def moment(micros: int) -> datetime:
    """The moment that stands in a column."""
    return _ORIGIN + timedelta(microseconds=micros)


class Records:
    """Sessions and events as records of the codec. One that is damaged is named in the log once."""

    def __init__(self, codec: RecordCodec) -> None:
        self._codec = codec
        self.damage = DamageNotes("sessions")

    def sealed_session(self, session: Session, secret: Secret) -> bytes:
        """The record of a session."""
        record = encode_session(session, secret)
        return self._codec.encode(RecordKind.SESSION, session.id.encode(), session.version, record)

    def held(self, row: Row) -> Held:
        """
        The session of a row, with the activity that stands beside its record.

        Raises:
            Serialization: If it is damaged.
        """
        id, version, epoch, last_seen, *_ = row
        record: bytes = row[6]
        try:
            session, secret = self.opened(id, version, record)
        except Serialization as error:
            self.damage.note(RecordKind.SESSION, id, error)
            raise
        if micros(session.last_seen_at) < last_seen:
            session = replace(session, last_seen_at=moment(last_seen))
        return Held(session, secret, epoch)

    def opened(self, id: bytes, version: int, record: bytes) -> StoredSession:
        """
        What a record of a session says; nothing is named in the log.

        Raises:
            Serialization: If it is damaged.
        """
        return decode_session(self._codec.decode(RecordKind.SESSION, id, version, record))

    def readable(self, row: Row) -> Held | None:
        """Like ``held`` where one damaged record must not stop what is done to others."""
        try:
            return self.held(row)
        except Serialization:
            return None

    def sealed_event(self, partition: int, sequence: int, record: bytes) -> bytes:
        """The record of an event, as it is stored at its place in the log."""
        return self._codec.encode(RecordKind.EVENT, EVENT_ID.pack(partition, sequence), 0, record)

    def event(self, partition: int, sequence: int, record: bytes) -> AnyEvent:
        """
        The event of a record.

        Raises:
            Serialization: If it is damaged.
        """
        return decode_event(self._codec.decode(RecordKind.EVENT, EVENT_ID.pack(partition, sequence), 0, record))

    def forget_reports(self) -> None:
        """The damage was put right; what is found from now on is new."""
        self.damage.forget()


class Partition:
    """A row of ``roomkey_partitions`` in the making: where the log of a partition ends, and its counters."""

    __slots__ = (
        "created_today",
        "day",
        "ended",
        "ended_micros",
        "fence",
        "head",
        "id",
        "is_changed",
        "states",
        "tail",
    )

    def __init__(self, row: Row) -> None:
        self.id: int = row[0]
        self.head, self.tail, self.fence = row[1:4]
        self.states: list[int] = list(row[4:9])
        self.day, self.created_today, self.ended, self.ended_micros = row[9:]
        self.is_changed = False

    def row(self) -> Sequence[Any]:
        """The parameters of ``put_partitions``."""
        figures = (self.day, self.created_today, self.ended, self.ended_micros)
        return (self.head, self.tail, self.fence, *self.states, *figures, self.id)

    def created(self, at: datetime) -> None:
        """A pending session was added."""
        self.states[0] += 1
        day = at.toordinal()
        if day == self.day:
            self.created_today += 1
        elif day > self.day:
            self.day, self.created_today = day, 1

    def added(self, state: SessionState) -> None:
        """A session in this state is there now, which was made elsewhere."""
        self.states[NUMBER_OF[state]] += 1
        self.is_changed = True

    def moved(self, before: SessionState, after: SessionState) -> None:
        """A session changed its state."""
        self.states[NUMBER_OF[before]] -= 1
        self.states[NUMBER_OF[after]] += 1

    def removed(self, state: SessionState) -> None:
        """A session in this state is gone."""
        self.states[NUMBER_OF[state]] -= 1

    def finished(self, age: timedelta) -> None:
        """A live session of this age ended."""
        self.ended += 1
        # A clock that was set back makes ages negative; the sum must not be.
        self.ended_micros += max(0, age // _MICROSECOND)


def key_of(id: SessionId) -> bytes | None:
    """The key of a session, or ``None`` for an id that cannot be in the table."""
    key = id.encode("utf-8", "surrogatepass")
    return key if len(key) == KEY_BYTES and b"\0" not in key else None


KEY_BYTES: Final = 28
"""Two hex digits and 26 characters of base32."""
