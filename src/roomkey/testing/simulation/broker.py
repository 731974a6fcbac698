"""A broker that nodes share: its server, and what each node has of it."""

import random
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Self

from roomkey.errors import Storage
from roomkey.ports import Clock, MessageKey, Position, Publication, Published, Receiver, Recovered
from roomkey.realtime.rooms.deduplication import Deduplication, DeduplicationLimits
from roomkey.realtime.rooms.history import Histories, Window
from roomkey.realtime.settings import RealtimeSettings
from roomkey.testing.simulation.network import TINY_SECONDS, Link, Way
from roomkey.testing.simulation.virtual_time import VirtualLoop


class BrokerServer:
    """
    The server of a broker: histories, and which node listens where.

    ``keeps_epoch`` is a defect for tests of the checker: a history that was lost begins anew under its old epoch.
    """

    def __init__(
        self, settings: RealtimeSettings, clock: Clock, chance: random.Random, *, keeps_epoch: bool = False
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._chance = chance
        self._keeps_epoch = keeps_epoch
        self.published: Callable[[str, Publication], None] = lambda _room, _publication: None
        """Called with everything that has got a position."""
        self.listening: dict[str, dict[str, Callable[[str, Publication], None]]] = {}
        """By room and node, how publications are handed on."""
        self._begin()

    def _begin(self) -> None:
        settings = self._settings
        window = Window(
            publications=settings.history_publications, age=settings.history_age, size=settings.history_bytes
        )
        epoch = "".join(self._chance.choices("abcdefghijklmnopqrstuvwxyz", k=8))
        self._epoch = getattr(self, "_epoch", epoch) if self._keeps_epoch else epoch
        self._histories = Histories(
            window, max_size=settings.max_history_bytes, max_idle=settings.max_documents, new_epoch=lambda: self._epoch
        )
        self._published = Deduplication(
            DeduplicationLimits(
                window=settings.repeat_window,
                ids_per_sender=settings.max_repeats_per_session,
                ids=settings.max_repeats,
                senders=settings.max_connections,
            )
        )

    def lose_everything(self) -> None:
        """Be started anew: histories and subscriptions are gone."""
        self.listening.clear()
        self._begin()

    def forget_node(self, node: str) -> None:
        """The connection of a node is gone."""
        for nodes in self.listening.values():
            nodes.pop(node, None)

    async def publish(self, room: str, message: bytes, origin: str, keep: bool, key: MessageKey | None) -> Published:  # noqa: FBT001  # as the port has it
        """As ``Broker.publish``."""
        now = self._clock.now()
        if key is not None and (seen := self._published.find(key, now)) is not None:
            return Published(seen.position, repeated=True)
        publication = self._histories.append(room, message, origin, now) if keep else Publication(message, origin, None)
        if key is not None:
            self._published.remember(key, publication.position, now)
        if keep:
            self.published(room, publication)
        for hand_on in tuple(self.listening.get(room, {}).values()):
            hand_on(room, publication)
        return Published(publication.position)

    async def subscribe(self, room: str, node: str, hand_on: Callable[[str, Publication], None]) -> None:
        """Hand on to ``node`` what is published in ``room``."""
        self.listening.setdefault(room, {})[node] = hand_on

    async def unsubscribe(self, room: str, node: str) -> None:
        """Hand on nothing more."""
        self.listening.get(room, {}).pop(node, None)

    async def since(self, room: str, position: Position | None) -> Recovered:
        """As ``Broker.since``."""
        history = self._histories.open(room, self._clock.now())
        try:
            return Recovered(history.position, None if position is None else history.since(position))
        finally:
            self._histories.release(room)


class NodeBroker:
    """
    The ``Broker`` of one node.

    Publications of one room come in order; those of several rooms overtake each other. What is on its way when the
    connection breaks is lost, and what is published until it is there again; then every receiver is told.
    """

    shared = True

    def __init__(self, node: str, server: BrokerServer, link: Link, down: Way) -> None:
        """``link`` carries commands, in order; ``down`` what is published."""
        self._node = node
        self._server = server
        self._link = link
        self._down = down
        self._loop: VirtualLoop = link.loop
        self._receivers: dict[str, Receiver] = {}
        self._last: dict[str, float] = {}
        self._connection = 0
        self._is_connected = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._receivers.clear()
        self._server.forget_node(self._node)

    # --- commands -------------------------------------------------------------------------------------

    async def publish(
        self, room: str, message: bytes, *, origin: str, keep: bool = True, key: MessageKey | None = None
    ) -> Published:
        return await self._link.call(partial(self._server.publish, room, message, origin, keep, key))

    async def subscribe(self, room: str, receiver: Receiver) -> None:
        if not self._is_connected:
            raise Storage("the broker is away")
        self._receivers[room] = receiver
        await self._link.call(partial(self._subscribe_now, room))

    async def _subscribe_now(self, room: str) -> None:
        if not self._is_connected:
            raise Storage("the broker is away")
        await self._server.subscribe(room, self._node, self._way_down())

    async def unsubscribe(self, room: str) -> None:
        if self._receivers.pop(room, None) is not None:
            await self._link.call(partial(self._server.unsubscribe, room, self._node))

    async def since(self, room: str, position: Position | None) -> Recovered:
        return await self._link.call(partial(self._server.since, room, position), is_read=True)

    def tick(self, now: datetime) -> None:
        del now

    def kept_bytes(self) -> int:
        return 0

    def degradations(self) -> Mapping[str, str]:
        return {} if self._is_connected else {"broker": "not connected"}

    # --- what comes -----------------------------------------------------------------------------------

    def _way_down(self) -> Callable[[str, Publication], None]:
        return partial(self._send, self._connection)

    def _send(self, connection: int, room: str, publication: Publication) -> None:
        """At the server: send a publication on its way."""
        due = max(self._loop.time() + self._down.delay(), self._last.get(room, 0.0) + TINY_SECONDS)
        self._last[room] = due
        self._loop.ring(due, self._arrived, connection, room, publication)

    def _arrived(self, connection: int, room: str, publication: Publication) -> None:
        receiver = self._receivers.get(room)
        if connection == self._connection and receiver is not None and not self._link.is_dead:
            receiver.on_publication(publication)

    def disconnect(self) -> None:
        """Lose the connection that brings publications."""
        self._connection += 1
        self._is_connected = False
        self._server.forget_node(self._node)

    def reconnect(self) -> None:
        """Have it back, listen where somebody listens, and tell everyone that something may be missing."""
        if self._link.is_dead:
            return
        self._is_connected = True
        for room in tuple(self._receivers):
            self._server.listening.setdefault(room, {})[self._node] = self._way_down()
        for receiver in tuple(self._receivers.values()):
            receiver.on_gap()
