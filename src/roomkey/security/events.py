"""Security events: what whoever watches over a deployment wants to know, and where it is reported."""

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final

import structlog
from msgspec import Struct

from roomkey import errors
from roomkey.domain.session import SessionId
from roomkey.ports import Clock

_log = structlog.get_logger("roomkey.security")


class SecurityEventType(StrEnum):
    """What kind of thing has happened. The first five are those of the specification."""

    SESSION_AUTH = "session_auth"
    UNAUTHORIZED_ACCESS = "unauthorized_access"
    RATE_LIMIT_EXCEEDED = "rate_limit_exceeded"
    INVALID_INPUT = "invalid_input"
    SESSION_HIJACKING = "session_hijacking"
    TOKEN_REUSE = "token_reuse"  # noqa: S105  # a name, not a secret
    UNKNOWN_SESSION = "unknown_session"
    ORIGIN_REJECTED = "origin_rejected"
    CAP_REACHED = "cap_reached"
    PRIVILEGE_CHANGE = "privilege_change"
    KEY_ROTATED = "key_rotated"
    AUDIT_GAP = "audit_gap"
    VIOLATION = "violation"
    ANOMALY = "anomaly"
    RECORD_REFUSED = "record_refused"


NO_DETAILS: Final[Mapping[str, str]] = {}


class SecurityEvent(Struct, frozen=True, kw_only=True):
    """
    One event. Nothing in it is secret.

    ``cause`` is a stable code that says why: that of an error, of a refusal, of a close. ``actor`` is who did it as
    events of sessions name it, ``place`` where it was tried: an operation, or the path of a socket.
    """

    type: SecurityEventType
    at: datetime
    cause: str
    actor: str = "anonymous"
    session: SessionId | None = None
    user: str | None = None
    address: str | None = None
    place: str | None = None
    details: Mapping[str, str] = NO_DETAILS


TYPES_BY_CODE: Final[Mapping[str, SecurityEventType]] = {
    errors.InvalidToken.code: SecurityEventType.UNKNOWN_SESSION,
    errors.InvalidProof.code: SecurityEventType.UNAUTHORIZED_ACCESS,
    errors.HolderUnproven.code: SecurityEventType.SESSION_HIJACKING,
    errors.TokenReused.code: SecurityEventType.TOKEN_REUSE,
    errors.TokenRotated.code: SecurityEventType.TOKEN_REUSE,
    errors.Expired.code: SecurityEventType.SESSION_AUTH,
    errors.Invalidated.code: SecurityEventType.SESSION_AUTH,
    errors.Suspended.code: SecurityEventType.SESSION_AUTH,
    errors.SessionPending.code: SecurityEventType.UNAUTHORIZED_ACCESS,
    errors.Forbidden.code: SecurityEventType.UNAUTHORIZED_ACCESS,
    errors.OriginRejected.code: SecurityEventType.ORIGIN_REJECTED,
    errors.CapReached.code: SecurityEventType.CAP_REACHED,
    errors.InvalidInput.code: SecurityEventType.INVALID_INPUT,
    errors.SchemaViolation.code: SecurityEventType.INVALID_INPUT,
    errors.SuspiciousInput.code: SecurityEventType.INVALID_INPUT,
    errors.ForgedUpdate.code: SecurityEventType.INVALID_INPUT,
    errors.MalformedRequest.code: SecurityEventType.INVALID_INPUT,
    errors.BodyTooLarge.code: SecurityEventType.INVALID_INPUT,
    "key_refused": SecurityEventType.UNAUTHORIZED_ACCESS,
    errors.RateLimited.code: SecurityEventType.RATE_LIMIT_EXCEEDED,
    errors.Overloaded.code: SecurityEventType.CAP_REACHED,
    "too_many_connections": SecurityEventType.CAP_REACHED,
    "malformed": SecurityEventType.INVALID_INPUT,
    "head_too_large": SecurityEventType.INVALID_INPUT,
    "misdirected": SecurityEventType.INVALID_INPUT,
    "too_slow": SecurityEventType.CAP_REACHED,
    "tls_too_slow": SecurityEventType.CAP_REACHED,
    "unread": SecurityEventType.CAP_REACHED,
    "crowded_out": SecurityEventType.RATE_LIMIT_EXCEEDED,
}
"""The kind of event that a refusal with this code is; other refusals are none."""

Listener = Callable[[SecurityEvent], None]


class SecurityEvents:
    """Where events are reported, and who is told of them: at once, in turn, on the loop. Nobody may wait."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Tell ``listener`` of every event from now on, until what this returns is called."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def report(  # an event has as many parts
        self,
        type: SecurityEventType,
        cause: str,
        *,
        actor: str = "anonymous",
        session: SessionId | None = None,
        user: str | None = None,
        address: str | None = None,
        place: str | None = None,
        details: Mapping[str, str] = NO_DETAILS,
    ) -> None:
        """Something has happened just now. Never raises: what reports it has other things to do."""
        if not self._listeners:
            return
        event = SecurityEvent(
            type=type,
            at=self._clock.now(),
            cause=cause,
            actor=actor,
            session=session,
            user=user,
            address=address,
            place=place,
            details=details,
        )
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:  # noqa: BLE001  # whatever it is, the others are told
                _log.exception("security_event_not_taken", type=type, cause=cause)

    def refused(
        self,
        code: str,
        *,
        actor: str = "anonymous",
        session: SessionId | None = None,
        user: str | None = None,
        address: str | None = None,
        place: str | None = None,
    ) -> None:
        """Something was refused with this code; nothing, if that is no event."""
        kind = TYPES_BY_CODE.get(code)
        if kind is not None:
            self.report(kind, code, actor=actor, session=session, user=user, address=address, place=place)
