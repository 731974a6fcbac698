"""Sessions under watch, at a moment that the test moves."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from roomkey.backends.memory import MemorySessionStorage
from roomkey.backends.memory.objects import MemoryObjectStore
from roomkey.domain.session import Client, Session, SessionId
from roomkey.ports import ObjectStore, SessionStorage
from roomkey.security.events import SecurityEvent, SecurityEvents
from roomkey.sessions.manager import SessionManager
from roomkey.testing.clock import ManualClock
from roomkey.threats.settings import ThreatSettings
from roomkey.threats.verdicts import Risk
from roomkey.threats.watch import ThreatWatch
from tests.support.sessions import NOON

KEY: Final = b"k" * 32

FIREFOX: Final = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
NEWER_FIREFOX: Final = "Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0"
CHROME: Final = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/139.0.0.0 Safari/537.36"

HOME: Final = Client(ip="203.0.113.7", user_agent=FIREFOX)
NEXT_DOOR: Final = Client(ip="203.0.113.200", user_agent=NEWER_FIREFOX)
ON_THE_WAY: Final = Client(ip="198.51.100.1", user_agent=FIREFOX)
STRANGER: Final = Client(ip="192.0.2.66", user_agent=CHROME)


class Sockets:
    """``WatchedSockets`` as the test says: what each session has sent, and what it was warned of."""

    def __init__(self) -> None:
        self.sent: dict[SessionId, tuple[Session, int, int]] = {}
        self.warnings: list[tuple[SessionId, Mapping[str, Any]]] = []

    def sessions(self) -> list[SessionId]:
        return list(self.sent)

    def traffic(self, id: SessionId) -> tuple[Session, int, int] | None:
        return self.sent.get(id)

    def warn(self, id: SessionId, details: Mapping[str, Any], until: datetime) -> None:
        del until
        self.warnings.append((id, details))


class Watched:
    """A node's sessions and the watch over them. Several may share a clock, a storage and objects."""

    def __init__(
        self,
        settings: ThreatSettings | None = None,
        *,
        beside: "Watched | None" = None,
        objects: ObjectStore | None = None,
    ) -> None:
        self.clock = ManualClock(NOON) if beside is None else beside.clock
        self.storage: SessionStorage = MemorySessionStorage() if beside is None else beside.storage
        self.objects = objects or (MemoryObjectStore() if beside is None else beside.objects)
        self.settings = settings or (ThreatSettings() if beside is None else beside.settings)
        self.sessions = SessionManager(self.storage, clock=self.clock, rotation_key=KEY)
        self.events = SecurityEvents(self.clock)
        self.reported: list[SecurityEvent] = []
        self.events.listen(self.reported.append)
        self.sockets = Sockets()
        self.watch = ThreatWatch(
            self.objects, self.sessions, settings=self.settings, clock=self.clock, events=self.events, key=KEY
        )
        self.watch.watch(self.sockets)
        self.sessions.recognition.watch = self.watch
        self.sessions.on_events(self.watch.on_events)
        self.events.listen(self.watch.on_security_event)

    async def active(self, user: str = "alice", client: Client | None = HOME) -> tuple[Session, str]:
        """A new active session and its token."""
        issued = await self.sessions.create_session(user, client=client, activate=True)
        return issued.session, issued.token

    async def misbehave(self, session: Session, *causes: str) -> None:
        """Record violations, and let the watch see to them."""
        for cause in causes:
            await self.sessions.record_violation(session.id, cause)
            await self.watch.settle()

    async def risk(self, session: Session) -> Risk:
        return await self.watch.risk(session)

    async def now(self, session: Session) -> Session:
        """The session as it stands."""
        found = await self.sessions.get_session(session.id)
        assert found is not None
        return found
