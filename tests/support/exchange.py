"""A broker and a presence store for several nodes in one process: slow, cut or mended as the test says."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from roomkey.backends.memory.cluster import MemoryNodeRegistry, MemoryPresence, MemoryPresenceStore
from roomkey.errors import Storage
from roomkey.ports import (
    MessageKey,
    NodeStatus,
    Position,
    Presence,
    PresenceChange,
    Publication,
    Published,
    Receiver,
    Recovered,
)
from roomkey.realtime.rooms.broker import LocalBroker
from roomkey.realtime.settings import RealtimeSettings
from roomkey.testing.clock import ManualClock

LIFETIME = timedelta(days=1)


class Exchange:
    """
    What the nodes of a test share: the publications of all rooms, and who is shown.

    ``delays`` says, over and over, how many turns of the loop each thing is on its way: calls, answers, and
    publications, which overtake each other in different rooms only.
    """

    def __init__(self, clock: ManualClock, delays: Sequence[int] = (0,), **settings: Any) -> None:
        self._clock, self._settings, self._delays = clock, RealtimeSettings(**settings), delays
        self.inner = LocalBroker(self._settings, clock)
        self.nodes: dict[str, ExchangeBroker] = {}
        self.registry = MemoryNodeRegistry(clock)
        self.shown = MemoryPresence(self.registry)
        self._steps = 0

    async def join(self, node: str) -> "tuple[ExchangeBroker, ExchangePresence]":
        """The ports of a node, which lives from now on."""
        broker = self.nodes[node] = ExchangeBroker(self)
        await self.registry.renew(NodeStatus(id=node, version="1", started_at=self._clock.now()), LIFETIME)
        return broker, ExchangePresence(self, broker, node)

    async def kill(self, node: str) -> None:
        """The node lives no more, and has not said so."""
        del self.nodes[node]
        await self.registry.leave(node)

    def lose_everything(self) -> None:
        """The server is started again, empty."""
        self.inner = LocalBroker(self._settings, self._clock)
        self.shown.rooms.clear()
        for node in self.nodes.values():
            node.missed |= node.receivers.keys()

    async def travel(self) -> None:
        """Be on the way for some turns."""
        self._steps += 1
        for _ in range(self._delays[self._steps % len(self._delays)]):
            await asyncio.sleep(0)

    def turns(self) -> int:
        """For how many turns the next publication is on its way."""
        self._steps += 1
        return self._delays[self._steps % len(self._delays)]


class ExchangeBroker:
    """
    The ``Broker`` of one node. While ``away``, calls fail; while ``deaf``, publications do not arrive.

    Those that are under way wait while it is ``slow``, see ``hurry``. The next answer of ``since`` waits for the first
    of ``held``.
    """

    shared = True

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.away = self.deaf = self.slow = False
        self.held: list[asyncio.Event] = []
        self.receivers: dict[str, Receiver] = {}
        self.missed: set[str] = set()
        self.passing: list[bytes] = []
        """What this node has published that is not kept."""
        self._calls: dict[str, asyncio.Lock] = {}
        self._arriving: dict[str, list[tuple[int, Publication]]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.receivers.clear()

    async def _reach(self) -> None:
        await self._exchange.travel()
        if self.away:
            raise Storage("the broker is away")

    async def publish(
        self, room: str, message: bytes, *, origin: str, keep: bool = True, key: MessageKey | None = None
    ) -> Published:
        async with self._calls.setdefault(room, asyncio.Lock()):
            await self._reach()
            inner = self._exchange.inner
            published = await inner.publish(room, message, origin=origin, keep=keep, key=key)
            if not keep:
                self.passing.append(message)
            if not published.repeated:
                for node in self._exchange.nodes.values():
                    node.send(room, Publication(message, origin, published.position))
        await self._exchange.travel()
        return published

    async def subscribe(self, room: str, receiver: Receiver) -> None:
        async with self._calls.setdefault(room, asyncio.Lock()):
            await self._reach()
            self.receivers[room] = receiver
            self.missed.discard(room)

    async def unsubscribe(self, room: str) -> None:
        async with self._calls.setdefault(room, asyncio.Lock()):
            self.receivers.pop(room, None)

    async def since(self, room: str, position: Position | None) -> Recovered:
        async with self._calls.setdefault(room, asyncio.Lock()):
            await self._reach()
            recovered = await self._exchange.inner.since(room, position)
        if self.held and not room.startswith("\0"):  # connections are counted in rooms of their own
            await self.held.pop(0).wait()
        await self._exchange.travel()
        return recovered

    def send(self, room: str, publication: Publication) -> None:
        """Let ``publication`` arrive, behind those of its room that are on their way."""
        receiver = self.receivers.get(room)
        if receiver is None:
            return
        if self.deaf:
            self.missed.add(room)
            return
        line = self._arriving.setdefault(room, [])
        line.append((self._exchange.turns(), publication))
        if len(line) == 1:
            self._arrive(room)

    def hurry(self) -> None:
        """Let everything arrive that is under way."""
        self.slow = False
        for room in self._arriving:
            self._arrive(room)

    def _arrive(self, room: str) -> None:
        line = self._arriving[room]
        while line and not self.slow:
            turns, publication = line[0]
            if turns:
                line[0] = (turns - 1, publication)
                asyncio.get_running_loop().call_soon(self._arrive, room)
                return
            del line[0]
            receiver = self.receivers.get(room)
            if receiver is not None:
                if room in self.missed:
                    self.missed.discard(room)
                    receiver.on_gap()
                receiver.on_publication(publication)

    def tick(self, now: datetime) -> None:
        self._exchange.inner.tick(now)

    def kept_bytes(self) -> int:
        return 0

    def degradations(self) -> Mapping[str, str]:
        return {"broker": "it does not answer"} if self.away else {}


class ExchangePresence:
    """The ``PresenceStore`` of one node; it fails while it or the node's broker is ``away``."""

    def __init__(self, exchange: Exchange, broker: ExchangeBroker, node: str) -> None:
        self._exchange, self._broker = exchange, broker
        self._inner = MemoryPresenceStore(exchange.shown, node)
        self.away = False
        self.held: list[asyncio.Event] = []
        """The next answer of ``here`` about a room with people waits for the first of them."""
        self.changes: list[Sequence[PresenceChange]] = []

    async def _reach(self) -> None:
        await self._exchange.travel()
        if self.away or self._broker.away:
            raise Storage("the store is away")

    async def change(self, changes: Sequence[PresenceChange]) -> None:
        await self._reach()
        self.changes.append(changes)
        await self._inner.change(changes)
        await self._exchange.travel()

    async def here(self, room: str) -> Sequence[Presence]:
        await self._reach()
        here = await self._inner.here(room)
        if self.held and not room.startswith("\0"):  # connections are counted in rooms of their own
            await self.held.pop(0).wait()
        await self._exchange.travel()
        return here

    async def forget(self, node: str) -> None:
        await self._reach()
        await self._inner.forget(node)
