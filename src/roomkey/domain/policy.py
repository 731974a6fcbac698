"""Lifetimes of sessions, the cap per user, and which sessions make room: settings and pure decisions."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from msgspec import Struct

from roomkey.domain.lifecycle import OnIdle, deadline
from roomkey.domain.session import Evicted, Session
from roomkey.errors import CapReached


class OnCap(StrEnum):
    """What happens beyond the cap: the oldest session makes room, or the new one is refused."""

    EVICT_OLDEST = "evict_oldest"
    REFUSE = "refuse"


class OnReuse(StrEnum):
    """What a replaced token does that comes back after the grace. It opens nothing in any case."""

    COMPARE = "compare"
    """It ends the session if the current token is in use elsewhere: see ``domain.token_uses.is_theft``."""
    REVOKE = "revoke"
    """It ends the session at once (ASVS 5.0, 10.4.5; RFC 9700, 4.14.2), for a second tab as well as for a thief."""


class SessionPolicy(Struct, frozen=True, kw_only=True):
    """
    The deadlines and the cap of the sessions that are created under it.

    A replaced token is good for ``rotation_grace``; afterwards ``on_reuse`` decides, from what was seen within
    ``reuse_window``.
    """

    lifetime: timedelta = timedelta(hours=24)
    """Time after which a session ends whatever it does, and the longest that a caller may ask for (ASVS 7.3.2)."""
    idle_timeout: timedelta | None = timedelta(hours=1)
    """Time since the last activity after which a session is idle (ASVS 7.3.1). Off: never."""
    activation_timeout: timedelta = timedelta(minutes=10)
    """Time in which a new session must be activated."""
    on_idle: OnIdle = OnIdle.EXPIRE
    """What becomes of an idle session: it ends, or it is suspended until somebody resumes it."""
    cap: int = 10
    """Maximum number of pending, active and suspended sessions of one user (ASVS 7.1.2)."""
    on_cap: OnCap = OnCap.EVICT_OLDEST
    """What makes room for one more session at the cap: the oldest one ends, or the new one is refused."""
    rotation_grace: timedelta = timedelta(seconds=30)
    """Time for which a token is good that a rotation has replaced. 0: not at all."""
    on_reuse: OnReuse = OnReuse.COMPARE
    """When a replaced token that comes back after the grace ends the session: if the current one is in use elsewhere,
    or always. It opens nothing in any case."""
    reuse_window: timedelta = timedelta(minutes=10)
    """Time within which the use of both tokens counts as one by two parties."""
    max_metadata_bytes: int = 4096
    """Maximum size of the metadata of a session, as JSON."""

    def has_room(self, live: int, newcomers: int) -> bool:
        """Whether ``newcomers`` sessions fit beside ``live`` ones, so that no backend has to look at these."""
        return live + newcomers <= self.cap


PRESETS: Final[dict[str, SessionPolicy]] = {
    "default": SessionPolicy(),
    # NIST SP 800-63B-4, sections 2.1.3, 2.2.3 and 2.3.3: overall and inactivity timeouts.
    "aal1": SessionPolicy(lifetime=timedelta(days=30), idle_timeout=None),
    "aal2": SessionPolicy(lifetime=timedelta(hours=24), idle_timeout=timedelta(hours=1)),
    "aal3": SessionPolicy(lifetime=timedelta(hours=12), idle_timeout=timedelta(minutes=15)),
}


def evictions(live: Iterable[Session], newcomers: int, policy: SessionPolicy, now: datetime) -> list[Evicted]:
    """
    What must happen so that ``newcomers`` sessions of a user fit under the cap: the oldest sessions go first.

    ``live`` are the live sessions of that user, in any order. Those that are overdue at ``now`` neither count
    nor go; the janitor has them. Of sessions that were issued at the same moment, the one with the smaller id
    is the older one. A backend carries out the events, in this order, in the commit that creates the newcomers.

    Raises:
        CapReached: If the policy is to refuse, or if more come at once than the cap allows.
    """
    counting = [session for session in live if (due := deadline(session)) is not None and due > now]
    if policy.has_room(len(counting), newcomers):
        return []
    if policy.on_cap is OnCap.REFUSE or newcomers > policy.cap:
        raise CapReached(f"a user has at most {policy.cap} live sessions")
    oldest_first = sorted(counting, key=lambda session: (session.created_at, session.id))
    surplus = len(counting) + newcomers - policy.cap
    return [
        Evicted(session=session.id, user=session.user_id, version=session.version + 1, at=now, reason="cap")
        for session in oldest_first[:surplus]
    ]
