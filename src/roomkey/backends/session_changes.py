"""
What a write of sessions leads to, decided apart from how it is stored.

For backends that load, decide, and then commit under the condition that what they have loaded is still there.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from msgspec.structs import replace

from roomkey.domain.lifecycle import apply
from roomkey.domain.policy import SessionPolicy, evictions
from roomkey.domain.session import LIVE_STATES, Invalidated, Session, SessionEvent, SessionId, SessionState, UserRevoked
from roomkey.ports import Secret


class Held(NamedTuple):
    """A session as it is stored: with its secret, and the epoch that its user had when it was issued."""

    session: Session
    secret: Secret
    epoch: int

    def is_dead(self, epoch: int) -> bool:
        """Whether it is stored as live though its user, who is at ``epoch``, was revoked after it was issued."""
        return self.epoch < epoch and self.session.state in LIVE_STATES

    def as_read(self, epoch: int) -> Session:
        """How it is shown while its user is at ``epoch``."""
        return (
            replace(self.session, state=SessionState.INVALIDATED, reason=None) if self.is_dead(epoch) else self.session
        )


class Change(NamedTuple):
    """``session`` and ``secret`` take the place of what is ``held``, because of ``event``."""

    held: Held
    session: Session
    secret: Secret
    event: SessionEvent

    @classmethod
    def of(cls, held: Held, session: Session, event: SessionEvent, secret: Secret | None = None) -> "Change":
        """A change that leaves a later activity, and a secret that is not replaced, as they are."""
        seen = held.session.last_seen_at
        if seen > session.last_seen_at:
            session = replace(session, last_seen_at=seen)
        return cls(held, session, secret or held.secret, event)

    @classmethod
    def by(cls, held: Held, event: SessionEvent) -> "Change":
        """What ``event`` makes of the session."""
        return cls.of(held, apply(held.session, event), event)


def making_room(live: Iterable[Held], newcomers: int, policy: SessionPolicy, now: datetime) -> list[Change]:
    """
    The evictions that let ``newcomers`` sessions of a user fit beside the ``live`` ones, in their order.

    Raises:
        CapReached: As ``domain.policy.evictions``.
    """
    by_id: Mapping[SessionId, Held] = {held.session.id: held for held in live}
    events = evictions((held.session for held in by_id.values()), newcomers, policy, now)
    return [Change.by(by_id[event.session], event) for event in events]


class UserRevocation(NamedTuple):
    """The new epoch of a user, the event of it, and the ends of the sessions that are listed."""

    epoch: int
    root: UserRevoked
    changes: Sequence[Change]


def revoking(
    user_id: str,
    live: Iterable[Held],
    kept: Held | None,
    *,
    epoch: int,
    now: datetime,
    actor: str,
    reason: str | None,
) -> UserRevocation:
    """Revoke a user who is at ``epoch``, but for the session that is ``kept``; one that is not the user's is not."""
    if kept is not None and (kept.session.user_id != user_id or kept.is_dead(epoch)):
        kept = None
    kept_id = None if kept is None else kept.session.id
    root = UserRevoked(user=user_id, epoch=epoch + 1, at=now, actor=actor, reason=reason, session=kept_id)
    changes = [
        Change.by(held, _invalidated(held.session, now, actor, reason)) for held in live if held.session.id != kept_id
    ]
    return UserRevocation(epoch + 1, root, changes)


def _invalidated(session: Session, now: datetime, actor: str, reason: str | None) -> Invalidated:
    return Invalidated(
        session=session.id,
        user=session.user_id,
        version=session.version + 1,
        at=now,
        actor=actor,
        reason=reason or "revoked",
    )
