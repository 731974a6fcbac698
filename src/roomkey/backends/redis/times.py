"""What the janitor asks for: sessions that are overdue, and those that ended long ago."""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from heapq import heappop, heappush
from typing import Any, Final, NamedTuple

from roomkey.backends.redis.layout import Partition, id_of, micros
from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import Call, RedisServer
from roomkey.backends.redis.stored import Found, Translator
from roomkey.backends.redis.writes import Writes
from roomkey.backends.session_changes import Change
from roomkey.domain.lifecycle import deadline
from roomkey.domain.session import Invalidated, Session, SessionId

CHUNKS: Final = (8, 200)
"""Entries that are read of one partition at a time, at least and at most."""

_DUE: Final = Script("sessions/due")
_RESCHEDULE: Final = Script("sessions/reschedule")


class _Entry(NamedTuple):
    """An entry of an index of times. ``found`` is ``None`` if there is no record that can be read."""

    partition: Partition
    id: SessionId
    key: bytes
    time: int
    is_there: bool
    found: Found | None


class _Front:
    """How far an index was read in one partition."""

    __slots__ = ("entries", "is_at_end", "offset", "partition")

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.entries = deque[_Entry]()
        self.offset = 0
        self.is_at_end = False

    @property
    def is_dry(self) -> bool:
        return not self.entries and not self.is_at_end


class Times:
    """The indexes of times of all partitions, as one."""

    def __init__(
        self, server: RedisServer, partitions: Sequence[Partition], translator: Translator, writes: Writes
    ) -> None:
        self._server = server
        self._partitions = partitions
        self._translator = translator
        self._writes = writes

    async def overdue(self, now: datetime, limit: int) -> list[Session]:
        """``SessionStorage.overdue``. Entries that are early are put where they belong on the way."""

        async def read(fronts: Sequence[_Front], chunk: int) -> list[list[_Entry]]:
            return await self._deadlines(fronts, chunk, now)

        return await self._first(read, limit, chunk=self._chunk(limit))

    async def ended_before(self, moment: datetime, limit: int) -> list[Session]:
        """``SessionStorage.ended_before``."""

        async def read(fronts: Sequence[_Front], chunk: int) -> list[list[_Entry]]:
            calls = [
                self._due(front.partition, front.partition.ended, f"({micros(moment)}", front.offset, chunk)
                for front in fronts
            ]
            return await self._entries(fronts, calls)

        return await self._first(read, limit, chunk=self._chunk(limit))

    def _chunk(self, limit: int) -> int:
        """Users are spread evenly over the partitions, so that each has about as many."""
        least, most = CHUNKS
        return min(limit, max(least, 2 * limit // len(self._partitions)), most)

    async def _first(
        self,
        read: Callable[[Sequence[_Front], int], Awaitable[list[list[_Entry]]]],
        limit: int,
        *,
        chunk: int,
    ) -> list[Session]:
        """The first ``limit`` sessions of all partitions, in the order of time."""
        fronts = [_Front(partition) for partition in self._partitions]
        heads: list[tuple[int, SessionId, int]] = []
        found: list[Session] = []
        dry: list[int] = list(range(len(fronts)))
        while len(found) < limit:
            for number, entries in zip(dry, await read([fronts[number] for number in dry], chunk), strict=True):
                front = fronts[number]
                front.entries.extend(entries)
                front.offset += len(entries)
                front.is_at_end = len(entries) < chunk
                if front.entries:
                    heappush(heads, (front.entries[0].time, front.entries[0].id, number))
            dry.clear()
            while heads and not dry and len(found) < limit:
                _, _, number = heappop(heads)
                front = fronts[number]
                entry = front.entries.popleft()
                if entry.found is not None:
                    found.append(entry.found.as_read())
                if front.entries:
                    heappush(heads, (front.entries[0].time, front.entries[0].id, number))
                elif front.is_dry:
                    dry.append(number)
            if not heads and not dry:
                break
        return found

    async def _deadlines(self, fronts: Sequence[_Front], chunk: int, now: datetime) -> list[list[_Entry]]:
        """The next entries of each, when all of these are right: nobody behind them can be due before them."""
        ready: dict[int, list[_Entry]] = {}
        waiting = list(range(len(fronts)))
        while waiting:
            calls = [
                self._due(
                    fronts[place].partition, fronts[place].partition.deadlines, micros(now), fronts[place].offset, chunk
                )
                for place in waiting
            ]
            read = await self._entries([fronts[place] for place in waiting], calls)
            wrong: list[int] = []
            for place, entries in zip(waiting, read, strict=True):
                ready[place] = entries
                if await self._put_right(entries, now):
                    wrong.append(place)
            waiting = wrong
        return [ready[place] for place in range(len(fronts))]

    async def _put_right(self, entries: Sequence[_Entry], now: datetime) -> bool:
        """Whether some of ``entries`` were not where they belong; they are now."""
        dead = [entry.found for entry in entries if entry.found and entry.found.held.is_dead(entry.found.epoch)]
        for found in dead:
            await self._bury(found, now)
        calls = [_rescheduling(entry, place) for entry in entries if (place := _place(entry)) != entry.time]
        # The place of an entry follows from its session; a second time changes nothing.
        await self._server.run_many(calls, may_repeat=True)
        return bool(dead or calls)

    async def _bury(self, found: Found, now: datetime) -> None:
        """
        Give a session that died of a revocation which did not list it the event that it is missing.

        It leaves the index with that, and is purged in time.
        """
        session = found.held.session
        event = Invalidated(
            session=session.id, user=session.user_id, version=session.version + 1, at=now, reason="revoked"
        )
        await self._writes.change(found, Change.by(found.held, event), even_dead=True)

    @staticmethod
    def _due(partition: Partition, index: bytes, bound: int | str, offset: int, limit: int) -> Call:
        return Call(_DUE, (index, partition.epochs, *partition.shelves), (bound, offset, limit))

    async def _entries(self, fronts: Sequence[_Front], calls: Sequence[Call]) -> list[list[_Entry]]:
        replies: list[list[Any]] = await self._server.run_many(calls, may_repeat=True)  # they change nothing
        return [
            [self._entry(front.partition, *reply[at : at + 4]) for at in range(0, len(reply), 4)]
            for front, reply in zip(fronts, replies, strict=True)
        ]

    def _entry(self, partition: Partition, key: bytes, time: bytes, value: bytes | None, epoch: bytes | None) -> _Entry:
        id = id_of(partition.number, key)
        found = None if value is None else self._translator.readable(id, value, epoch)
        return _Entry(partition, id, key, int(float(time)), value is not None, found)


def _place(entry: _Entry) -> int:
    """Where an entry of the deadlines belongs: where it stands, or later; 0 is nowhere."""
    if entry.found is None:
        return entry.time if entry.is_there else 0
    due = None if entry.found.held.is_dead(entry.found.epoch) else deadline(entry.found.held.session)
    return entry.time if due is None else max(entry.time, micros(due))


def _rescheduling(entry: _Entry, place: int) -> Call:
    version = 0 if entry.found is None else entry.found.held.session.version
    keys = (entry.partition.deadlines, entry.partition.shelves[entry.key[0] >> 4])
    return Call(_RESCHEDULE, keys, (entry.key, version, place))
