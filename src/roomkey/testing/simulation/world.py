"""A history as it takes place: nodes, clients and operators on one loop, according to a plan."""

import asyncio
import random
import re
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, Final

from roomkey.domain.access import Access, Grant, Grants
from roomkey.ports import Publication
from roomkey.testing.simulation.broker import BrokerServer
from roomkey.testing.simulation.clients import Client, JsonClient
from roomkey.testing.simulation.connections import Connection
from roomkey.testing.simulation.editors import Copy, HocuspocusEditor, YjsEditor
from roomkey.testing.simulation.history import CALM, History, Observation, What
from roomkey.testing.simulation.network import Way, Weather
from roomkey.testing.simulation.nodes import Services, Settings
from roomkey.testing.simulation.plan import Kind, Person, Plan
from roomkey.testing.simulation.stores import Deployment
from roomkey.testing.simulation.virtual_time import NodeClock, VirtualLoop

EVERYTHING: Final[Grants] = (Grant("**", Access.WRITE),)

CALM_WEATHER: Final = Weather(late=0.0, lost=0.0)
ROUGH: Final = Weather()

SUPERVISION_SECONDS: Final = 0.5
"""How often somebody looks whether a node has ended by itself."""

TURNS_TO_END: Final = 20
"""Turns of the loop within which every task has ended that is cancelled."""


CLIENTS: Final = {Kind.JSON: JsonClient, Kind.YJS: YjsEditor, Kind.HOCUSPOCUS: HocuspocusEditor}


class World:
    """Everything that there is in a history. It is what clients see of it, too."""

    def __init__(self, plan: Plan, settings: Settings, loop: VirtualLoop, chance: random.Random) -> None:
        self.plan = plan
        self.loop = loop
        self.history = History()
        self.grants = EVERYTHING
        self.settings = settings
        self.chance = chance
        self.weather = CALM_WEATHER if plan.is_calm else ROUGH
        clock = NodeClock(loop)
        server = BrokerServer(settings.realtime, clock, self.fork("broker"), keeps_epoch=settings.keeps_epoch)
        server.published = self._published
        self.deployment = Deployment(clock, server, ignores_fences=settings.ignores_fences)
        self.deployment.documents.fenced = self._fenced
        self.deployment.documents.appended = self._appended
        self._lives = [0] * len(plan.offsets)
        self.nodes: list[Services | None] = [None] * len(plan.offsets)
        self.clients = {person.number: self._client(person) for person in plan.people}
        self.connections: dict[Connection, str] = {}
        self._numbers = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._stored: dict[str, Copy] = {}
        self._is_over = False

    def fork(self, purpose: str) -> random.Random:
        """Chance of its own, so that what is left out elsewhere changes nothing here."""
        return random.Random(f"{self.plan.seed} {purpose}")  # noqa: S311  # not for secrets

    def _client(self, person: Person) -> Client:
        kind = CLIENTS[person.kind]
        name = f"client-{person.number}"
        client = kind(name, person.user, person.document, self, self.fork(name))
        client.prefers = person.node
        return client

    # --- what clients see -----------------------------------------------------------------------------

    def note(self, what: What, **details: Any) -> None:
        self.history.note(Observation(round(self.loop.time(), 6), what, **details))

    def node_for(self, client: Client) -> Services | None:
        count = len(self.nodes)
        candidates = (self.nodes[(client.prefers + turn) % count] for turn in range(count))
        return next((each for each in candidates if each is not None and each.is_up), None)

    def later(self, seconds: float, work: Callable[..., object], *arguments: Any) -> None:
        self.loop.call_later(seconds, self._unless_over, work, arguments)

    def _unless_over(self, work: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        if not self._is_over:
            work(*arguments)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def connection(self, client: Client, services: Services) -> Connection:
        self._numbers += 1
        name = f"{client.name}/{self._numbers}"
        connection = Connection(name, services, Way(self.loop, self.fork(name), self.weather), client, self)
        self.connections[connection] = client.name
        return connection

    def ended(self, connection: Connection, code: int) -> None:
        """As ``Watch.ended``."""
        who = self.connections.pop(connection, "")
        self.note(What.CLOSED, who=who, connection=connection.name, node=connection.services.id, number=code)

    def broke(self, connection: Connection, error: Exception) -> None:
        """As ``Watch.broke``."""
        self.note(What.DEFECT, text=repr(error), connection=connection.name)

    def _published(self, room: str, publication: Publication) -> None:
        position, said = publication.position, _SAID.search(publication.message)
        if position is not None and said is not None:
            self.note(
                What.PUBLISHED,
                document=room,
                epoch=position.epoch,
                offset=position.offset,
                text=said[1].decode(),
            )

    def _appended(self, document: str, lineage: str, update: bytes) -> None:
        # The state of the whole log: an update that builds on others says nothing of itself.
        stored = self._stored.setdefault(lineage, Copy(1))
        for client, clock in stored.take(update):
            self.note(What.APPENDED, document=document, number=client, size=clock)

    def _fenced(self, document: str, what: str, fence: int) -> None:
        self.note(What.FENCED, document=document, text=what, number=fence)

    # --- life -----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start all nodes; clients come when these are up."""
        self.note(What.BEGIN, text=CALM if self.plan.is_calm else "rough")
        for number in range(len(self.nodes)):
            self._start(number)
        for client in self.clients.values():
            self.later(0.05 + client.chance.uniform(0.0, 0.3), client.come)

    def heal(self) -> None:
        """End every fault that has not ended yet, and have everybody in who wants to be."""
        for services in self.nodes:
            if services is not None and services.is_up:
                services.store_link.is_cut = services.broker_link.is_cut = False
                services.store_link.slowness = 0.0
                services.broker.reconnect()
        for client in self.clients.values():
            if client.connection is not None and client.connection.is_stalled:
                client.connection.go_on_reading()
            client.come()
        self.note(What.REST)

    async def end(self) -> None:
        """Kill what runs."""
        self._is_over = True
        for services in self.nodes:
            if services is not None:
                services.kill()
        for task in tuple(self._tasks):
            task.cancel()
        for _ in range(TURNS_TO_END):
            await asyncio.sleep(0)

    # --- nodes ----------------------------------------------------------------------------------------

    def _start(self, number: int) -> None:
        self._lives[number] += 1
        id = f"node-{number}.{self._lives[number]}"
        services = Services(
            id,
            self.deployment,
            self.settings,
            loop=self.loop,
            chance=self.fork(id),
            weather=self.weather,
            offset=timedelta(seconds=self.plan.offsets[number]),
        )
        self.nodes[number] = services
        services.start()
        self.later(SUPERVISION_SECONDS, self._supervise, number, services)

    def _supervise(self, number: int, services: Services) -> None:
        """Start a node anew that has ended by itself, because it met a store that was away when it started."""
        if self.nodes[number] is not services or services.store_link.is_dead:
            return
        if services.failure is not None:
            self._start(number)
        else:
            self.later(SUPERVISION_SECONDS, self._supervise, number, services)

    def any_node(self) -> Services | None:
        """One of those that answer."""
        up = [services for services in self.nodes if services is not None and services.is_up]
        return self.chance.choice(up) if up else None

    def restart(self, number: int, former: str) -> None:
        """Start a node anew whose life as ``former`` is over."""
        if self.nodes[number] is None:
            self.note(What.OVER, node=former, text="down")
            self._start(number)


_SAID: Final = re.compile(rb'"said":"([^"]*)"')
