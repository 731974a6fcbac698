"""Which records facts become: events of sessions, gaps in their log, and security events."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from msgspec import to_builtins

from roomkey.audit.records import AuditRecord, Outcome
from roomkey.domain.session import Created
from roomkey.ports import LoggedEvent
from roomkey.security.events import SecurityEvent, SecurityEventType

ACCOMPLISHED: Final = frozenset(
    {SecurityEventType.PRIVILEGE_CHANGE, SecurityEventType.KEY_ROTATED, SecurityEventType.AUDIT_GAP}
)
"""Security events that say what was done. All others say what was refused, and come as often as somebody likes."""

_ELSEWHERE: Final = frozenset({"type", "session", "user", "at", "actor", "cause", "client", "metadata"})
"""Fields of events that a record has, or, as for metadata, that are the application's own."""


def of_event(partition: int, logged: LoggedEvent) -> AuditRecord:
    """The record of an event of sessions."""
    event = logged.event
    return AuditRecord(
        type=f"session.{event.tag()}",
        at=event.at,
        actor=event.actor,
        user=event.user,
        session=event.session,
        client=event.client if isinstance(event, Created) else None,
        cause=event.reason,
        event=(partition, logged.sequence),
        details=_details(to_builtins(event)),
    )


def of_gap(partition: int, first: int, last: int, now: datetime) -> AuditRecord:
    """The record of events that were lost before they could be recorded."""
    return AuditRecord(
        type="audit.gap", at=now, cause="events_lost", details={"partition": partition, "first": first, "last": last}
    )


def of_security_event(event: SecurityEvent, *, count: int = 1, until: datetime | None = None) -> AuditRecord:
    """The record of a security event, or of several that are alike."""
    return AuditRecord(
        type=f"security.{event.type}",
        at=event.at,
        actor=event.actor,
        outcome=Outcome.DONE if event.type in ACCOMPLISHED else Outcome.REFUSED,
        user=event.user,
        session=event.session,
        address=event.address,
        object=event.place,
        cause=event.cause,
        count=count,
        until=until,
        details=dict(event.details) or None,
    )


def _details(fields: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return {name: value for name, value in fields.items() if name not in _ELSEWHERE and value is not None} or None
