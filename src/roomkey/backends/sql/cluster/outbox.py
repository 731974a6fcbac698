"""
What this node publishes: all that waits goes out in one statement, and is told to the others in one notification.

A statement whose answer was lost is repeated: the server knows which turn of which sender it has made, and what it has
said of it. One that comes too late finds that the next one was made, and does nothing.
"""

import asyncio
from collections.abc import Sequence
from hashlib import blake2b
from secrets import token_bytes
from string import ascii_lowercase
from time import monotonic
from typing import Final, NamedTuple

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.sql.cluster.cluster_queries import ClusterQueries
from roomkey.backends.sql.cluster.deliveries import PARTITIONS, Own, hint_of, mark_of
from roomkey.backends.sql.database import Database
from roomkey.backends.sql.statements import Row, run
from roomkey.errors import Conflict, OutcomeUnknown, RoomkeyError, Storage
from roomkey.ports import MessageKey, Position, Publication, Published

EPOCH_LETTERS: Final = 8

MAX_HINT_CHARACTERS: Final = 4500
"""The longest names of rooms in a notification, which has less than 8000 characters; with more, only partitions."""

QUIET_SECONDS: Final = 5.0
"""Time without notifications after the server had no room for one."""

_TOO_MUCH: Final = "54000"
"""What PostgreSQL says when the queue of notifications is full: program_limit_exceeded."""

_PUBLISHED, _REPEATED, _CONFLICT = range(3)

_log = structlog.get_logger("roomkey.broker")


class Message(NamedTuple):
    """What is to be published."""

    room: str
    message: bytes
    origin: str
    keep: bool
    key: MessageKey | None


class Written(NamedTuple):
    """What became of each message, and what there is to be handed on."""

    outcomes: Sequence[Published | RoomkeyError]
    own: Sequence[Own]


class Outbox:
    """Writes messages down, one batch after the other. ``tag`` is what notifications of this node begin with."""

    def __init__(self, database: Database, queries: ClusterQueries, key_lifetime: int) -> None:
        """``key_lifetime`` is how long keys are remembered, in microseconds."""
        self._database = database
        self._queries = queries
        self._key_lifetime = key_lifetime
        self._sender = token_bytes(8)
        self.tag: Final = self._sender.hex()
        self.channel = ""
        self._turn = 0
        self._quiet_until = 0.0

    @property
    def is_quiet(self) -> bool:
        """Whether the server had no room for notifications a moment ago."""
        return monotonic() < self._quiet_until

    async def write(self, messages: Sequence[Message]) -> Written:
        """
        Publish all of them, in order; no key comes twice.

        Raises:
            Storage: If the database failed; nothing was published.
            OutcomeUnknown: If it is not known whether it was.
        """
        self._turn += 1
        try:
            (columns,) = await self._write(self._turn, messages)
        except Storage as error:
            if getattr(error.__cause__, "sqlstate", None) != _TOO_MUCH or self.is_quiet:
                raise
            _log.warning("notifications_full", server=str(self._database.place), pause_in_seconds=QUIET_SECONDS)
            self._quiet_until = monotonic() + QUIET_SECONDS
            return await self.write(messages)
        return _written(messages, list(zip(*columns, strict=True)))

    async def _write(self, turn: int, messages: Sequence[Message]) -> Sequence[Row]:
        parameters = self._parameters(turn, messages)

        async def publish(connection: AsyncConnection) -> Sequence[Row]:
            return await run(connection, self._queries.publish, *parameters)

        unknown: OutcomeUnknown | None = None
        for number in range(1, self._database.settings.recovery.tries + 1):
            try:
                rows = await self._database.write_at_once(publish, may_repeat=False)
            except OutcomeUnknown as error:
                unknown = error
            except Storage as error:
                if unknown is None:
                    raise
                unknown.__cause__ = error  # the one before may still have been made
            else:
                if rows:
                    return rows
                unknown = OutcomeUnknown("a later turn was made")
            await asyncio.sleep(self._database.pause(number))
        assert unknown is not None  # noqa: S101  # the loop ends otherwise
        raise unknown

    def _parameters(self, turn: int, messages: Sequence[Message]) -> Sequence[object]:
        marks = [mark_of(each.room) for each in messages]
        by_partition: dict[int, set[int]] = {}
        for mark in marks:
            by_partition.setdefault(mark % PARTITIONS, set()).add(mark)
        partitions = sorted(by_partition)
        hints = [hint_of(by_partition[id]) for id in partitions]
        if sum(map(len, hints)) > MAX_HINT_CHARACTERS:
            hints = ["*"] * len(partitions)
        return (
            self._sender,
            turn,
            new_epoch(),
            self._key_lifetime,
            None if self.is_quiet else self.channel,
            self.tag,
            partitions,
            hints,
            [mark % PARTITIONS for mark in marks],
            [each.room.encode() for each in messages],
            [each.keep for each in messages],
            [None if each.key is None else hash_of(each.key) for each in messages],
            [None if each.key is None else _signed(each.key.content) for each in messages],
            [each.origin.encode() for each in messages],
            [each.message for each in messages],
        )


def _written(messages: Sequence[Message], rows: Sequence[Row]) -> Written:
    outcomes: list[Published | RoomkeyError] = []
    own: list[Own] = []
    for each, (outcome, era, number, epoch, offset) in zip(messages, rows, strict=True):
        position = None if offset is None else Position(epoch, offset)
        if outcome == _CONFLICT:
            outcomes.append(Conflict("the message id was used for something else"))
            continue
        outcomes.append(Published(position, repeated=outcome == _REPEATED))
        if outcome == _PUBLISHED:
            publication = Publication(each.message, each.origin, position)
            own.append(Own(mark_of(each.room) % PARTITIONS, era, number, each.room, publication))
    return Written(outcomes, own)


def new_epoch() -> str:
    """A random epoch."""
    # Asked for with every statement, so the system is asked once; that some letters are likelier does not matter.
    return "".join(ascii_lowercase[byte % len(ascii_lowercase)] for byte in token_bytes(EPOCH_LETTERS))


def hash_of(key: MessageKey) -> bytes:
    """What stands for the id of a message: 16 bytes, whatever the names."""
    sender = key.sender.encode("utf-8", "surrogatepass")
    id = key.id.encode("utf-8", "surrogatepass")
    return blake2b(len(sender).to_bytes(4) + sender + id, digest_size=16).digest()


def _signed(content: int) -> int:
    """64 bits as PostgreSQL has them."""
    return content - (1 << 64) if content >= 1 << 63 else content
