"""The broker of nodes that share a Redis: it gives publications their place, keeps them, and hands them to everyone."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from secrets import token_bytes
from types import TracebackType
from typing import Any, Final, Self

from msgspec import Struct

from roomkey.backends.redis.cluster.comparison import Comparison
from roomkey.backends.redis.cluster.lanes import Lanes, Letter
from roomkey.backends.redis.cluster.layout import (
    EPOCH_BYTES,
    Layout,
    decode_entry,
    decode_position,
    encode_body,
)
from roomkey.backends.redis.cluster.listening import Ears
from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import RUN, RedisServer
from roomkey.errors import Conflict, Serialization, Storage
from roomkey.ports import MessageKey, Position, Published, Receiver, Recovered

LIFETIME: Final = timedelta(days=1)
"""How long a room is remembered in which nothing happens; after that it begins a new epoch."""

COMPARE_EVERY: Final = timedelta(seconds=40)
"""How often is looked whether the last publication of each room was heard; it keeps rooms remembered, too."""

_SINCE: Final = Script("cluster/since")


class Histories(Struct, frozen=True, kw_only=True):
    """
    What is kept of each room: at most so many publications and bytes, of this age.

    Message keys are remembered for ``repeat_window``.
    """

    publications: int
    age: timedelta
    size: int
    repeat_window: timedelta


class RedisBroker:
    """
    ``ports.Broker`` on a Redis.

    A publication is one script, and one round trip: those in rooms of one partition go in turn, so that they stay in
    order, and together what comes meanwhile. Acknowledged is what the server has; a history that another process of
    the server wrote, before a failover or a restart, may lack its end and begins a new epoch.
    """

    shared = True

    def __init__(
        self, server: RedisServer, node: str, histories: Histories, *, compare_every: timedelta = COMPARE_EVERY
    ) -> None:
        """``node`` is the id of this one, which no other ever had."""
        self._server = server
        self._layout = Layout(server.prefix, server.channel_suffix)
        window = max(_millis(histories.repeat_window), 1)
        self._lanes = Lanes(server, self._layout, node, common=self._common, window=window)
        self._ears = Ears(server)
        age = _millis(histories.age)
        lifetime = max(_millis(LIFETIME), 2 * age)
        self._bounds = (histories.publications, age, histories.size, lifetime)
        self._comparison = Comparison(server, self._ears, every=compare_every, lifetime=lifetime)
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        failed: Storage | None = None
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._server)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            stack.callback(self._lanes.close)
            stack.callback(self._ears.close)
            self._lanes.open(tasks)
            try:
                await self._ears.open(tasks)
            except Storage as error:
                failed = error  # a group of tasks would wrap it
            else:
                stack.callback(tasks.create_task(self._comparison.run()).cancel)
                self._open = stack.pop_all()
        if failed is not None:
            raise failed
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    # --- what is published ----------------------------------------------------------------------------

    async def publish(
        self, room: str, message: bytes, *, origin: str, keep: bool = True, key: MessageKey | None = None
    ) -> Published:
        place = self._layout.place(room)
        partition = place.partition
        body = encode_body(origin, message)
        repetition = place.head if key is None else partition.repetition(place.name, key)
        content = b"" if key is None else key.content.to_bytes(8)
        letter = Letter(
            (place.head, place.history, repetition), (place.channel, b"1" if keep else b"0", content, body), len(body)
        )
        answer = await self._lanes.post(partition, letter)
        if answer[:1] == b"c":
            raise Conflict("the message id was used for something else")
        if answer[:1] == b"d":
            raise Serialization("where the room should be lies something else")
        return Published(decode_position(answer[1:]), repeated=answer[:1] == b"r")

    async def since(self, room: str, position: Position | None) -> Recovered:
        place = self._layout.place(room)
        await self._lanes.wait_turn(place.partition)
        if asyncio.current_task() is None:
            await asyncio.sleep(0)  # the rest may have to connect, which is for tasks
        epoch, offset = ("", -1) if position is None else (position.epoch, position.offset)
        arguments = (*self._common(), epoch, offset)
        # May be repeated: at most it begins an epoch, once.
        found: Any = await self._server.run(_SINCE, (place.head, place.history), arguments, may_repeat=True)
        here = Position(found[0].decode("ascii"), found[1])
        if found[2] is None:
            return Recovered(here, None)
        entries: Sequence[bytes] = found[2]
        first = here.offset - len(entries) + 1
        return Recovered(
            here, [decode_entry(entry, Position(here.epoch, first + n)) for n, entry in enumerate(entries)]
        )

    def _common(self) -> tuple[Any, ...]:
        """What the scripts of rooms are told first."""
        return (RUN, token_bytes(EPOCH_BYTES), *self._bounds)

    # --- who listens ----------------------------------------------------------------------------------

    async def subscribe(self, room: str, receiver: Receiver) -> None:
        await self._ears.subscribe(self._layout.place(room), receiver)

    async def unsubscribe(self, room: str) -> None:
        self._ears.unsubscribe(self._layout.place(room))

    # --- the rest -------------------------------------------------------------------------------------

    @property
    def unknown_messages(self) -> int:
        """Number of messages that were not understood, and ignored."""
        return self._ears.unknown

    def tick(self, now: datetime) -> None:
        pass

    def kept_bytes(self) -> int:
        return 0

    def degradations(self) -> Mapping[str, str]:
        return self._ears.degradations()


def _millis(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)
