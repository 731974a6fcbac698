"""What a command decides once it has the session: the next event in its history, or none."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from msgspec import Struct

from roomkey.domain.lifecycle import holds
from roomkey.domain.session import Session, SessionEvent
from roomkey.errors import VersionMismatch

Fact = TypeVar("Fact", bound=SessionEvent)
Decision = Callable[[Session, datetime], SessionEvent | None]


def fact(kind: type[Fact], session: Session, now: datetime, actor: str, reason: str | None, **details: Any) -> Fact:
    """The next event in the history of ``session``."""
    return kind(
        session=session.id,
        user=session.user_id,
        version=session.version + 1,
        at=now,
        actor=actor,
        reason=reason,
        **details,
    )


def transition(kind: type[SessionEvent], actor: str, reason: str | None) -> Decision:
    """Decide on an event of ``kind``, unless the session is where it leads already."""

    def decide(session: Session, now: datetime) -> SessionEvent | None:
        return None if holds(session, kind) else fact(kind, session, now, actor, reason)

    return decide


def check_version(session: Session, expected: int | None) -> None:
    """
    Raise unless the session has the version that the caller has seen, if it named one.

    Raises:
        VersionMismatch: If it has another.
    """
    if expected is not None and session.version != expected:
        raise VersionMismatch(f"the session has version {session.version}, not {expected}")


class UserRevocation(Struct, frozen=True):
    """What revoking a user did: the user's new epoch, and how many live sessions were ended with it."""

    epoch: int
    revoked: int
