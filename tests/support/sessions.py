"""Sessions and managers for tests, at a moment that the test moves."""

from datetime import UTC, datetime, timedelta

from roomkey.backends.memory import MemorySessionStorage
from roomkey.domain.lifecycle import begin
from roomkey.domain.policy import SessionPolicy
from roomkey.domain.session import AnyEvent, Created, Session, SessionEvent, SessionId, UserRevoked
from roomkey.ports import SessionStorage
from roomkey.sessions.manager import SessionManager
from roomkey.testing.clock import ManualClock

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
ALICE = SessionId("3a" + "a" * 26)


def pending(at: datetime = NOON, *, lifetime: timedelta = timedelta(hours=24)) -> Session:
    """A session of alice as it is right after its creation."""
    return begin(created(at, lifetime=lifetime))


def created(at: datetime = NOON, *, lifetime: timedelta = timedelta(hours=24)) -> Created:
    """The first event of a session of alice."""
    policy = SessionPolicy()
    return Created(
        session=ALICE,
        user="alice",
        version=1,
        at=at,
        expires_at=at + lifetime,
        idle_timeout=policy.idle_timeout,
        activation_timeout=policy.activation_timeout,
    )


class Desk:
    """A manager with its clock, and everything that it announced."""

    def __init__(self, storage: SessionStorage | None = None, policy: SessionPolicy | None = None) -> None:
        self.clock = ManualClock(NOON)
        self.storage: SessionStorage = storage or MemorySessionStorage()
        self.sessions = SessionManager(self.storage, policy=policy, clock=self.clock, rotation_key=b"k" * 32)
        self.announced: list[AnyEvent] = []
        self.sessions.on_events(self.announced.extend)

    async def active(self, user_id: str = "alice") -> Session:
        """A new active session."""
        issued = await self.sessions.create_session(user_id)
        return await self.sessions.activate_session(issued.id)

    async def history(self, session: Session) -> list[SessionEvent]:
        """The session's own events, from the log."""
        logged = await self.storage.events(int(session.id[:2], 16), limit=10_000)
        return [
            each.event
            for each in logged
            if not isinstance(each.event, UserRevoked) and each.event.session == session.id
        ]
