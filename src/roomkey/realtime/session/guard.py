"""
What a connection knows of the session that it belongs to, whatever protocol it speaks.

Moments, events and the answers of storage come in, decisions go out; nothing here waits or reads a clock. While
the session may have changed without notice, nothing that the client says may pass until storage has said how it
stands.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum, auto
from typing import Final

from roomkey.domain import lifecycle
from roomkey.domain.session import (
    AnyEvent,
    Deleted,
    Evicted,
    Expired,
    Invalidated,
    Session,
    SessionEvent,
    SessionState,
    Suspended,
    UserRevoked,
)
from roomkey.errors import InvalidState
from roomkey.realtime.protocol.json_messages import ErrorCode, Fault
from roomkey.realtime.session.closing import closing, invalidated, stopped
from roomkey.realtime.session.deadline import SessionDeadline
from roomkey.realtime.session.effects import (
    Authenticate,
    Close,
    ExpiringSoon,
    GuardEffect,
    NotRenewed,
    Rebind,
    Renewed,
    Review,
    Touch,
    Verify,
)
from roomkey.realtime.session.limits import SessionLimits
from roomkey.realtime.settings import RealtimeSettings
from roomkey.wire.close import CloseReason

GuardEffects = Sequence[GuardEffect]

NOTHING: Final[GuardEffects] = ()
_TOUCH: Final[GuardEffects] = (Touch(),)


class Trust(Enum):
    """How far what is known of the session may be relied on."""

    CERTAIN = auto()
    CHECKING = auto()
    """Storage is being asked, without a reason to doubt: messages pass."""
    DOUBTING = auto()
    """Storage is being asked, and messages wait for its answer."""
    OVERTAKEN = auto()
    """The doubt is younger than the question: its answer will not do, and it is asked again."""
    OVER = auto()


class Signal(Enum):
    """What changes the trust."""

    CHECK = auto()
    DOUBT = auto()
    ANSWERED = auto()
    UNANSWERED = auto()


NEXT_TRUST: Final[Mapping[Trust, Mapping[Signal, Trust]]] = {
    Trust.CERTAIN: {
        Signal.CHECK: Trust.CHECKING,
        Signal.DOUBT: Trust.DOUBTING,
    },
    Trust.CHECKING: {
        Signal.CHECK: Trust.CHECKING,
        Signal.DOUBT: Trust.OVERTAKEN,
        Signal.ANSWERED: Trust.CERTAIN,
        Signal.UNANSWERED: Trust.CERTAIN,
    },
    Trust.DOUBTING: {
        Signal.CHECK: Trust.DOUBTING,
        Signal.DOUBT: Trust.OVERTAKEN,
        Signal.ANSWERED: Trust.CERTAIN,
        Signal.UNANSWERED: Trust.OVER,
    },
    Trust.OVERTAKEN: {
        Signal.CHECK: Trust.OVERTAKEN,
        Signal.DOUBT: Trust.OVERTAKEN,
        Signal.ANSWERED: Trust.DOUBTING,
        Signal.UNANSWERED: Trust.OVER,
    },
    Trust.OVER: dict.fromkeys(Signal, Trust.OVER),
}
"""What follows a signal. Storage is asked on the way into CHECKING and DOUBTING from anywhere else."""

# What every message is compared with. Python 3.11 takes a tenth of a microsecond to find a member of an enumeration in
# its class, and as long to hash it.
_OVER: Final = Trust.OVER
_HOLDING: Final = (Trust.DOUBTING, Trust.OVERTAKEN)


class SessionGuard:
    """
    The guard over one session for one connection.

    Everything returns what is to be done, in order; after a ``Close``, when it ``is_over``, always nothing.
    """

    __slots__ = (
        "_deadline",
        "_heard_at",
        "_held",
        "_held_bytes",
        "_is_paused",
        "_refreshing",
        "_renewed",
        "_settings",
        "_trust",
        "limits",
    )

    def __init__(self, session: Session, limits: SessionLimits, *, settings: RealtimeSettings, now: datetime) -> None:
        self.limits = limits
        self._settings = settings
        self._deadline = SessionDeadline(session, settings)
        self._heard_at = now
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._trust = Trust.CERTAIN
        self._is_paused = False
        self._refreshing: Authenticate | None = None
        self._renewed: Authenticate | None = None

    @property
    def session(self) -> Session:
        """The session that the client belongs to, as far as this connection knows."""
        return self._deadline.session

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended, or must."""
        return self._trust is _OVER

    @property
    def deadline(self) -> SessionDeadline:
        """When the session's time is over, for those who tell the client."""
        return self._deadline

    # --- what the client says -------------------------------------------------------------------------

    def heard(self, now: datetime) -> None:
        """The client has said something."""
        self._heard_at = now

    def is_open_to_activity(self, now: datetime) -> bool:
        """Whether it makes a difference now if the user did something; else nobody need find out."""
        return self._deadline.is_open_to_activity(now)

    def acted(self, now: datetime) -> GuardEffects:
        """The user did something, which moves the idle deadline (ASVS 7.3.1)."""
        return _TOUCH if self._deadline.act(now) else NOTHING

    def admit(self, message: bytes, now: datetime) -> GuardEffects | None:
        """``None`` if the session is certain, so that the message may pass; else it waits, and this is to be done."""
        if self._trust in _HOLDING or self._refreshing is not None or self._is_paused:
            return self._hold(message)
        if now >= self._deadline.deadline:
            # Perhaps it was moved by a request, or by another connection. Storage knows, so this one waits.
            return [*self._hold(message), *self._signal(Signal.DOUBT)]
        return None

    @property
    def can_resume(self) -> bool:
        """Whether there are messages that had to wait, and need not any more."""
        return (
            bool(self._held)
            and self._trust not in _HOLDING
            and self._refreshing is None
            and not self._is_paused
            and not self.is_over
        )

    def resume(self) -> bytes:
        """The next message that had to wait. What one does must be done before the next is taken."""
        message = self._held.pop(0)
        self._held_bytes -= len(message)
        return message

    def pause(self) -> None:
        """Let messages wait: one of them is still being carried out."""
        self._is_paused = True

    def unpause(self) -> None:
        """It is done."""
        self._is_paused = False

    def refresh(self, question: Authenticate) -> GuardEffects:
        """Another token came. What follows may need what it allows, so it waits until it is known whose it is."""
        self._refreshing = question
        return [question]

    def _hold(self, message: bytes) -> GuardEffects:
        settings = self._settings
        self._held_bytes += len(message)
        if len(self._held) >= settings.max_held_messages or self._held_bytes > settings.max_held_bytes:
            return self.close(closing(CloseReason.OVERLOADED))
        self._held.append(message)
        return NOTHING

    # --- what storage answers -------------------------------------------------------------------------

    def verified(self, session: Session | None, now: datetime) -> GuardEffects:
        """How the session stands. ``None``: it is gone."""
        if self.is_over:
            return NOTHING
        asked_again = self._signal(Signal.ANSWERED)
        if asked_again:
            return asked_again
        if session is None:
            return self.close(invalidated("deleted"))
        if session.state is not SessionState.ACTIVE:
            return self.close(stopped(session.state, session.reason))
        if lifecycle.overdue(session, now) is not None:
            return self.close(stopped(SessionState.EXPIRED))
        effects = [*self.learn(session), *self._notify(now)]
        if self._renewed is not None:
            effects.append(Renewed(self._renewed))
            self._renewed = None
        return effects

    def unverified(self, now: datetime) -> GuardEffects:
        """Storage did not answer. Unless there is reason to doubt it, the session goes on within its known time."""
        if self.is_over:
            return NOTHING
        if NEXT_TRUST[self._trust][Signal.UNANSWERED] is Trust.OVER:
            return self.close(closing(CloseReason.UNAVAILABLE))
        self._signal(Signal.UNANSWERED)
        return self._notify(now)

    def refreshed(self, session: Session, now: datetime) -> GuardEffects:
        """
        The new token opens ``session``: this one, or another of the same user, to which the connection then belongs.

        Its state is asked for once more, after whoever hears of events knows that they matter here.
        """
        if self.is_over or self._refreshing is None:
            return NOTHING
        if session.user_id != self.session.user_id:
            return self.not_refreshed(Fault(ErrorCode.FORBIDDEN, "the token is somebody else's"), now)
        if session.state is not SessionState.ACTIVE:
            return self.not_refreshed(Fault(ErrorCode.INVALID_SESSION, f"the session is {session.state}"), now)
        self._renewed, self._refreshing = self._refreshing, None
        if session.id == self.session.id and session.exclusive_since == self.session.exclusive_since:
            return [*self.learn(session), *self._signal(Signal.DOUBT)]
        former = self.session
        self._deadline.begin(session)
        return [Rebind(former), Review(), *self._signal(Signal.DOUBT)]

    def not_refreshed(self, fault: Fault, now: datetime) -> GuardEffects:
        """The new token opens nothing, or this cannot be found out now. The session goes on as it was."""
        del now
        if self.is_over or self._refreshing is None:
            return NOTHING
        refused, self._refreshing = self._refreshing, None
        return [NotRenewed(refused, fault)]

    def learn(self, session: Session) -> GuardEffects:
        """The session as storage has it, or had it some time ago."""
        if session.version < self.session.version:
            return NOTHING  # read before something that is known already
        if session.exclusive_since != self.session.exclusive_since:
            return self.close(closing(CloseReason.TOKEN_ROTATED))  # what opened this socket is void
        self._deadline.learn(session)
        return [Review()]

    def doubt(self) -> GuardEffects:
        """Let nothing pass until storage has said how the session stands."""
        return self._signal(Signal.DOUBT)

    def _signal(self, signal: Signal) -> GuardEffects:
        before, self._trust = self._trust, NEXT_TRUST[self._trust][signal]
        asks = self._trust in (Trust.CHECKING, Trust.DOUBTING) and self._trust is not before
        return [Verify()] if asks else NOTHING

    # --- what happens to the session ------------------------------------------------------------------

    def happened(self, event: AnyEvent, now: datetime) -> GuardEffects:
        """Something happened to a session, perhaps this one, perhaps known already."""
        if isinstance(event, UserRevoked):
            return self._user_revoked(event)
        if self.is_over or event.session != self.session.id or event.version <= self.session.version:
            return NOTHING
        match event:
            case Suspended():
                return self.close(stopped(SessionState.SUSPENDED, event.reason))
            case Expired():
                return self.close(stopped(SessionState.EXPIRED, event.reason))
            case Invalidated() | Evicted() | Deleted():
                return self.close(invalidated(event.tag(), event.reason))
            case _:
                return self._change(event, now)

    def _change(self, event: SessionEvent, now: datetime) -> GuardEffects:
        if event.version > self.session.version + 1:
            return self.doubt()  # something came in between that nobody told us
        try:
            session = lifecycle.apply(self.session, event)
        except InvalidState:
            return self.doubt()
        return [*self.learn(session), *self._notify(now)]

    def _user_revoked(self, event: UserRevoked) -> GuardEffects:
        if self.is_over or event.user != self.session.user_id or event.session == self.session.id:
            return NOTHING
        if self.session.created_at <= event.at:
            return self.close(invalidated(event.tag(), event.reason))
        return self.doubt()  # it looks newer, and clocks differ

    # --- time -----------------------------------------------------------------------------------------

    def next_check(self) -> datetime:
        """When ``due`` is to be called, if nothing happens before."""
        timeout = self._settings.heartbeat_timeout
        check = self._deadline.next_check()
        return check if timeout is None else min(check, self._heard_at + timeout)

    def due(self, now: datetime) -> GuardEffects:
        """What time has brought about."""
        timeout = self._settings.heartbeat_timeout
        if self.is_over:
            return NOTHING
        if timeout is not None and now - self._heard_at >= timeout:
            return self.close(closing(CloseReason.NO_HEARTBEAT))
        if now >= self._deadline.deadline:
            return NOTHING if self._trust in _HOLDING else self.doubt()
        # Storage first: the deadline may have been moved from elsewhere.
        return self._signal(Signal.CHECK) if self._deadline.wants_notice(now) else NOTHING

    def _notify(self, now: datetime) -> GuardEffects:
        deadline = self._deadline
        if not deadline.wants_notice(now):
            return NOTHING
        deadline.noticed()
        return [ExpiringSoon()]

    # --- the end --------------------------------------------------------------------------------------

    def close(self, end: Close) -> GuardEffects:
        """End the connection; see ``closing``."""
        if self.is_over:
            return NOTHING
        self._trust = Trust.OVER
        self._held.clear()
        return [end]

    def gone(self) -> None:
        """The socket is closed; nothing more is decided."""
        self._trust = Trust.OVER
