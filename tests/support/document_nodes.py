"""Nodes with documents on one storage, joined by a wire that delays, loses and reports gaps as the test says."""

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from roomkey.backends.memory.leases import MemoryLeases
from roomkey.documents.crdt.awareness import Owner
from roomkey.documents.crdt.identity import Source
from roomkey.documents.document import Document
from roomkey.documents.following import SLICES, Follower
from roomkey.documents.node_messages import MESSAGES, Message
from roomkey.documents.relay import Peers
from roomkey.documents.service import DocumentService
from roomkey.errors import Storage
from roomkey.ports import DocumentTail, MessageKey, Position, Publication, Published, Receiver, Recovered
from roomkey.testing.clock import ManualClock
from roomkey.wire.lib0 import AwarenessEntry
from tests.support.open_documents import FaultyStore, House
from tests.support.sockets import NOON


class Wire:
    """What joins the brokers of a test."""

    def __init__(self) -> None:
        self.brokers: dict[str, WireBroker] = {}
        self.told: list[Message] = []
        """Everything that was published."""


class WireBroker:
    """
    The ``Broker`` of one node. While it is ``held``, what is published waits for ``deliver``; while it is ``cut``,
    it is lost, and ``mend`` says so.
    """

    shared = True

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.receivers: dict[str, Receiver] = {}
        self.waiting: deque[tuple[str, Publication]] = deque()
        self.held = self.cut = self.away = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def publish(
        self, room: str, message: bytes, *, origin: str, keep: bool = True, key: MessageKey | None = None
    ) -> Published:
        assert not keep, "documents are in the log"
        del key
        await asyncio.sleep(0)
        if self.away:
            raise Storage("the broker is away")
        told = MESSAGES.decode(message)
        assert told is not None
        self._wire.told.append(told)
        for broker in self._wire.brokers.values():
            broker.hand(room, Publication(message, origin, None))
        return Published(None)

    async def subscribe(self, room: str, receiver: Receiver) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise Storage("the broker is away")
        self.receivers[room] = receiver

    async def unsubscribe(self, room: str) -> None:
        self.receivers.pop(room, None)

    async def since(self, room: str, position: Position | None) -> Recovered:
        raise AssertionError(f"nothing is kept of {room}, before {position} or after")

    def hand(self, room: str, publication: Publication) -> None:
        """Something was published."""
        if self.cut:
            return
        self.waiting.append((room, publication))
        if not self.held:
            asyncio.get_running_loop().call_soon(self.deliver, 1)

    def deliver(self, count: int | None = None) -> None:
        """Let the first of what waits arrive; all of it, if it is not said how many."""
        for _ in range(min(len(self.waiting), len(self.waiting) if count is None else count)):
            room, publication = self.waiting.popleft()
            if (receiver := self.receivers.get(room)) is not None:
                receiver.on_publication(publication)

    def mend(self) -> None:
        """Hear everything again, and that something was missed."""
        self.cut = False
        self.waiting.clear()
        for receiver in tuple(self.receivers.values()):
            receiver.on_gap()

    def tick(self, now: datetime) -> None: ...

    def kept_bytes(self) -> int:
        return 0

    def degradations(self) -> Mapping[str, str]:
        return {}


class CountingStore(FaultyStore):
    """One that several nodes use; ``tails`` counts how often a log was read from a number on."""

    def __init__(self) -> None:
        super().__init__(shared=True)
        self.tails = 0

    async def updates(self, name: str, lineage: str, after: int, limit: int = 1000) -> DocumentTail:
        self.tails += 1
        await self._answer()
        return await super().updates(name, lineage, after, limit)


class Nodes:
    """
    Several nodes, which are begun with ``begin``, and end when this is left.

    All of them live until they are killed; who is killed is said to be gone when the test says so.
    """

    def __init__(
        self, *names: str, store: CountingStore | None = None, clock: ManualClock | None = None, **settings: Any
    ) -> None:
        self.store = store or CountingStore()
        self.clock = clock or ManualClock(NOON)
        self.wire = Wire()
        self.leases = MemoryLeases(self.clock)
        self.houses: dict[str, House] = {}
        self._names = names
        self._settings = settings
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for name in self._names:
            await self.begin(name)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for house in self.houses.values():
            await (house.crash() if kind else house.close())

    def __iter__(self) -> Iterator[House]:
        return iter(self.houses.values())

    def __getitem__(self, name: str) -> House:
        return self.houses[name]

    async def begin(self, name: str) -> House:
        """A node begins."""
        broker = self.wire.brokers[name] = WireBroker(self.wire)
        peers = Peers(node=name, broker=broker, leases=self.leases, lives=lambda node: node in self.wire.brokers)
        house = House(self.store, clock=self.clock, peers=peers, **self._settings)
        self.houses[name] = await house.__aenter__()
        return house

    async def kill(self, name: str) -> None:
        """A node is gone at once; the others do not know."""
        del self.wire.brokers[name]
        await self.houses.pop(name).crash()

    def say_gone(self, *names: str) -> None:
        """The others hear who is gone."""
        for house in self:
            house.open_documents.relay.gone(names)

    def broker(self, name: str) -> WireBroker:
        return self.wire.brokers[name]

    def service(self, name: str) -> DocumentService:
        return DocumentService(self[name].open_documents)

    async def documents(self, name: str = "d") -> list[Document]:
        """The document on each node, open and stored."""
        return [await house.document(name) for house in self]

    async def settle(self) -> None:
        """Let everything happen that waits for nobody."""
        for _ in range(3):
            for house in self:
                await house.settle()

    def told(self, kind: type[Message]) -> list[Message]:
        """What the nodes have told each other, of one kind."""
        return [message for message in self.wire.told if isinstance(message, kind)]


async def follow(house: House) -> None:
    """Let a node look at all its documents."""
    follower = Follower(house.open_documents)
    for _ in range(SLICES):
        await follower.look()


def show(document: Document, connection: object, client: int, clock: int = 1, user: str = "alice") -> Sequence[int]:
    """Somebody shows themselves; returns the clients that are shown then."""
    entry = AwarenessEntry(client, clock, b'{"user":"%s"}' % user.encode())
    document.take_awareness([entry], Owner(connection, f"user:{user}"), NOON, source=Source(user))
    return shown(document)


def shown(document: Document) -> list[int]:
    """The clients that are shown in a document."""
    return sorted(entry.client for entry in document.awareness.entries())
