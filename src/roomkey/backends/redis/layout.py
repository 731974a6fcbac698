"""
Where sessions stand in Redis: the keys of a partition, and what is in front of a record.

All keys of a partition have its number as their hash tag, ``{roomkey:3f}``, so that they lie in one slot. They are few
and always the same, however many sessions there are; that lets scripts name every key that they use.

| key | type | holds |
|---|---|---|
| s0 … sf | hash | id → header, record; which one, the first four bits of the id say |
| e | hash | user → epoch; only of users who were revoked |
| l, o | sorted set | user, created at, id; of live sessions and of those that are over, in the order of bytes |
| d | sorted set | id by deadline, never later than it; of live sessions |
| n | sorted set | id by time of the last event; of those that are over |
| m | hash | figures: ``head``, ``fence`` of the log, ``s0`` … ``s4`` by state, ``day``, ``today``, ``ended``, ``age`` |
| x | stream | the log: ``7-0`` is event 7, with its time, its key and its record |
| a | hash | what was damaged and put aside, by where it lay |

Ids are the 16 bytes that they stand for, a user is one byte of length less one and then the name, times are
microseconds since 1970. Nothing has a TTL: deadlines are decided from what is in the record.
"""

from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, Self

from roomkey.domain.session import MAX_USER_ID_BYTES, PARTITIONS, SessionId, SessionState
from roomkey.errors import Serialization
from roomkey.security.tokens import is_session_id

ID_BYTES: Final = 16
TIME_BYTES: Final = 7
"""Of a time in the indexes of users and in headers: microseconds until the year 4253."""


SHELVES: Final = 16
"""Hashes of records in a partition, so that whoever lists all sessions reads few ids for a page."""

_SCRIPTED: Final = ("e", "l", "o", "d", "n", "m", "x")
"""The keys that every script gets first, in its order."""

_HEADER_BYTES: Final = 24
"""Version 3 bytes, state 1, epoch 3, created at and last seen at 7 each, sum 3; behind it comes the user."""

_MODULUS: Final = 16777213
"""The largest prime of 24 bits."""

_STATES: Final = tuple(SessionState)
NUMBER_OF: Final = {state: number for number, state in enumerate(_STATES)}

_ORIGIN: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

_LETTERS: Final = "234567abcdefghijklmnopqrstuvwxyz"
"""The digits of base32 in the order in which they sort as text, so that ids sort alike in either form."""

_DIGITS: Final = str.maketrans(_LETTERS, "0123456789abcdefghijklmnopqrstuv")
"""From those to what ``int`` reads."""

_LEAST: Final = _LETTERS.index("a") << 125
"""The smallest of our ids: 26 digits have two bits more than 16 bytes, so the first one is from a to h."""


def micros(moment: datetime) -> int:
    """``moment`` as it is stored."""
    return (moment - _ORIGIN) // _MICROSECOND


def moment_of(number: int) -> datetime:
    """The moment that was stored as ``number``."""
    return _ORIGIN + number * _MICROSECOND


def id_key(id: SessionId) -> bytes | None:
    """The bytes of an id, or ``None`` if it cannot be one of ours."""
    if not is_session_id(id):
        return None
    number = int(id[2:].translate(_DIGITS), 32) - _LEAST
    return number.to_bytes(ID_BYTES) if 0 <= number < 1 << 8 * ID_BYTES else None


def id_of(partition: int, key: bytes) -> SessionId:
    """The id that these bytes stand for."""
    number = int.from_bytes(key) + _LEAST
    return SessionId(f"{partition:02x}" + "".join(_LETTERS[number >> shift & 31] for shift in range(125, -1, -5)))


def user_prefix(user_id: str) -> bytes | None:
    """A user as it stands in indexes, and nobody else's begins so; ``None`` for text that cannot be a user's id."""
    try:
        user = user_id.encode()
    except UnicodeEncodeError:
        return None
    return bytes([len(user) - 1]) + user if 0 < len(user) <= MAX_USER_ID_BYTES else None


class Header(NamedTuple):
    """
    What scripts have to know of a session. ``seen`` is later than in the record if it was touched since.

    It has a sum of its own, because scripts change it without looking at the record.
    """

    version: int
    state: int
    epoch: int
    created: int
    seen: int

    @classmethod
    def of(cls, value: bytes) -> tuple[Self, bytes]:
        """
        The header of a value, and the record behind it.

        Raises:
            Serialization: If it is damaged.
        """
        size = _HEADER_BYTES
        if len(value) < size + 2:
            raise Serialization("a session record is damaged: it is too short")
        number = int.from_bytes
        header = cls(number(value[:3]), value[3], number(value[4:7]), number(value[7:14]), number(value[14:21]))
        if number(value[21:24]) != header.total():
            raise Serialization("a session record is damaged: the sum of its header is wrong")
        return header, value[size + 2 + value[size] :]

    def value(self, user: bytes, record: bytes) -> bytes:
        """What is stored of a session; ``user`` has its length in front."""
        numbers = ((self.version, 3), (self.state, 1), (self.epoch, 3), (self.created, 7), (self.seen, 7))
        return b"".join(number.to_bytes(size) for number, size in (*numbers, (self.total(), 3))) + user + record

    def total(self) -> int:
        """The sum, as the scripts have it; no bit can change without it."""
        return (self.version * 7 + self.state * 1009 + self.epoch * 100003 + self.created + self.seen) % _MODULUS


class Partition:
    """The keys of a partition."""

    __slots__ = ("all", "aside", "deadlines", "ended", "epochs", "figures", "log", "number", "shelves", "single")

    def __init__(self, number: int, prefix: bytes) -> None:
        def key(name: str) -> bytes:
            return b"{%b:%02x}%b" % (prefix, number, name.encode())

        self.number = number
        self.shelves = [key(f"s{shelf:x}") for shelf in range(SHELVES)]
        scripted = [key(name) for name in _SCRIPTED]
        self.epochs, _, _, self.deadlines, self.ended, self.figures, self.log = scripted
        self.aside = key("a")
        self.all = [*scripted, *self.shelves]
        """For scripts that look at several sessions."""
        self.single = [[*scripted, shelf] for shelf in self.shelves]
        """For those that look at one, by the number of its shelf."""

    def read_keys(self, id: bytes) -> tuple[bytes, bytes]:
        """For those that read one."""
        return self.shelves[id[0] >> 4], self.epochs


def partitions(prefix: bytes) -> list[Partition]:
    """The keys of all partitions."""
    return [Partition(number, prefix) for number in range(PARTITIONS)]


def state_of(number: int) -> SessionState | None:
    """The state that has this number."""
    return _STATES[number] if number < len(_STATES) else None
