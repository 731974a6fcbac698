"""
What a connection knows of the session that it belongs to, whatever protocol it speaks.

Moments, events and the answers of storage come in, decisions go out; nothing here waits or reads a clock. A
watch is in doubt when the session may have changed without its notice: until storage has said how it stands,
nothing that the client says may pass.
"""

from collections.abc import Sequence
from datetime import datetime
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
from roomkey.realtime.protocol.json_messages import CloseReason, ErrorCode, Fault
from roomkey.realtime.session.closing import closing, invalidated, stopped
from roomkey.realtime.session.deadline import SessionDeadline
from roomkey.realtime.session.effects import Authenticate, Close, Effect, Rebind, Verify
from roomkey.realtime.session.limits import SessionLimits
from roomkey.realtime.settings import RealtimeSettings

Effects = Sequence[Effect]

NOTHING: Final[Effects] = ()


class Watch:
    """
    The watch over one session for one connection.

    Everything returns what is to be done, in order; after a ``Close``, when it ``is_over``, always nothing.
    Protocols say in ``_review``, ``_renewal``, ``_notice`` and ``_refused`` what their clients are told.
    """

    __slots__ = (
        "_again",
        "_deadline",
        "_doubting",
        "_heard_at",
        "_held",
        "_held_bytes",
        "_limits",
        "_refreshing",
        "_renewed",
        "_settings",
        "_verifying",
        "is_over",
    )

    def __init__(self, session: Session, limits: SessionLimits, *, settings: RealtimeSettings, now: datetime) -> None:
        self._settings = settings
        self._limits = limits
        self._deadline = SessionDeadline(session, settings)
        self._heard_at = now
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._doubting = False
        self._verifying = False
        self._again = False
        self._refreshing: Authenticate | None = None
        self._renewed: Authenticate | None = None
        self.is_over = False

    @property
    def session(self) -> Session:
        """The session that the client belongs to, as far as this connection knows."""
        return self._deadline.session

    # --- what the client says -------------------------------------------------------------------------

    @property
    def is_held_up(self) -> bool:
        """Whether messages have to wait for storage."""
        return self._doubting or self._refreshing is not None

    @property
    def can_resume(self) -> bool:
        """Whether there are messages that had to wait, and need not any more."""
        return bool(self._held) and not self.is_held_up and not self.is_over

    def resume(self, now: datetime) -> Effects:
        """Decide about the next message that had to wait. What one does must be done before the next is decided."""
        message = self._held.pop(0)
        self._held_bytes -= len(message)
        return self._understand(message, now)

    def _admit(self, message: bytes, now: datetime) -> Effects:
        """Decide about a message if the session is certain; let it wait if it is not."""
        if self.is_held_up:
            return self._hold(message)
        if now >= self._deadline.deadline:
            # Perhaps it was moved by a request, or by another connection. Storage knows, so this one waits.
            self._hold(message)
            return self._doubt()
        return self._understand(message, now)

    def _hold(self, message: bytes) -> Effects:
        settings = self._settings
        self._held_bytes += len(message)
        if len(self._held) >= settings.max_held_messages or self._held_bytes > settings.max_held_bytes:
            return self._end(closing(CloseReason.OVERLOADED))
        self._held.append(message)
        return NOTHING

    # --- what protocols say ---------------------------------------------------------------------------

    def _understand(self, message: bytes, now: datetime) -> Effects:
        """Decide about a message of a session that is certain."""
        raise NotImplementedError

    def _review(self) -> Effects:
        """The session's grants may have changed."""
        raise NotImplementedError

    def _renewal(self, renewed: Authenticate) -> Effects:
        """The client is told that its new token is accepted."""
        raise NotImplementedError

    def _notice(self) -> Effects:
        """The client is told that its time will soon be over."""
        raise NotImplementedError

    def _refused(self, fault: Fault, refused: Authenticate, now: datetime) -> Effects:
        """The client is told that its new token is not accepted."""
        raise NotImplementedError

    # --- what storage answers -------------------------------------------------------------------------

    def verified(self, session: Session | None, now: datetime) -> Effects:
        """How the session stands. ``None``: it is gone."""
        self._verifying = False
        if self.is_over:
            return NOTHING
        if self._again:
            # The doubt may be younger than this answer.
            self._again = False
            return self._verify()
        if session is None:
            return self._end(invalidated("deleted"))
        if session.state is not SessionState.ACTIVE:
            return self._end(stopped(session.state))
        if lifecycle.overdue(session, now) is not None:
            return self._end(stopped(SessionState.EXPIRED))
        self._doubting = False
        effects = [*self.learn(session), *self._notify(now)]
        if self._renewed is not None:
            effects.extend(self._renewal(self._renewed))
            self._renewed = None
        return effects

    def unverified(self, now: datetime) -> Effects:
        """Storage did not answer. Unless there is reason to doubt it, the session goes on within its known time."""
        self._verifying = False
        if self.is_over:
            return NOTHING
        if self._doubting:
            return self._end(closing(CloseReason.UNAVAILABLE))
        return self._notify(now)

    def refreshed(self, session: Session, now: datetime) -> Effects:
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
        if session.id == self.session.id:
            return [*self.learn(session), *self._doubt()]
        former = self.session
        self._deadline.begin(session)
        return [Rebind(former), *self._review(), *self._doubt()]

    def not_refreshed(self, fault: Fault, now: datetime) -> Effects:
        """The new token opens nothing, or this cannot be found out now. The session goes on as it was."""
        if self.is_over or self._refreshing is None:
            return NOTHING
        refused, self._refreshing = self._refreshing, None
        return self._refused(fault, refused, now)

    def learn(self, session: Session) -> Effects:
        """The session as storage has it, or had it some time ago."""
        if session.version < self.session.version:
            return NOTHING  # read before something that is known already
        self._deadline.learn(session)
        return self._review()

    def take_over(self, limits: SessionLimits) -> None:
        """Use what is remembered of the session that the connection belongs to now."""
        self._limits = limits

    def doubt(self) -> Effects:
        """Something may have happened to the session that nobody told us."""
        return NOTHING if self.is_over else self._doubt()

    def _doubt(self) -> Effects:
        """Let nothing pass until storage has said how the session stands."""
        self._doubting = True
        self._again = self._verifying
        return self._verify()

    def _verify(self) -> Effects:
        if self._verifying:
            return NOTHING
        self._verifying = True
        return [Verify()]

    # --- what happens to the session ------------------------------------------------------------------

    def happened(self, event: AnyEvent, now: datetime) -> Effects:
        """Something happened to a session, perhaps this one, perhaps known already."""
        if isinstance(event, UserRevoked):
            return self._user_revoked(event)
        if self.is_over or event.session != self.session.id or event.version <= self.session.version:
            return NOTHING
        match event:
            case Suspended():
                return self._end(stopped(SessionState.SUSPENDED, event.cause))
            case Expired():
                return self._end(stopped(SessionState.EXPIRED, event.cause))
            case Invalidated() | Evicted() | Deleted():
                return self._end(invalidated(event.tag(), event.cause))
            case _:
                return self._change(event, now)

    def _change(self, event: SessionEvent, now: datetime) -> Effects:
        if event.version > self.session.version + 1:
            return self._doubt()  # something came in between that nobody told us
        try:
            session = lifecycle.apply(self.session, event)
        except InvalidState:
            return self._doubt()
        return [*self.learn(session), *self._notify(now)]

    def _user_revoked(self, event: UserRevoked) -> Effects:
        if self.is_over or event.user != self.session.user_id or event.session == self.session.id:
            return NOTHING
        if self.session.created_at <= event.at:
            return self._end(invalidated(event.tag(), event.cause))
        return self._doubt()  # it looks newer, and clocks differ

    # --- time -----------------------------------------------------------------------------------------

    def next_check(self) -> datetime:
        """When ``due`` is to be called, if nothing happens before."""
        timeout = self._settings.heartbeat_timeout
        check = self._deadline.next_check()
        return check if timeout is None else min(check, self._heard_at + timeout)

    def due(self, now: datetime) -> Effects:
        """What time has brought about."""
        timeout = self._settings.heartbeat_timeout
        if self.is_over:
            return NOTHING
        if timeout is not None and now - self._heard_at >= timeout:
            return self._end(closing(CloseReason.NO_HEARTBEAT))
        if now >= self._deadline.deadline:
            return NOTHING if self._doubting else self._doubt()
        # Storage first: the deadline may have been moved from elsewhere.
        return self._verify() if self._deadline.wants_notice(now) else NOTHING

    def _notify(self, now: datetime) -> Effects:
        deadline = self._deadline
        if not deadline.wants_notice(now):
            return NOTHING
        deadline.noticed()
        return self._notice()

    # --- the end --------------------------------------------------------------------------------------

    def close(self, end: Close) -> Effects:
        """End for a reason that lies outside: see ``endings``."""
        return self._end(end)

    def gone(self) -> None:
        """The socket is closed; nothing more is decided."""
        self.is_over = True

    def _end(self, end: Close) -> Effects:
        if self.is_over:
            return NOTHING
        self.is_over = True
        self._held.clear()
        return [end]
