"""One node: everything that a process of Roomkey runs, wired together in one place."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

import structlog
from msgspec.structs import replace
from starlette.types import ASGIApp

from roomkey.api.app import create_app
from roomkey.api.in_process import Callers, Connected, RoomDocuments
from roomkey.api.middleware import NODE_HEADER
from roomkey.backends import ClusterSettings, SharedSettings, Stores, urls
from roomkey.backends.memory.cluster import MemoryNodeRegistry, MemoryPresence, MemoryPresenceStore
from roomkey.config import Config, secrets_apart
from roomkey.documents.following import Follower
from roomkey.documents.loading import Seed
from roomkey.documents.maintenance import Maintenance
from roomkey.documents.open_documents import OpenDocuments
from roomkey.documents.relay import Peers
from roomkey.documents.service import DocumentService
from roomkey.encrypted_stores import decide_what_keys_begin_with, encryption_of
from roomkey.errors import ConfigurationError, RoomkeyError
from roomkey.health import Health
from roomkey.leasing import LIFETIME, Chore
from roomkey.membership import Membership
from roomkey.neighbours import Neighbours, NeighbourSettings
from roomkey.node.access import NodeAccess
from roomkey.node.audit import NodeAudit
from roomkey.node.background import BackgroundTasks, Work
from roomkey.node.hooks import NodeHooks
from roomkey.node.security import NodeSecurity
from roomkey.ports import Authorize, Clock, Cluster, NodeStatus, OneTimeLimits
from roomkey.realtime.endpoint import SessionWebSocketHandler
from roomkey.realtime.rooms.broker import LocalBroker
from roomkey.realtime.transport import Accepted, Handshake, Refused
from roomkey.security import masterkey
from roomkey.security.attempts import Attempts
from roomkey.security.events import SecurityEvents
from roomkey.security.injection import EXTRA
from roomkey.security.tickets import TICKET_LIMITS
from roomkey.sessions.janitor import Janitor
from roomkey.sessions.manager import SessionManager, SystemClock
from roomkey.sessions.near_cache import NearCache
from roomkey.storage_settings import shared_and_not

if TYPE_CHECKING:
    pass

_log = structlog.get_logger("roomkey.node")

NODE_ID_BYTES: Final = 4

LEASES_FOLDER: Final = "leases"
"""Where in the directory of a storage on this machine its processes agree who does what must be done once."""

WELCOME: Final = Path(__file__).parents[1] / "web" / "welcome.md"
"""What the first document of the demo says."""


class Node:
    """
    The services of one process. They are wired on construction, and work while ``running`` is entered.

    That may happen several times, each on a loop of its own: ``sessions`` and ``app`` stay, sockets are new.
    A node is the ``HandshakeHandler`` that servers are given: it hands on to the sockets of the current run.

    Raises:
        ConfigurationError: On construction, if the configuration asks for what cannot be.
    """

    def __init__(
        self, config: Config, *, seed: Seed | None = None, address: str = "", authorize: Authorize | None = None
    ) -> None:
        """
        ``authorize`` says what sessions may do in documents, of what their grants allow.

        ``seed`` says what new documents begin with; in ``--dev`` the one of the demo has something in it.

        ``address`` is where its server listens, for those who look for it.
        """
        self.config = config
        self._address = address
        self.draining = False
        clock = SystemClock()
        self.events = SecurityEvents(clock)
        master = config.master_key()
        self.encryption = encryption_of(config, clock, master=master, events=self.events)
        stores = Stores(config.storage.options, self.encryption.codec)
        self.storage = self.encryption.sessions(stores.sessions(config.storage.location))
        self.background = BackgroundTasks(clock.now)
        is_remote = urls.is_remote(config.storage.location)
        cache = self._near_cache() if is_remote else None
        self.sessions = SessionManager(
            self.storage,
            policy=config.sessions,
            default_grants=config.default_grants,
            rotation_key=None if master is None else masterkey.derive(master, "token rotation"),
            degraded_from=config.health.degraded_from,
            cache=cache,
            attempts=Attempts(config.limits),
            clock=clock,
        )
        self.id = _new_id(config.server.node)
        self.objects = stores.objects(config.storage.location)
        self._shared = stores.shared(
            config.storage.location,
            SharedSettings(
                tickets=TICKET_LIMITS,
                answers=OneTimeLimits(bytes=config.api.idempotency_max_bytes),
                clock=clock,
                secret=b"" if master is None else masterkey.derive(master, "shared memory"),
            ),
        )
        self.security = NodeSecurity(
            config, master=master, sessions=self.sessions, objects=self.objects, shared=self._shared, events=self.events
        )
        self.audit = NodeAudit(
            config,
            stores,
            master=master,
            objects=self.objects,
            leases=self._shared.leases,
            sessions=self.storage,
            naming=self.encryption.blind,
            events=self.events,
            clock=clock,
            node=self.id,
        )
        self.cluster = self._cluster(stores)
        self.hooks = NodeHooks(
            config.hooks,
            config.webhooks,
            node=self.id,
            sessions=self.sessions,
            objects=self.objects,
            shared=self._shared,
            documents=lambda: self.documents,
            background=self.background,
        )
        self._version = version("roomkey")
        self._started_at = clock.now()
        self.membership = Membership(self.cluster.nodes, self._status, clock)
        self.documents = OpenDocuments(
            stores.documents(config.storage.documents_location),
            settings=config.documents,
            clock=clock,
            seed=seed or (welcome if config.server.dev else None),
            peers=Peers(
                node=self.id,
                broker=self.cluster.broker,
                # Elsewhere they are those of this process, and begin anew with it.
                leases=self._shared.leases if is_remote else None,
                lives=self.membership.lives,
            ),
            observer=self.hooks.observer,
        )
        self.membership.on_gone(self.documents.relay.gone)
        self._chore = self._janitors_chore() if is_remote else None
        self.neighbours = Neighbours(
            self.sessions,
            self.cluster.broker,
            NeighbourSettings(node=self.id, is_remote=is_remote, grace=config.nodes.blind_grace),
            cache=cache,
            watch=self.security.threats.hear,
        )
        self.access = NodeAccess(
            config.access,
            authorize,
            sessions=self.sessions,
            sockets=lambda: self._sockets,
            objects=self.objects,
            shared=self.storage.shared,
            node=self.id,
        )
        self._sockets = self._new_sockets()
        callers = Callers(self.sessions, self.access.decisions)
        self.room_documents = RoomDocuments(DocumentService(self.documents), callers)
        self.connected = Connected(lambda: self._sockets.roll_call, self.sessions, callers)
        self.membership.on_gone(self._nodes_gone)
        self.health = self._health()
        self.app = self._interface()

    def _health(self) -> Health:
        audit = self.audit
        return Health(
            self.sessions,
            documents=self.documents,
            sockets=lambda: self._sockets,
            background=self.background,
            others=(
                self.neighbours,
                self.encryption,
                audit.log,
                self.security.issuers,
                self.access,
                self.hooks,
                *([] if audit.trail is None else [audit.trail]),
            ),
            observe=self._observe,
            broker=self.cluster.broker,
            objects=self.objects,
        )

    def _interface(self) -> ASGIApp:
        config = self.config
        origins, path = config.security.allowed_origins, config.realtime.path
        return create_app(
            self.sessions,
            documents=DocumentService(self.documents),
            sockets=lambda: self._sockets.roll_call,
            access=self.access.service,
            audit=self.audit.log,
            trail=self.audit.trail,
            hooks=self.hooks.service,
            public_tree=config.audit.public_tree,
            health=self.health,
            settings=replace(config.api, allowed_origins=origins, websocket_path=path),
            security=self.security.interface,
            answers=self._shared.answers,
            node=self.id,
            handshake_handler=self,
            transport=config.websocket,
            dev=config.server.dev,
            draining=lambda: self.draining,
        )

    def _cluster(self, stores: Stores) -> Cluster:
        """What joins this node to others, or a cluster of one."""
        config, clock = self.config, self.sessions.clock
        if (joined := cluster_of(config, stores, node=self.id, clock=clock)) is not None:
            return joined
        if config.broker.url not in ("same", "none"):
            raise ConfigurationError("broker.url: only Redis and PostgreSQL join nodes")
        registry = MemoryNodeRegistry(clock)
        presence = MemoryPresenceStore(MemoryPresence(registry), self.id)
        return Cluster(LocalBroker(config.realtime, clock), presence, registry)

    def watch_for_troubles(self, troubles: Callable[[], Mapping[str, str]]) -> None:
        """Tell clients of this run that the service is degraded while ``troubles`` names anything, too."""
        self._sockets.watch_for_troubles(troubles)

    def _nodes_gone(self, ids: Sequence[str]) -> None:
        self._sockets.nodes_gone(ids)

    def _status(self) -> NodeStatus:
        statistics = self._sockets.statistics()
        return NodeStatus(
            id=self.id,
            version=self._version,
            started_at=self._started_at,
            address=self._address,
            sockets=statistics.connections,
            rooms=statistics.documents,
            lag_ms=self.neighbours.lag // timedelta(milliseconds=1),
            draining=self.draining,
        )

    def _near_cache(self) -> NearCache | None:
        settings = self.config.nodes
        if not settings.near_cache_sessions:
            return None
        return NearCache(self.storage, capacity=settings.near_cache_sessions, max_age=settings.near_cache_age)

    def _janitors_chore(self) -> Chore:
        lifetime = max(LIFETIME, 3 * self.config.janitor.interval)
        return Chore(self._shared.leases, "janitor", self.id, lifetime=lifetime, keeps=True)

    def _observe(self) -> Mapping[str, str]:
        """What health says of the other nodes, if there may be any."""
        observed = {
            **self.neighbours.observations(),
            **self.access.observations(),
            **self.hooks.observations(),
        }
        if not self.cluster.broker.shared:
            return observed
        living = self.membership.nodes
        return {"nodes": f"{len(living)}: {', '.join(node.id for node in living)}", **observed}

    @asynccontextmanager
    async def at_work(self) -> AsyncGenerator[None]:
        """
        Commands on sessions and documents work until this is left: no sockets, nothing in the background.

        Raises:
            Storage: If a storage cannot be opened.
            ConfigurationError: If what is in it is encrypted, and the configured key is not the one.
        """
        async with (
            self.objects,
            self.encryption.at_work(self.objects),  # before anything is read
            self.storage,
            self.documents.store,
        ):
            await decide_what_keys_begin_with(self.encryption, self.storage, self.documents.store, self.objects)
            async with (
                self.security.keys.at_work(),
                self.audit.at_work(),
                self.access.at_work(),
                self.hooks.at_work(),  # before documents are open, and after: what is stored last is noted, too
                self.documents.at_work(),
                self.hooks.telling(),
            ):
                yield

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """
        Everything works until this is left: commands, sockets, background tasks.

        Raises:
            Storage: If a storage cannot be opened.
            ConfigurationError: If its secrets would not be those of the other nodes on it.
        """
        if problems := [*secrets_apart(self.config)]:
            raise ConfigurationError(*problems)
        if self.security.inspector.is_missing:
            _log.warning("nothing_is_inspected", reason=f"pip install roomkey[{EXTRA}] looks for SQL and active HTML")
        self.draining = False
        sockets = self._sockets = self._new_sockets()
        unsubscribe = self.sessions.on_events(sockets.on_events)
        self.security.threats.watch(sockets)
        try:
            async with (
                self._among_others(),
                self.cluster.broker,
                self.documents.relay,  # before documents are open, and after: what is stored last is told, too
                self.at_work(),
                self.membership.at_work(),
                self.neighbours.heard(sockets) as works,
                self.background.at_work({**self._works(sockets), **works}),
                self.audit.running(),
            ):
                yield
        finally:
            unsubscribe()

    def _works(self, sockets: SessionWebSocketHandler) -> dict[str, Work]:
        """What goes on in the background, by name."""
        works: dict[str, Work] = {
            "janitor": Janitor(self.sessions, self.config.janitor, chore=self._chore).run,
            "sockets": sockets.run,
            "audit log": self.audit.log.run,
            "documents": Maintenance(self.documents).run,
            **self.security.works,
            **self.access.works,
            **self.hooks.works,
        }
        if self.audit.trail is not None:
            works |= self.audit.trail.works
        if self.cluster.broker.shared:
            works["membership"] = self.membership.run
        if self.documents.store.shared:
            works["documents of others"] = Follower(self.documents).run
        return works

    @asynccontextmanager
    async def _among_others(self) -> AsyncGenerator[None]:
        """Be one of the nodes on the storage, and say what that means if there are others."""
        await self._shared.join(self.id)
        try:
            others = self._shared.others()
            if others:
                joins, keys = self.cluster.broker.shared, self._shared.is_complete
                joined, own = shared_and_not(by_broker=joins, by_keys=keys, by_counters=self._shared.counts_once)
                say = _log.info if joins and keys else _log.warning
                say("storage_shared", node=self.id, others=others, joined=joined, of_each_process_alone=own)
            yield
        finally:
            await self._shared.leave()

    def report_connection(self, code: str, address: str | None) -> None:
        """A connection from there was refused or dropped before there was a whole request."""
        self.events.refused(code, address=address, place="connection")

    async def accept(self, handshake: Handshake) -> Accepted | Refused:
        """Answer a handshake."""
        answer = await self._sockets.accept(handshake)
        return replace(answer, headers=(*answer.headers, (NODE_HEADER, self.id)))

    async def drain(self) -> None:
        """Let no more sockets in, say in health that others should be asked, and send open sockets away."""
        self.draining = True
        async with asyncio.TaskGroup() as group:
            if self.cluster.broker.shared:
                group.create_task(self._tell_others())
            await self._sockets.drain(self.config.server.drain)

    async def _tell_others(self) -> None:
        """Let the other nodes and operators see now how this one stands; they would within seconds."""
        with suppress(RoomkeyError):
            await self.membership.renew()

    def _new_sockets(self) -> SessionWebSocketHandler:
        settings = replace(self.config.realtime, allowed_origins=self.config.security.allowed_origins)
        return SessionWebSocketHandler(
            self.sessions,
            settings=settings,
            clock=self.sessions.clock,
            tickets=self.security.tickets,
            counters=self.security.handshakes,
            node=self.id,
            open_documents=self.documents,
            broker=self.cluster.broker,
            presence=self.cluster.presence,
            events=self.events,
            possession=self.security.possession,
            public_url=self.config.api.public_url,
            limits=self.config.limits,
            is_audit_behind=lambda: self.audit.is_behind,
            inspector=self.security.inspector,
            living=lambda: [node.id for node in self.membership.nodes],
            decisions=self.access.decisions,
            observer=self.hooks.observer,
        )


def cluster_of(config: Config, stores: Stores, *, node: str, clock: Clock) -> Cluster | None:
    """
    What joins ``node`` to the others; ``None`` if nothing does that in this configuration.

    Raises:
        ConfigurationError: As ``open_storage``.
    """
    if config.broker.url == "none":
        return None
    realtime = config.realtime
    settings = ClusterSettings(
        node=node,
        clock=clock,
        history_publications=realtime.history_publications,
        history_age=realtime.history_age,
        history_bytes=realtime.history_bytes,
        repeat_window=realtime.repeat_window,
    )
    return stores.cluster(config.broker.location_beside(config.storage), settings)


def _new_id(name: str | None) -> str:
    """What tells this process from others, in headers and logs."""
    return "-".join(filter(None, (name, token_hex(NODE_ID_BYTES))))


def welcome(document: str) -> Mapping[str, Any] | None:
    """What the demo's document begins with."""
    return {"content": WELCOME.read_text(encoding="utf-8")} if document == "demo/welcome" else None
