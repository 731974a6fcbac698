"""Several nodes in one process: a broker for each, which loses and repeats messages, and is cut off, as tests say."""

from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Self

from roomkey.errors import Storage
from roomkey.ports import MessageKey, Position, Publication, Published, Receiver, Recovered


class Exchange:
    """What the brokers of nodes meet at. Messages that are not kept only."""

    def __init__(self) -> None:
        self.receivers: dict[str, dict[str, Receiver]] = {}
        self.loses = False
        """Whether what is published reaches nobody."""
        self.repeats = 1
        """How often everybody is handed a message."""
        self.sent: list[tuple[str, Publication]] = []

    def broker(self, node: str) -> "ExchangeBroker":
        return ExchangeBroker(self, node)

    def deliver(self, room: str, publication: Publication) -> None:
        """Hand a message to everybody who listens."""
        self.sent.append((room, publication))
        if self.loses:
            return
        for receiver in tuple(self.receivers.get(room, {}).values()):
            for _ in range(self.repeats):
                receiver.on_publication(publication)


class ExchangeBroker:
    """The ``Broker`` of one node, which can be cut off."""

    shared = True

    def __init__(self, exchange: Exchange, node: str) -> None:
        self._exchange = exchange
        self._node = node
        self._rooms: dict[str, Receiver] = {}
        self.is_cut = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for room in tuple(self._rooms):
            await self.unsubscribe(room)

    def cut(self) -> None:
        """Neither say nor hear anything until ``join``."""
        self.is_cut = True
        for room in self._rooms:
            del self._exchange.receivers[room][self._node]

    def join(self) -> None:
        """Hear again; whatever was missed is a gap."""
        self.is_cut = False
        for room, receiver in self._rooms.items():
            self._exchange.receivers[room][self._node] = receiver
            receiver.on_gap()

    async def publish(
        self, room: str, message: bytes, *, origin: str, keep: bool = True, key: MessageKey | None = None
    ) -> Published:
        assert not keep
        assert key is None
        if self.is_cut:
            raise Storage("the exchange is away")
        self._exchange.deliver(room, Publication(message, origin, None))
        return Published(None)

    async def subscribe(self, room: str, receiver: Receiver) -> None:
        self._rooms[room] = receiver
        self._exchange.receivers.setdefault(room, {})[self._node] = receiver

    async def unsubscribe(self, room: str) -> None:
        self._rooms.pop(room, None)
        self._exchange.receivers.get(room, {}).pop(self._node, None)

    async def since(self, room: str, position: Position | None) -> Recovered:
        raise NotImplementedError

    def tick(self, now: datetime) -> None:
        pass

    def kept_bytes(self) -> int:
        return 0

    def degradations(self) -> Mapping[str, str]:
        return {"broker": "away"} if self.is_cut else {}
