"""One node: everything that a process of Roomkey runs, wired together in one place."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

import structlog
from msgspec.structs import replace

from roomkey.api.app import create_app
from roomkey.api.middleware import NODE_HEADER
from roomkey.backends import SharedSettings, Stores
from roomkey.backends.memory.counters import MemoryCounters
from roomkey.config import Config, secrets_apart
from roomkey.documents.following import Follower
from roomkey.documents.maintenance import Maintenance
from roomkey.documents.open_documents import OpenDocuments, Seed
from roomkey.documents.service import DocumentService
from roomkey.errors import ConfigurationError
from roomkey.health import Health
from roomkey.ports import LoggedEvent, OneTimeLimits
from roomkey.realtime.endpoint import SessionWebSocketHandler
from roomkey.realtime.transport import Accepted, Handshake, Refused
from roomkey.security import masterkey
from roomkey.security.apikeys import ApiKeys
from roomkey.security.tickets import TICKET_LIMITS, Tickets
from roomkey.sessions.event_follower import EventFollower
from roomkey.sessions.janitor import Janitor
from roomkey.sessions.manager import SessionManager, SystemClock

_log = structlog.get_logger("roomkey.node")

Work = Callable[[], Awaitable[None]]

FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 60.0

ALARM: Final = timedelta(minutes=2)
"""How long health stays degraded after a background task failed: longer than the longest pause before a new try."""

NODE_ID_BYTES: Final = 4

WELCOME: Final = Path(__file__).parent / "web" / "welcome.md"
"""What the first document of the demo says."""


class Node:
    """
    The services of one process. They are wired on construction, and work while ``running`` is entered.

    That may happen several times, each on a loop of its own: ``sessions`` and ``app`` stay, sockets are new.
    A node is the ``HandshakeHandler`` that servers are given: it hands on to the sockets of the current run.

    Raises:
        ConfigurationError: On construction, if the configuration asks for what cannot be.
    """

    def __init__(self, config: Config, *, seed: Seed | None = None) -> None:
        """``seed`` says what new documents begin with; in ``--dev`` the one of the demo has something in it."""
        self.config = config
        self.draining = False
        stores = Stores(config.storage.options)
        self.storage = stores.sessions(config.storage.location)
        self.background = BackgroundTasks(SystemClock().now)
        master = config.master_key()
        self.sessions = SessionManager(
            self.storage,
            policy=config.sessions,
            default_grants=config.default_grants,
            rotation_key=None if master is None else masterkey.derive(master, "token rotation"),
            degraded_from=config.health.degraded_from,
        )
        self.documents = OpenDocuments(
            stores.documents(config.storage.documents_location),
            settings=config.documents,
            clock=self.sessions.clock,
            seed=seed or (welcome if config.server.dev else None),
        )
        self.id = _new_id(config.server.node)
        self._shared = stores.shared(
            config.storage.location,
            SharedSettings(
                tickets=TICKET_LIMITS,
                answers=OneTimeLimits(bytes=config.api.idempotency_max_bytes),
                clock=self.sessions.clock,
                secret=b"" if master is None else masterkey.derive(master, "shared memory"),
            ),
        )
        self._tickets = Tickets(self._shared.tickets)
        # Of this process alone: counting every handshake once for all processes would cost more than it is worth here.
        self._handshakes = MemoryCounters(self.sessions.clock)
        self._sockets = self._new_sockets()
        self.health = Health(
            self.sessions,
            documents=self.documents,
            sockets=lambda: self._sockets,
            background=self.background,
        )
        security = config.security
        self.app = create_app(
            self.sessions,
            documents=DocumentService(self.documents),
            health=self.health,
            settings=replace(config.api, allowed_origins=security.allowed_origins, websocket_path=config.realtime.path),
            keys=ApiKeys(security.api_keys),
            tickets=self._tickets,
            answers=self._shared.answers,
            node=self.id,
            handshake_handler=self,
            transport=config.websocket,
            dev=config.server.dev,
            draining=lambda: self.draining,
        )

    @asynccontextmanager
    async def at_work(self) -> AsyncGenerator[None]:
        """
        Commands on sessions and documents work until this is left: no sockets, nothing in the background.

        Raises:
            Storage: If a storage cannot be opened.
        """
        async with self.storage, self.documents.store, self.documents.at_work():
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
        self.draining = False
        sockets = self._sockets = self._new_sockets()
        # Commits of other processes on the same storage end sockets here, too.
        follower = EventFollower(self.storage, SocketEvents(sockets), name="sockets")
        unsubscribe = self.sessions.on_events(sockets.on_events)
        try:
            async with self._among_others(), self.at_work():
                await follower.start()
                tasks = {
                    "janitor": Janitor(self.sessions, self.config.janitor).run,
                    "sockets": sockets.run,
                    "documents": Maintenance(self.documents).run,
                }
                if self.storage.shared:
                    tasks["follower"] = follower.run
                if self.documents.store.shared:
                    tasks["documents of others"] = Follower(self.documents).run
                async with self.background.at_work(tasks):
                    yield
        finally:
            unsubscribe()

    @asynccontextmanager
    async def _among_others(self) -> AsyncGenerator[None]:
        """Be one of the nodes on the storage, and say what that means if there are others."""
        await self._shared.join(self.id)
        try:
            others = self._shared.others()
            if others:
                own = "rooms, presence, awareness and limits"
                if not self._shared.is_complete:
                    own = f"tickets, idempotency keys, {own}"
                _log.warning("storage_shared", node=self.id, others=others, of_each_process_alone=own)
            yield
        finally:
            await self._shared.leave()

    async def accept(self, handshake: Handshake) -> Accepted | Refused:
        """Answer a handshake."""
        answer = await self._sockets.accept(handshake)
        return replace(answer, headers=(*answer.headers, (NODE_HEADER, self.id)))

    async def drain(self) -> None:
        """Let no more sockets in, say in health that others should be asked, and send open sockets away."""
        self.draining = True
        await self._sockets.drain(self.config.server.drain)

    def _new_sockets(self) -> SessionWebSocketHandler:
        settings = replace(self.config.realtime, allowed_origins=self.config.security.allowed_origins)
        return SessionWebSocketHandler(
            self.sessions,
            settings=settings,
            clock=self.sessions.clock,
            tickets=self._tickets,
            counters=self._handshakes,
            node=self.id,
            open_documents=self.documents,
        )


class SocketEvents:
    """The sockets of a node as an ``EventConsumer``."""

    def __init__(self, sockets: SessionWebSocketHandler) -> None:
        self._sockets = sockets

    async def consume(self, partition: int, events: Sequence[LoggedEvent]) -> None:
        """End the sockets of sessions that others have ended."""
        del partition
        self._sockets.on_events([logged.event for logged in events])

    async def gap(self, partition: int, first_missing: int, last_missing: int) -> None:
        """Whatever was missed, storage knows how the sessions stand now."""
        del first_missing, last_missing
        self._sockets.on_gap(partition)


def _new_id(name: str | None) -> str:
    """What tells this process from others, in headers and logs."""
    return "-".join(filter(None, (name, token_hex(NODE_ID_BYTES))))


def welcome(document: str) -> Mapping[str, Any] | None:
    """What the demo's document begins with."""
    return {"content": WELCOME.read_text(encoding="utf-8")} if document == "demo/welcome" else None


class BackgroundTasks:
    """Work that goes on until it is stopped: if it fails, that is reported, and it is started again after a pause."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._failed: dict[str, datetime] = {}

    def degradations(self) -> Mapping[str, str]:
        """The tasks that failed within ``ALARM``, and when."""
        since = self._now() - ALARM
        return {name: f"failed at {at:%H:%M:%S}Z" for name, at in self._failed.items() if at > since}

    @asynccontextmanager
    async def at_work(self, works: Mapping[str, Work]) -> AsyncGenerator[None]:
        """Run all of them, each by its name, until this is left."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._keep_doing(name, work)) for name, work in works.items()]
                try:
                    yield
                finally:
                    for task in tasks:
                        task.cancel()
        except BaseExceptionGroup as failures:
            # No task of ours raises, so this is what the block raised, wrapped up by the group.
            raise failures.exceptions[0] from None

    async def _keep_doing(self, name: str, work: Work) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            begun = self._now()
            try:
                await work()
            except Exception:  # noqa: BLE001  # whatever it was, the next try may succeed
                self._failed[name] = self._now()
                _log.exception("background_task_failed", task=name, next_try_in_seconds=pause)
                if _is_cancelled():
                    return
            else:
                return
            await asyncio.sleep(pause)
            healthy = self._now() - begun > ALARM
            pause = FIRST_PAUSE_SECONDS if healthy else min(pause * 2, LONGEST_PAUSE_SECONDS)


def _is_cancelled() -> bool:
    # A task that is cancelled and fails meanwhile raises the failure: that must not pass for a wish to go on.
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
