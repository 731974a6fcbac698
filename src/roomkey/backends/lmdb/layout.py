"""
Where things stand in the file: its tables, their keys, and the few values that are not records.

Keys sort as bytes, so numbers are big-endian, and times are microseconds since 1970.

| table | key | value |
|---|---|---|
| sessions | id | epoch at issue, position in ``deadlines`` or ``ended``, session record |
| users | user, 0 live or 1 ended, created at, id | nothing |
| epochs | user | epoch; only of users who were revoked |
| deadlines | time, id | nothing; of live sessions, never later than their deadline |
| ended | time of the last event, id | nothing |
| events, slots | | see ``log`` |
| meta | ``format``, ``ledger``, ``tails``, ``fence`` | see ``FORMAT``, ``Counters``, ``log`` and ``ports.Leases`` |
| meta | ``checkpoint`` and a consumer | the number of the last event that it has dealt with in each partition |
| aside | a number | what ``Aside`` says |

Every value but that of ``format`` and ``aside`` goes through the codec, which is the one of ``RecordKind.FIGURES`` for
what is not a record.
"""

import struct
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from roomkey.domain.session import PARTITIONS, Session, SessionId, SessionState
from roomkey.errors import Serialization
from roomkey.ports import StorageStatistics

FORMAT: Final = b"roomkey 2"
"""What the whole file is; a file with another mark is not touched."""

PLAIN_FORMAT: Final = b"roomkey 1"
"""The mark of a file whose values carry no checksums; there were no others at first."""

FORMAT_KEY: Final = b"format"
COUNTERS_KEY: Final = b"ledger"  # another word would be another format
TAILS_KEY: Final = b"tails"
FENCE_KEY: Final = b"fence"
CHECKPOINTS: Final = b"checkpoint "
"""What the keys of checkpoints begin with."""
FENCE_BYTES: Final = 8

MAX_KEY_BYTES: Final = 511
"""LMDB's limit. The longest key of ours, in ``users``, has 2 + 256 + 1 + 8 + 28 bytes."""

SLOT_SIZE: Final = 256
"""So many events are in a slot, see ``log``."""

LIVE: Final = b"\0"
ENDED: Final = b"\1"

HEADER: Final = struct.Struct(">Iq")
"""In front of a session record: the user's epoch when it was issued, and where it stands in its time index."""

TIME: Final = struct.Struct(">q")
EPOCH: Final = struct.Struct(">I")
_LENGTH: Final = struct.Struct(">H")

_ORIGIN: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_STATES: Final = tuple(SessionState)
_NUMBER_OF: Final = {state: number for number, state in enumerate(_STATES)}
_PENDING: Final = _NUMBER_OF[SessionState.PENDING]


def micros(moment: datetime) -> int:
    """``moment`` as it stands in keys."""
    return (moment - _ORIGIN) // _MICROSECOND


def session_key(id: SessionId) -> bytes | None:
    """The key of a session, or ``None`` for an id that cannot be in the table."""
    key = id.encode("utf-8", "surrogatepass")
    return key if 0 < len(key) <= MAX_KEY_BYTES else None


def user_key(user_id: str) -> bytes | None:
    """The key of a user's epoch, or ``None`` for text that cannot be a user's id."""
    key = user_id.encode("utf-8", "surrogatepass")
    return key if 0 < len(key) <= MAX_KEY_BYTES else None


def user_prefix(user: bytes) -> bytes:
    """What all of a user's keys in ``users`` begin with, and nobody else's: hence the length in front."""
    return _LENGTH.pack(len(user)) + user


def time_key(micros: int, key: bytes) -> bytes:
    """A key in ``deadlines`` or ``ended``."""
    return TIME.pack(micros) + key


def moment(micros: int) -> datetime:
    """The moment that stands in a key."""
    return _ORIGIN + micros * _MICROSECOND


def time_and_key(entry: bytes) -> tuple[int, bytes] | None:
    """What a key in ``deadlines`` or ``ended`` says; ``None`` for one that is damaged."""
    return (TIME.unpack_from(entry)[0], entry[TIME.size :]) if len(entry) > TIME.size else None


class Counters:
    """
    The figures that every commit keeps current: counters, and where the event log ends.

    One value of two kilobytes, read once and written once per commit, however many changes it groups.
    ``states`` counts the sessions in each state, in the order of ``SessionState``; ``slot`` and ``room`` are
    the last slot of the log and how many events still fit into it.
    """

    __slots__ = ("created_today", "day", "ended", "ended_micros", "heads", "room", "slot", "states")

    _FIGURES: Final = struct.Struct(f">{len(_STATES)}QiQQQII")
    _HEADS: Final = struct.Struct(f">{PARTITIONS}Q")
    _MOST: Final = 2**62
    _LAST_SLOT: Final = 2**31

    SIZE: Final = _FIGURES.size + _HEADS.size

    def __init__(self, value: bytes | None) -> None:
        """
        ``value`` is what ``pack`` returned; without one, everything is nought.

        Raises:
            Serialization: If it cannot be what ``pack`` returned.
        """
        if value is None:
            value = bytes(self.SIZE)
        if len(value) != self.SIZE:
            raise Serialization("the counters have a wrong length")
        self.states: list[int]
        self.day: int
        self.created_today: int
        *self.states, self.day, self.created_today, self.ended, self.ended_micros, self.slot, self.room = (
            self._FIGURES.unpack_from(value)
        )
        self.heads: list[int] = list(self._HEADS.unpack_from(value, self._FIGURES.size))
        counts = (*self.states, self.created_today, self.ended, self.ended_micros, *self.heads)
        if max(counts) > self._MOST or self.slot > self._LAST_SLOT or self.room > SLOT_SIZE:
            raise Serialization("the counters cannot be true")

    def pack(self) -> bytes:
        """The value that is stored."""
        # Negative they get only where a flipped bit has made one too low, and that must not stop every commit.
        states = [max(0, count) for count in self.states]
        figures = (self.day, self.created_today, self.ended, self.ended_micros, self.slot, self.room)
        return self._FIGURES.pack(*states, *figures) + self._HEADS.pack(*self.heads)

    @classmethod
    def heads_of(cls, value: bytes) -> dict[int, int]:
        """
        The last sequence number of each partition that has one, without looking at the rest.

        Raises:
            Serialization: If the value has a wrong length.
        """
        if len(value) != cls.SIZE:
            raise Serialization("the counters have a wrong length")
        heads = cls._HEADS.unpack_from(value, cls._FIGURES.size)
        return {partition: head for partition, head in enumerate(heads) if head}

    def created(self, at: datetime) -> None:
        """A pending session was added."""
        self.states[_PENDING] += 1
        day = at.toordinal()
        if day == self.day:
            self.created_today += 1
        elif day > self.day:
            self.day, self.created_today = day, 1

    def moved(self, before: SessionState, after: SessionState) -> None:
        """A session changed its state."""
        self.states[_NUMBER_OF[before]] -= 1
        self.states[_NUMBER_OF[after]] += 1

    def added(self, state: SessionState) -> None:
        """A session in this state was taken in from elsewhere."""
        self.states[_NUMBER_OF[state]] += 1

    def removed(self, state: SessionState) -> None:
        """A session in this state is gone."""
        self.states[_NUMBER_OF[state]] -= 1

    def finished(self, age: timedelta) -> None:
        """A live session of this age ended."""
        self.ended += 1
        # A clock that was set back makes ages negative; the sum must not be.
        self.ended_micros += max(0, age // _MICROSECOND)

    def found(self, state: SessionState) -> None:
        """There is a session in this state that was not counted yet."""
        self.states[_NUMBER_OF[state]] += 1

    def happened(self, session: Session, position: int) -> None:
        """Count when the session was created and ended; ``position`` is where it stands in its index of time."""
        day = session.created_at.toordinal()
        if day > self.day:
            self.day, self.created_today = day, 0
        self.created_today += day == self.day
        if not session.state.is_live:
            self.ended += 1
            self.ended_micros += max(0, position - micros(session.created_at))

    def count(self, state: SessionState | None) -> int:
        """How many sessions are in ``state``, or in any."""
        return sum(self.states) if state is None else self.states[_NUMBER_OF[state]]

    def statistics(self, now: datetime) -> StorageStatistics:
        """The counters as the port wants them."""
        return StorageStatistics(
            states=dict(zip(_STATES, self.states, strict=True)),
            created_today=self.created_today if now.toordinal() == self.day else 0,
            ended=self.ended,
            ended_duration=timedelta(microseconds=self.ended_micros),
        )


class UserEntry(NamedTuple):
    """An entry of ``users``. A user's sessions are listed by their creation, then by id."""

    created: int
    id: bytes

    def key(self, prefix: bytes, part: bytes) -> bytes:
        """Its key in ``users``."""
        return prefix + part + TIME.pack(self.created) + self.id

    def pack(self) -> bytes:
        """The entry as bytes, for cursors."""
        return TIME.pack(self.created) + self.id

    @classmethod
    def unpack(cls, value: bytes) -> "UserEntry":
        """The entry that ``pack`` wrote down."""
        (created,) = TIME.unpack_from(value)
        return cls(created, value[TIME.size :])

    @classmethod
    def of(cls, key: bytes, prefix: bytes) -> "UserEntry | None":
        """The entry that has this key in ``users``; ``None`` for a key that is damaged."""
        start = len(prefix) + 1
        if len(key) <= start + TIME.size:
            return None
        (created,) = TIME.unpack_from(key, start)
        return cls(created, key[start + TIME.size :])
