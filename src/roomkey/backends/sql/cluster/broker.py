"""
The broker of nodes on one PostgreSQL database.

What this node does for its rooms is done in turns: what is published goes out in one statement, then one statement
says where rooms stand. What is new is told by notifications and read for all rooms at once. See ``deliveries`` for the
order in which it is handed on.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.sql.cluster.cluster_queries import ClusterQueries
from roomkey.backends.sql.cluster.deliveries import (
    PARTITIONS,
    ROWS_PER_PARTITION,
    Deliveries,
    Request,
    Seat,
    mark_of,
    parsed,
)
from roomkey.backends.sql.cluster.listening import Listening
from roomkey.backends.sql.cluster.outbox import Message, Outbox, new_epoch
from roomkey.backends.sql.cluster.trimming import Histories, Trimming
from roomkey.backends.sql.database import Database
from roomkey.backends.sql.shared_queries import MICROSECOND
from roomkey.backends.sql.statements import Row, run
from roomkey.errors import RoomkeyError, Storage
from roomkey.ports import MessageKey, Position, Publication, Published, Receiver, Recovered

MAX_MESSAGES: Final = 500
"""Publications in one statement."""

MAX_BYTES: Final = 1024 * 1024
"""Bytes of the messages in one statement, unless a single one is larger."""

MAX_LOOKS: Final = 64
"""Rooms whose histories are read in one statement."""

LEAVE_SECONDS: Final = 2.0
"""Maximum time that leaving waits for what was begun."""

_log = structlog.get_logger("roomkey.broker")


class _Look(NamedTuple):
    """Where a room stands, and what came after ``position``; a ``seat`` is settled there."""

    room: str
    position: Position | None = None
    seat: Seat | None = None


class _Call(NamedTuple):
    what: Message | _Look
    answer: "asyncio.Future[Any]"


class PostgreSQLBroker:
    """
    ``ports.Broker`` on a database of PostgreSQL, which it enters.

    Histories survive a restart of the server in good order. After a crash they begin anew, with other epochs.
    """

    shared = True

    def __init__(self, database: Database, node: str, kept: Histories) -> None:
        self._database = database
        self._queries = ClusterQueries.load()
        self._node = node
        self._kept = kept
        self._open = AsyncExitStack()
        self.is_open = False
        """Whether it is entered."""
        self._calls: deque[_Call] = deque()

    async def __aenter__(self) -> Self:
        self._calls.clear()
        self._is_due = asyncio.Event()
        self._has_news = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._deliveries = Deliveries()
        self._outbox = Outbox(self._database, self._queries, self._kept.repeat_window // MICROSECOND)
        self._listening = Listening(self._database, self._queries, on_hint=self._hear_hint, on_heads=self._hear_heads)
        self._trimming = Trimming(self._database, self._queries, self._kept, self._node)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._database)
            await self._listening.begin()
            self._outbox.channel = self._listening.channel
            group = await stack.enter_async_context(asyncio.TaskGroup())
            for work in (self._work, self._read, self._listening.run, self._trimming.run):
                stack.callback(group.create_task(work()).cancel)
            self._open = stack.pop_all()
        self.is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_open = False
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._is_idle.wait()
        await self._open.aclose()
        self._fail(self._calls, Storage("the broker is closed"))

    # --- the port -------------------------------------------------------------------------------------

    async def publish(
        self, room: str, message: bytes, *, origin: str, keep: bool = True, key: MessageKey | None = None
    ) -> Published:
        return await self._begin(Message(room, message, origin, keep, key))

    async def subscribe(self, room: str, receiver: Receiver) -> None:
        self._check_open()
        seat = self._deliveries.seat(room)
        if seat is None or seat.receiver is not receiver:
            seat = self._deliveries.take_seat(room, receiver)
        elif seat.after is not None:
            return
        seat.waiting += 1
        try:
            await self._begin(_Look(room, seat=seat))
        except BaseException:
            if seat.waiting == 1 and seat.after is None and self._deliveries.seat(room) is seat:
                self._deliveries.leave_seat(room)
            raise
        finally:
            seat.waiting -= 1

    async def unsubscribe(self, room: str) -> None:
        self._check_open()
        self._deliveries.leave_seat(room)

    async def since(self, room: str, position: Position | None) -> Recovered:
        return await self._begin(_Look(room, position))

    def tick(self, now: datetime) -> None:
        """Nothing: what is due is done by tasks of its own, as it is with nodes that have no sockets."""

    def kept_bytes(self) -> int:
        return 0

    def degradations(self) -> Mapping[str, str]:
        found = dict(self._database.degradations())
        if not self.is_open:
            return found
        if self._listening.failure is not None:
            instead = "nor can anything be read" if found else "only read every second"
            found["broker"] = f"nothing is heard, {instead}: {self._listening.failure}"
        elif self._outbox.is_quiet:
            found["broker"] = "the queue of notifications is full: others hear of it only every second"
        return found

    # --- turns ----------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if not self.is_open:
            raise Storage("the broker is not open")

    def _begin(self, what: Message | _Look) -> "asyncio.Future[Any]":
        """What it leads to, in its turn."""
        self._check_open()
        if len(self._calls) >= self._database.settings.max_waiting:
            raise Storage("too much waits for the broker")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls.append(_Call(what, answer))
        self._is_idle.clear()
        self._is_due.set()
        return answer

    async def _work(self) -> None:
        while True:
            await self._is_due.wait()
            self._is_due.clear()
            while self._calls:
                published, looked = self._next_turn()
                await self._take_turn(published, self._publish)
                await self._take_turn(looked, self._look)
            self._is_idle.set()

    def _next_turn(self) -> tuple[list[_Call], list[_Call]]:
        """
        What can be done next so that it has effect in the order in which it was begun: publications, then looks.

        What is published in a room after a look at it waits, and so does a message with the key of another one.
        """
        published: list[_Call] = []
        looked: list[_Call] = []
        rooms: set[str] = set()
        keys: set[tuple[str, str]] = set()
        size = 0
        while self._calls:
            what, answer = self._calls[0]
            if isinstance(what, _Look):
                if len(looked) == MAX_LOOKS:
                    break
                rooms.add(what.room)
            else:
                key = None if what.key is None else (what.key.sender, what.key.id)
                size += len(what.message)
                is_full = bool(published) and (len(published) == MAX_MESSAGES or size > MAX_BYTES)
                if what.room in rooms or key in keys or is_full:
                    break
                if key is not None:
                    keys.add(key)
            call = self._calls.popleft()
            if not answer.done():  # whoever gave up before it began does not want it any more
                (looked if isinstance(what, _Look) else published).append(call)
        return published, looked

    async def _take_turn(self, calls: Sequence[_Call], do: Callable[[Sequence[_Call]], Awaitable[None]]) -> None:
        if not calls:
            return
        try:
            await do(calls)
        except RoomkeyError as error:
            self._fail(calls, error)
            self._listening.look_soon()  # it may have been done
        except BaseException as error:
            self._fail(calls, Storage("the broker could not be asked"))
            if not isinstance(error, Exception):
                raise
            _log.exception("broker_failed")

    @staticmethod
    def _fail(calls: Sequence[_Call] | deque[_Call], error: Exception) -> None:
        for _, answer in calls:
            if not answer.done():
                answer.set_exception(error)
                answer.exception()  # asyncio then does not complain if nobody looks at it

    async def _publish(self, calls: Sequence[_Call]) -> None:
        written = await self._outbox.write([what for what, _ in calls if isinstance(what, Message)])
        # First everybody is handed it, then its sender is told, as with a broker in the process.
        self._deliveries.hear_own(written.own)
        self._has_news.set()
        for (_, answer), outcome in zip(calls, written.outcomes, strict=True):
            if answer.done():
                continue
            if isinstance(outcome, RoomkeyError):
                self._fail([_Call(calls[0].what, answer)], outcome)
            else:
                answer.set_result(outcome)

    async def _look(self, calls: Sequence[_Call]) -> None:
        looks = [what for what, _ in calls if isinstance(what, _Look)]
        found = await self._look_at(looks)
        unknown = [
            look.room for look, rows in zip(looks, found, strict=True) if look.seat is None and rows[0][3] is None
        ]
        if unknown:
            names = [room.encode() for room in dict.fromkeys(unknown)]
            # May be repeated: what is there stays as it is.
            await self._database.write_at_once(
                lambda connection: run(connection, self._queries.found_rooms, new_epoch(), names), may_repeat=True
            )
            found = await self._look_at(looks)
        for look, rows, (_, answer) in zip(looks, found, calls, strict=True):
            recovered = _recovered(look, rows)
            if look.seat is not None:
                _, era, after, epoch, *_ = rows[0]
                position = None if epoch is None else recovered.position
                self._deliveries.settle(look.room, look.seat, era, after or 0, position)
            if not answer.done():
                answer.set_result(recovered)

    async def _look_at(self, looks: Sequence[_Look]) -> list[list[Row]]:
        """The rows of each look."""
        parameters = (
            list(range(len(looks))),
            [mark_of(look.room) % PARTITIONS for look in looks],
            [look.room.encode() for look in looks],
            [None if look.position is None else look.position.epoch for look in looks],
            [None if look.position is None else look.position.offset for look in looks],
        )

        async def look(connection: AsyncConnection) -> Sequence[Row]:
            return await run(connection, self._queries.look, *parameters)

        found: list[list[Row]] = [[] for _ in looks]
        for row in await self._database.read(look):
            found[int(row[0])].append(row)
        return found

    # --- hearing --------------------------------------------------------------------------------------

    def _hear_hint(self, text: str) -> None:
        tag, _, hint = text.partition(";")
        if tag == self._outbox.tag:
            return  # the answer to what was published says more
        for id, first, final, marks in parsed(hint):
            self._deliveries.hear_hint(id, first, final, marks)
        self._has_news.set()

    def _hear_heads(self, rows: Sequence[Row]) -> None:
        self._trimming.hear_heads(rows)
        self._deliveries.hear_heads(rows)
        self._has_news.set()

    async def _read(self) -> None:
        failures = 0
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            requests = self._deliveries.ask()
            if not requests:
                continue
            self._has_news.set()  # until nothing is left
            try:
                rows = await self._news(requests)
            except Storage:
                failures += 1
                self._deliveries.give_back(requests)
                await asyncio.sleep(self._database.pause(failures))
            else:
                failures = 0
                self._deliveries.take(requests, rows)

    async def _news(self, requests: Sequence[Request]) -> Sequence[Row]:
        ids, eras, lasts, uptos = ([request[field] for request in requests] for field in range(4))
        rooms = [room.encode() for request in requests for room in request.rooms]

        async def news(connection: AsyncConnection) -> Sequence[Row]:
            return await run(connection, self._queries.news, ids, eras, lasts, uptos, rooms, ROWS_PER_PARTITION)

        return await self._database.read(news)


def _recovered(look: _Look, rows: Sequence[Row]) -> Recovered:
    _, _, _, epoch, head, tail, first, *_ = rows[0]
    position = Position(epoch or "", head or 0)
    asked = look.position
    if asked is None or asked.epoch != epoch or not max(tail, 0) <= asked.offset <= head:
        return Recovered(position, None)
    publications = [
        Publication(message, origin.decode(), Position(epoch, offset))
        for *_, offset, origin, message in (rows if first is not None else ())
    ]
    return Recovered(position, publications if len(publications) == head - asked.offset else None)
