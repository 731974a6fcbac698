"""The nodes of a simulation: the real services, wired as ``roomkey.node`` does, that can be killed and started anew."""

import asyncio
import random
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, Final, TypeVar, cast

from msgspec import Struct

from roomkey.backends.memory.cluster import MemoryPresenceStore
from roomkey.documents.following import Follower
from roomkey.documents.maintenance import Maintenance
from roomkey.documents.open_documents import OpenDocuments
from roomkey.documents.relay import Peers
from roomkey.documents.service import DocumentService
from roomkey.documents.settings import DocumentSettings
from roomkey.domain.policy import SessionPolicy
from roomkey.leasing import LIFETIME, Chore
from roomkey.membership import Membership
from roomkey.neighbours import Neighbours, NeighbourSettings
from roomkey.node import BackgroundTasks
from roomkey.ports import (
    Cluster,
    Counters,
    DocumentStore,
    Leases,
    NodeRegistry,
    NodeStatus,
    OneTime,
    PresenceStore,
    SessionStorage,
)
from roomkey.realtime.endpoint import SessionWebSocketHandler
from roomkey.realtime.settings import RealtimeSettings
from roomkey.realtime.transport import Accepted, Handshake, Refused
from roomkey.security.tickets import Tickets
from roomkey.sessions.janitor import Janitor
from roomkey.sessions.manager import SessionManager
from roomkey.sessions.near_cache import NearCache
from roomkey.sessions.settings import JanitorSettings
from roomkey.testing.simulation.broker import NodeBroker
from roomkey.testing.simulation.network import Link, Remote, Way, Weather
from roomkey.testing.simulation.stores import (
    DOCUMENT_READS,
    PLAIN,
    PRESENCE_READS,
    REGISTRY_READS,
    SESSION_READS,
    Deployment,
)
from roomkey.testing.simulation.virtual_time import NodeClock, VirtualLoop

T = TypeVar("T")

ROTATION_KEY: Final = b"the same on all nodes of a test."


class Settings(Struct, frozen=True):
    """The settings of all nodes of a simulation."""

    realtime: RealtimeSettings = RealtimeSettings(
        tick=timedelta(seconds=0.5),
        position_interval=timedelta(seconds=5),
        handshake_burst=1_000_000,
        max_connections_per_session=64,
    )
    documents: DocumentSettings = DocumentSettings(
        share_interval=timedelta(seconds=0.005),
        compact_updates=3,
        sweep_interval=timedelta(seconds=1.5),
        version_interval=timedelta(seconds=3),
        max_automatic_versions=2,
    )
    policy: SessionPolicy = SessionPolicy(cap=3)
    janitor: JanitorSettings = JanitorSettings(interval=timedelta(seconds=5))
    blind_grace: timedelta = timedelta(seconds=3)
    near_cache_sessions: int = 100
    near_cache_age: timedelta = timedelta(seconds=2)
    keeps_epoch: bool = False
    """As ``BrokerServer`` has it: a defect, for tests of the checker."""
    ignores_fences: bool = False
    """As ``DocumentServer`` has it, another one."""


class Services:
    """One life of a node: everything that a process has, from its start until it ends or is killed."""

    def __init__(  # each is a part of the simulation
        self,
        id: str,
        deployment: Deployment,
        settings: Settings,
        *,
        loop: VirtualLoop,
        chance: random.Random,
        weather: Weather,
        offset: timedelta,
    ) -> None:
        self.id = id
        self._loop = loop
        self._settings = settings
        self.clock = NodeClock(loop, offset)
        self.store_link = Link(loop, chance, weather)
        self.broker_link = Link(loop, chance, weather, in_order=True)
        storage = Remote(deployment.sessions, self.store_link, reads=SESSION_READS, plain=PLAIN)
        self.storage = cast("SessionStorage", storage)
        leases = cast("Leases", Remote(deployment.leases, self.store_link, reads=frozenset()))
        store = Remote(deployment.documents, self.store_link, reads=DOCUMENT_READS, plain=PLAIN)
        tickets = Remote(deployment.tickets, self.store_link, reads=frozenset())
        presence = MemoryPresenceStore(deployment.presence, id)
        self.broker = NodeBroker(id, deployment.broker, self.broker_link, Way(loop, chance, weather))
        self.cluster = Cluster(
            self.broker,
            cast("PresenceStore", Remote(presence, self.broker_link, reads=PRESENCE_READS)),
            cast("NodeRegistry", Remote(deployment.registry, self.broker_link, reads=REGISTRY_READS)),
        )
        cache = NearCache(
            self.storage, capacity=settings.near_cache_sessions, max_age=settings.near_cache_age, now=loop.time
        )
        self.sessions = SessionManager(
            self.storage, policy=settings.policy, clock=self.clock, rotation_key=ROTATION_KEY, cache=cache
        )
        self.membership = Membership(self.cluster.nodes, self._status, self.clock)
        self.documents = OpenDocuments(
            cast("DocumentStore", store),
            settings=settings.documents,
            clock=self.clock,
            peers=Peers(node=id, broker=self.broker, leases=leases, lives=self.membership.lives),
        )
        self.membership.on_gone(self.documents.relay.gone)
        self._chore = Chore(leases, "janitor", id, lifetime=max(LIFETIME, 3 * settings.janitor.interval), keeps=True)
        self.neighbours = Neighbours(
            self.sessions,
            self.broker,
            NeighbourSettings(node=id, is_remote=True, grace=settings.blind_grace),
            cache=cache,
        )
        self.service = DocumentService(self.documents)
        self.tickets = Tickets(cast("OneTime", tickets))
        self.sockets = SessionWebSocketHandler(
            self.sessions,
            settings=settings.realtime,
            clock=self.clock,
            tickets=self.tickets,
            counters=cast("Counters", deployment.counters),
            node=id,
            open_documents=self.documents,
            broker=self.broker,
            presence=self.cluster.presence,
            schedule=loop.call_soon,
        )
        self.membership.on_gone(self.sockets.nodes_gone)
        hub: Any = self.sockets._rooms.hub  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        hub._seconds = loop.time  # noqa: SLF001  # it measures itself
        self.background = BackgroundTasks(self.clock.now)
        self.is_up = False
        self._stop = asyncio.Event()
        self._life: asyncio.Task[None] | None = None
        self._work: set[asyncio.Task[Any]] = set()

    def _status(self) -> NodeStatus:
        statistics = self.sockets.statistics()
        return NodeStatus(
            id=self.id,
            version="simulated",
            started_at=self.clock.now(),
            sockets=statistics.connections,
            rooms=statistics.documents,
            lag_ms=self.neighbours.lag // timedelta(milliseconds=1),
        )

    # --- life -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to run, soon."""
        self._life = self._loop.create_task(self._live())

    async def _live(self) -> None:
        unsubscribe = self.sessions.on_events(self.sockets.on_events)
        try:
            async with (
                self.broker,
                self.documents.relay,
                self.documents.at_work(),
                self.membership.at_work(),
                self.neighbours.heard(self.sockets) as works,
            ):
                tasks = {
                    "janitor": Janitor(self.sessions, self._settings.janitor, chore=self._chore).run,
                    "sockets": self.sockets.run,
                    "documents": Maintenance(self.documents).run,
                    "membership": self.membership.run,
                    "documents of others": Follower(self.documents).run,
                    **works,
                }
                async with self.background.at_work(tasks):
                    self.is_up = True
                    await self._stop.wait()
        finally:
            self.is_up = False
            unsubscribe()

    @property
    def failure(self) -> BaseException | None:
        """Why it did not start, or ended on its own."""
        life = self._life
        return life.exception() if life is not None and life.done() and not life.cancelled() else None

    async def stop(self, drain: timedelta) -> None:
        """End as a node does that is told to."""
        await self.sockets.drain(drain)
        self._stop.set()
        if self._life is not None:
            await asyncio.wait([self._life])

    def kill(self) -> None:
        """Be gone at once: nothing leaves the node any more. Its tasks have ended a few turns of the loop later."""
        self.is_up = False
        self.store_link.is_dead = self.broker_link.is_dead = True
        self.broker.disconnect()
        for task in (self._life, *self._work):
            if task is not None:
                task.cancel()

    # --- what others want of it -----------------------------------------------------------------------

    async def do(self, work: Coroutine[Any, Any, T]) -> T:
        """
        Have ``work`` done as something of this node, which ends with it.

        Raises:
            ConnectionError: If the node is killed meanwhile.
        """
        task = self._loop.create_task(work)
        self._work.add(task)
        try:
            await asyncio.wait([task])
        finally:
            self._work.discard(task)
        if task.cancelled() or self.store_link.is_dead:
            if not task.cancelled():
                task.exception()
            raise ConnectionError("the node is gone")
        return task.result()

    async def accept(self, handshake: Handshake) -> Accepted | Refused:
        """Answer a handshake. Raises as ``do``."""
        return await self.do(self.sockets.accept(handshake))
