"""Every way in which the server ends a connection: the code, the reason, and the last message."""

from datetime import timedelta
from typing import Final

from roomkey.domain.session import SessionState
from roomkey.realtime.protocol.json_messages import MessageType, milliseconds
from roomkey.realtime.protocol.payloads import Draining, SessionDisconnected, SessionInvalidated, SessionSuspended
from roomkey.realtime.session.effects import Close, Farewell
from roomkey.wire.close import CLOSE_CODES, CloseReason

_COME_BACK: Final = frozenset(
    {CloseReason.OVERLOADED, CloseReason.UNAVAILABLE, CloseReason.TOO_SLOW, CloseReason.TOO_FAST}
)
"""Reasons that say nothing against the client or its session."""

_SEES_NOTHING_MORE: Final = frozenset(
    {CloseReason.SESSION_EXPIRED, CloseReason.SESSION_INVALIDATED, CloseReason.SESSION_SUSPENDED}
)


_VIOLATIONS: Final = frozenset({CloseReason.MALFORMED, CloseReason.FORGED, CloseReason.LIMITS_IGNORED})
"""Ends that count against the session, whoever is ended: no client gets there by accident."""

OVERSIZED: Final = "oversized"
"""The cause of the violation that a message over the limit is, whether or not it ends the connection."""


def closing(
    reason: CloseReason, *, cause: str | None = None, farewell: Farewell | None = None, is_violation: bool = False
) -> Close:
    """
    The end for ``reason``; without a message of its own it is announced by ``session_disconnected``.

    ``is_violation`` says that it counts against the session though not every end for this reason does.
    """
    if farewell is None:
        payload = SessionDisconnected(
            close_code=CLOSE_CODES[reason],
            code=reason,
            reason=cause,
            refresh=reason is CloseReason.SESSION_EXPIRED,
            retry=reason in _COME_BACK,
        )
        farewell = Farewell(MessageType.SESSION_DISCONNECTED, payload)
    return Close(
        reason,
        farewell,
        cause,
        flush=reason not in _SEES_NOTHING_MORE,
        is_violation=is_violation or reason in _VIOLATIONS,
    )


def stopped(state: SessionState, cause: str | None = None) -> Close:
    """The end for a session that is not active any more."""
    if state is SessionState.SUSPENDED:
        farewell = Farewell(MessageType.SESSION_SUSPENDED, SessionSuspended(cause))
        return closing(CloseReason.SESSION_SUSPENDED, cause=cause, farewell=farewell)
    if state is SessionState.EXPIRED:
        return closing(CloseReason.SESSION_EXPIRED, cause=cause)
    return invalidated(state, cause)


def invalidated(how: str, cause: str | None = None) -> Close:
    """The end for a session that was ended on purpose; ``how`` is the name of the event that did it."""
    farewell = Farewell(MessageType.SESSION_INVALIDATED, SessionInvalidated(how, cause))
    return closing(CloseReason.SESSION_INVALIDATED, cause=cause, farewell=farewell)


def draining(reconnect_after: timedelta) -> Close:
    """The end because the node is about to stop."""
    payload = Draining(milliseconds(reconnect_after))
    return closing(CloseReason.DRAINING, farewell=Farewell(MessageType.DRAINING, payload))
