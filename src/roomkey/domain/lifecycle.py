"""How sessions live and end: one table of transitions, and the pure functions that read it."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final

from msgspec.structs import replace

from roomkey import errors
from roomkey.domain.session import (
    Activated,
    Created,
    Deleted,
    Event,
    Evicted,
    Expired,
    Extended,
    GrantsChanged,
    Invalidated,
    Resumed,
    Session,
    SessionEvent,
    SessionState,
    Suspended,
    TokenRotated,
    ViolationRecorded,
)
from roomkey.errors import InvalidState

PENDING, ACTIVE, SUSPENDED, EXPIRED, INVALIDATED = SessionState


class OnIdle(StrEnum):
    """What idleness does to an active session."""

    EXPIRE = "expire"
    SUSPEND = "suspend"


NEXT_STATE: Final[Mapping[SessionState, Mapping[type[Event], SessionState]]] = {
    PENDING: {
        Activated: ACTIVE,
        Extended: PENDING,
        GrantsChanged: PENDING,
        TokenRotated: PENDING,
        ViolationRecorded: PENDING,
        Expired: EXPIRED,
        Invalidated: INVALIDATED,
        Evicted: INVALIDATED,
    },
    ACTIVE: {
        Suspended: SUSPENDED,
        Extended: ACTIVE,
        GrantsChanged: ACTIVE,
        TokenRotated: ACTIVE,
        ViolationRecorded: ACTIVE,
        Expired: EXPIRED,
        Invalidated: INVALIDATED,
        Evicted: INVALIDATED,
    },
    SUSPENDED: {
        Resumed: ACTIVE,
        Extended: SUSPENDED,
        GrantsChanged: SUSPENDED,
        TokenRotated: SUSPENDED,
        ViolationRecorded: SUSPENDED,
        Expired: EXPIRED,
        Invalidated: INVALIDATED,
        Evicted: INVALIDATED,
    },
    EXPIRED: {
        Invalidated: INVALIDATED,  # so that a revocation is on record in any case
    },
    INVALIDATED: {},
}
"""The only place where transitions are decided. ``Deleted`` is not in it: a record may be deleted in every state."""

ALREADY: Final[Mapping[type[Event], SessionState]] = {
    Activated: ACTIVE,
    Suspended: SUSPENDED,
    Resumed: ACTIVE,
    Expired: EXPIRED,
    Invalidated: INVALIDATED,
}
"""A transition to the current state is no error and no event."""


def holds(session: Session, fact: type[Event]) -> bool:
    """Whether ``fact`` would change nothing, because the session is already where it leads."""
    return ALREADY.get(fact) is session.state


def begin(event: Created) -> Session:
    """The session that ``event`` brings into being, pending."""
    return Session(
        id=event.session,
        user_id=event.user,
        state=PENDING,
        created_at=event.at,
        expires_at=event.expires_at,
        idle_timeout=event.idle_timeout,
        activation_timeout=event.activation_timeout,
        last_seen_at=event.at,
        version=1,
        client=event.client,
        grants=event.grants,
        metadata=event.metadata,
        bound_to=event.bound_to,
    )


def apply(session: Session, event: SessionEvent) -> Session:  # noqa: PLR0911  # one for each kind of change
    """
    The session after ``event``.

    Raises:
        InvalidState: If ``NEXT_STATE`` does not allow it; the message names both states.
    """
    kind = type(event)
    try:
        state = NEXT_STATE[session.state][kind]
    except KeyError:
        raise InvalidState(f"a session that is {session.state} cannot become {_outcome(kind)}") from None
    version = session.version + 1
    if kind is Activated or kind is Resumed:
        # Idle time starts anew: while pending or suspended the session could not be used.
        seen = max(session.last_seen_at, event.at)
        return replace(session, state=state, version=version, last_seen_at=seen, reason=event.reason)
    if isinstance(event, Extended):
        return replace(session, version=version, expires_at=event.expires_at)
    if isinstance(event, GrantsChanged):
        return replace(session, version=version, grants=event.grants)
    if isinstance(event, TokenRotated):
        return _after_rotation(session, event, version)
    if kind is ViolationRecorded:
        return replace(session, version=version, violations=session.violations + 1)
    if state is session.state:
        return replace(session, version=version)
    return replace(session, state=state, version=version, reason=event.reason)


def _after_rotation(session: Session, event: TokenRotated, version: int) -> Session:
    return replace(
        session,
        version=version,
        bound_to=event.bound_to or session.bound_to,
        reauthenticated_at=event.at if event.reauthenticated else session.reauthenticated_at,
        exclusive_since=event.at if event.exclusive else session.exclusive_since,
    )


def replay(events: Iterable[SessionEvent]) -> Session | None:
    """The session that a complete history leads to; ``None`` if there is none or it was deleted."""
    session: Session | None = None
    for event in events:
        if isinstance(event, Created):
            session = begin(event)
        elif isinstance(event, Deleted):
            session = None
        elif session is not None:
            session = apply(session, event)
    return session


def is_active(session: Session, now: datetime) -> bool:
    """Whether the session is active and ``overdue`` would answer nothing: what nearly every session is, asked first."""
    if session.state is not ACTIVE or now >= session.expires_at:
        return False
    idle = session.idle_timeout
    return idle is None or now - session.last_seen_at < idle


def deadline(session: Session) -> datetime | None:
    """The moment from which ``overdue`` answers, if nothing happens before; ``None`` once it has ended."""
    state = session.state
    if state is ACTIVE:
        idle = session.idle_timeout
        if idle is None:
            return session.expires_at
        return min(session.expires_at, session.last_seen_at + idle)
    if state is PENDING:
        return min(session.expires_at, session.created_at + session.activation_timeout)
    if state is SUSPENDED:
        return session.expires_at
    return None


def overdue(session: Session, now: datetime, on_idle: OnIdle = OnIdle.EXPIRE) -> Expired | Suspended | None:
    """
    The event that time has made due, or ``None``.

    Deadlines are decided here and nowhere else, from stored times and the service's clock. The absolute
    deadline wins over the idle one, so a session that idleness would suspend can still expire.
    """
    due = deadline(session)
    if due is None or now < due:
        return None
    idle = session.state is ACTIVE and now < session.expires_at
    kind = Suspended if idle and on_idle is OnIdle.SUSPEND else Expired
    return kind(
        session=session.id,
        user=session.user_id,
        version=session.version + 1,
        at=now,
        reason=_lateness(session, now),
    )


def check_usable(session: Session, *, even_pending: bool = False) -> None:
    """
    Raise unless the session is active, or, with ``even_pending``, not activated yet.

    Time is not looked at: whether a deadline has passed is for ``overdue`` to say, before.

    Raises:
        SessionPending, Suspended, Expired, Invalidated: As its state says.
    """
    match session.state:
        case SessionState.ACTIVE:
            return
        case SessionState.PENDING:
            if not even_pending:
                raise errors.SessionPending("activate the session first")
        case SessionState.SUSPENDED:
            raise errors.Suspended(_with("the session is suspended", session.reason), reason=session.reason)
        case SessionState.EXPIRED:
            raise errors.Expired("the session's time is over", reason=session.reason)
        case SessionState.INVALIDATED:
            raise errors.Invalidated(_with("the session was ended", session.reason), reason=session.reason)


def _with(fact: str, reason: str | None) -> str:
    return fact if reason is None else f"{fact}: {reason}"


def diagram() -> str:
    """The table as a Mermaid state diagram; the documentation contains exactly this text."""
    lines = ["stateDiagram-v2", "    [*] --> pending: created"]
    for state, transitions in NEXT_STATE.items():
        for fact, following in transitions.items():
            if following is not state:
                lines.append(f"    {state} --> {following}: {fact.tag()}")
    return "\n".join(lines) + "\n"


def _lateness(session: Session, now: datetime) -> str:
    if now >= session.expires_at:
        return "lifetime"
    return "idle" if session.state is ACTIVE else "not_activated"


def _outcome(kind: type[Event]) -> str:
    targets = {following for row in NEXT_STATE.values() for fact, following in row.items() if fact is kind}
    # Facts that keep the state (extended, rotated, …) are named by themselves.
    return str(targets.pop()) if len(targets) == 1 else kind.tag()
