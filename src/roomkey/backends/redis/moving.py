"""Moving house: sessions, epochs and events in Redis that are handed over, or taken in as they were elsewhere."""

from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from roomkey.backends.redis.connection import Argument
from roomkey.backends.redis.layout import (
    ID_BYTES,
    NUMBER_OF,
    Header,
    Partition,
    id_key,
    id_of,
    micros,
    moment_of,
    user_prefix,
)
from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import Call, RedisServer
from roomkey.backends.redis.stored import Found, Translator
from roomkey.backends.taking_in import follows, raised, succeeds
from roomkey.domain.lifecycle import deadline
from roomkey.domain.session import LIVE_STATES, SessionId
from roomkey.errors import Conflict, InvalidInput, Serialization
from roomkey.ports import EpochItem, EventItem, Gone, LoggedEvent, LogStart, PartitionItem, SessionItem, Unreadable

EXPORTED_AT_ONCE: Final = 250
"""Sessions in one answer: below a millisecond, in which the server does nothing else."""

APPENDED_AT_ONCE: Final = 250
"""Events that are appended in one step."""

MAX_EPOCHS: Final = 1000
"""Epochs in a batch."""

_EXPORT: Final = Script("sessions/export")
_PLACE: Final = Script("sessions/place")
_TAKE_OUT: Final = Script("sessions/take_out")
_RAISE_EPOCH: Final = Script("sessions/raise_epoch")
_BEGIN_LOG: Final = Script("sessions/begin_log")
_TAKE_EVENTS: Final = Script("sessions/take_events")

_DAMAGED: Final = -4

_MEANWHILE: Final = "somebody else writes to what is taken in"


class Moving:
    """What hands over and takes in."""

    def __init__(self, server: RedisServer, partitions: Sequence[Partition], translator: Translator) -> None:
        self._server = server
        self._partitions = partitions
        self._translator = translator

    # --- hand over ------------------------------------------------------------------------------------

    async def sessions(self, number: int) -> AsyncIterator[Sequence[SessionItem | Unreadable]]:
        """``MovableSessions.export_sessions``."""
        partition = self._partitions[number]
        found = await self._server.ask_many([("HKEYS", shelf) for shelf in partition.shelves])
        for shelf, keys in zip(partition.shelves, found, strict=True):
            ids: list[bytes] = sorted(keys)
            for start in range(0, len(ids), EXPORTED_AT_ONCE):
                items = await self._items(partition, shelf, ids[start : start + EXPORTED_AT_ONCE])
                yield [item for item in items if item is not None]

    async def _items(
        self, partition: Partition, shelf: bytes, ids: Sequence[bytes]
    ) -> list[SessionItem | Unreadable | None]:
        # May be repeated: it changes nothing.
        found = await self._server.run(_EXPORT, (shelf, partition.ended), ids, may_repeat=True)
        return [
            self._item(partition.number, id, value, time)
            for id, value, time in zip(ids, found[::2], found[1::2], strict=True)
        ]

    def _item(
        self, partition: int, key: bytes, value: bytes | None, time: bytes | None
    ) -> SessionItem | Unreadable | None:
        if value is None:
            return None  # it was deleted since
        if len(key) != ID_BYTES:
            return Unreadable(f"session {key.hex()}")
        id = id_of(partition, key)
        try:
            return item_of(self._translator.found(id, value, None), time)
        except Serialization:
            return Unreadable(f"session {id}")

    async def epochs(self) -> AsyncIterator[Sequence[EpochItem | Unreadable]]:
        """``MovableSessions.export_epochs``."""
        for partition in self._partitions:
            found: Mapping[bytes, bytes] = await self._server.ask("HGETALL", partition.epochs)
            epochs = [_epoch(user, epoch) for user, epoch in found.items()]
            for start in range(0, len(epochs), MAX_EPOCHS):
                yield epochs[start : start + MAX_EPOCHS]

    # --- take in --------------------------------------------------------------------------------------

    async def take_in(self, number: int, items: Sequence[PartitionItem]) -> None:
        """``MovableSessions.take_in``: items of one kind in a row are sent together."""
        partition = self._partitions[number]
        for kind, group in groupby(items, type):
            some: Any = [*group]
            if kind is SessionItem:
                await self._take_in_sessions(partition, some)
            elif kind is EpochItem:
                await self._take_in_epochs(partition, some)
            elif kind is LogStart:
                await self._begin_log(partition, some)
            elif kind is EventItem:
                await self._take_in_events(partition, some)
            else:
                await self._take_out(partition, some)

    async def _take_in_sessions(self, partition: Partition, items: Sequence[SessionItem]) -> None:
        """Store those that succeed what is there; some of them may have the same id."""
        waiting = [*items]
        last = len(items)
        for _ in range(len(items) + 1):
            placements, conflict = await self._placements(partition, waiting)
            calls = [call for _, call in placements]
            # May be repeated: it is done in the place of what was read; the second time finds itself there.
            outcomes = await self._server.run_many(calls, may_repeat=True)
            waiting = [item for (item, _), done in zip(placements, outcomes, strict=True) if not done]
            if conflict is not None:
                raise conflict
            if not waiting:
                return
            if len(waiting) == last:
                break
            last = len(waiting)
        raise Conflict(_MEANWHILE)

    async def _placements(
        self, partition: Partition, items: Sequence[SessionItem]
    ) -> tuple[list[tuple[SessionItem, Call]], Exception | None]:
        """What is to be stored, up to an item that contradicts what is there."""
        keys = [_key_of(item.session.id) for item in items]
        calls = [Call(_EXPORT, (partition.shelves[key[0] >> 4], partition.ended), (key,)) for key in keys]
        replies = await self._server.run_many(calls, may_repeat=True)  # they change nothing
        placements: list[tuple[SessionItem, Call]] = []
        for item, key, (value, time) in zip(items, keys, replies, strict=True):
            try:
                held = value and item_of(self._translator.found(item.session.id, value, None), time)
                if succeeds(item, held or None):
                    placements.append((item, self._placement(partition, key, item, value or b"")))
            except (Conflict, Serialization) as error:
                return placements, error
        return placements, None

    def _placement(self, partition: Partition, key: bytes, item: SessionItem, before: bytes) -> Call:
        session = item.session
        seen, created = micros(session.last_seen_at), micros(session.created_at)
        header = Header(session.version, NUMBER_OF[session.state], item.epoch, created, seen)
        value = header.value(_prefix_of(session.user_id), self._translator.record(session, item.secret))
        time = item.ended_at or deadline(session) or session.expires_at
        return Call(_PLACE, partition.single[key[0] >> 4], (key, before, value, micros(time)))

    async def _take_in_epochs(self, partition: Partition, items: Sequence[EpochItem]) -> None:
        calls = [Call(_RAISE_EPOCH, (partition.epochs,), (_prefix_of(item.user), item.epoch)) for item in items]
        # May be repeated: it only rises.
        for item, held in zip(items, await self._server.run_many(calls, may_repeat=True), strict=True):
            raised(item.epoch, held)

    async def _begin_log(self, partition: Partition, items: Sequence[LogStart]) -> None:
        for item in items:
            # May be repeated: what was forgotten stays so.
            await self._server.run(_BEGIN_LOG, (partition.figures, partition.log), (item.after,), may_repeat=True)

    async def _take_in_events(self, partition: Partition, items: Sequence[EventItem]) -> None:
        head, held = await self._log(partition, items[0].sequence, items[-1].sequence)
        new: list[EventItem] = []
        conflict: Conflict | None = None
        for item in items:
            try:
                if follows(item.sequence, item.event, head, held.get(item.sequence)):
                    new.append(item)
                    head = item.sequence
            except Conflict as error:
                conflict = error
                break
        for start in range(0, len(new), APPENDED_AT_ONCE):
            some = new[start : start + APPENDED_AT_ONCE]
            arguments: list[Argument] = [some[0].sequence]
            for item in some:
                arguments += (micros(item.event.at), *self._translator.event(item.event))
            # May be repeated: it is done at the end that was read; the second time finds the first event there.
            if not await self._server.run(_TAKE_EVENTS, partition.single[0], arguments, may_repeat=True):
                raise Conflict(_MEANWHILE)
        if conflict is not None:
            raise conflict

    async def _log(self, partition: Partition, first: int, last: int) -> tuple[int, Mapping[int, LoggedEvent]]:
        """Where the log ends, and its events of these numbers that can be read."""
        head, entries = await self._server.ask_many(
            [("HGET", partition.figures, "head"), ("XRANGE", partition.log, f"{first}-0", f"{last}-0")]
        )
        found = [each for entry in entries for each in self._translator.events(partition.number, [entry])]
        return int(head or 0), {each.sequence: each for each in found}

    async def _take_out(self, partition: Partition, items: Sequence[Gone]) -> None:
        calls = [
            Call(_TAKE_OUT, partition.single[key[0] >> 4], (key,))
            for item in items
            if (key := id_key(item.session)) is not None
        ]
        # May be repeated: what is gone stays so.
        if _DAMAGED in await self._server.run_many(calls, may_repeat=True):
            raise Serialization("a session record is damaged")


def item_of(found: Found, time: bytes | None) -> SessionItem:
    """
    A session in the form in which it is handed over; ``time`` is what the index of those that are over says.

    Raises:
        Serialization: If it is over, and is not there.
    """
    held = found.held
    if held.session.state in LIVE_STATES:
        return SessionItem(held.session, held.secret, held.epoch, None)
    if time is None:
        raise Serialization("an index does not list the session")
    return SessionItem(held.session, held.secret, held.epoch, moment_of(int(float(time))))


def _epoch(user: bytes, epoch: bytes) -> EpochItem | Unreadable:
    try:
        return EpochItem(user[1:].decode(), int(epoch))
    except ValueError:
        return Unreadable(f"the epoch of user {user[1:].decode(errors='replace')!r}")


def _key_of(id: SessionId) -> bytes:
    key = id_key(id)
    if key is None:
        raise InvalidInput("a session id is two hex digits and 128 bits in base32")
    return key


def _prefix_of(user: str) -> bytes:
    prefix = user_prefix(user)
    if prefix is None:
        raise InvalidInput("a user id has 1 to 256 bytes")
    return prefix
