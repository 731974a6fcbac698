"""How long sessions live, how many a user may have, and what happens then: settings and pure questions."""

from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Final

from msgspec import Struct

from roomkey.domain.session import Session, SessionId
from roomkey.errors import CapReached


class OnIdle(StrEnum):
    """What idleness does to an active session."""

    EXPIRE = "expire"
    SUSPEND = "suspend"


class OnCap(StrEnum):
    """What happens to one session too many: the oldest makes room, or the new one is refused."""

    EVICT_OLDEST = "evict_oldest"
    REFUSE = "refuse"


class SessionPolicy(Struct, frozen=True, kw_only=True):
    """
    The deadlines and the cap of the sessions that are created under it.

    ``lifetime`` is the absolute limit and the longest that a caller may ask for; activity never moves it
    (ASVS 7.3.2). ``idle_timeout`` is measured from the last activity (ASVS 7.3.1), ``None`` switches it off.
    ``cap`` counts pending, active and suspended sessions of one user (ASVS 7.1.2).
    """

    lifetime: timedelta = timedelta(hours=24)
    idle_timeout: timedelta | None = timedelta(hours=1)
    activation_timeout: timedelta = timedelta(minutes=10)
    on_idle: OnIdle = OnIdle.EXPIRE
    cap: int = 10
    on_cap: OnCap = OnCap.EVICT_OLDEST
    rotation_grace: timedelta = timedelta(seconds=30)
    max_metadata_bytes: int = 4096


PRESETS: Final[dict[str, SessionPolicy]] = {
    "default": SessionPolicy(),
    # NIST SP 800-63B-4, sections 2.1.3, 2.2.3 and 2.3.3: overall and inactivity timeouts.
    "aal1": SessionPolicy(lifetime=timedelta(days=30), idle_timeout=None),
    "aal2": SessionPolicy(lifetime=timedelta(hours=24), idle_timeout=timedelta(hours=1)),
    "aal3": SessionPolicy(lifetime=timedelta(hours=12), idle_timeout=timedelta(minutes=15)),
}


def victims(live: Sequence[Session], newcomers: int, policy: SessionPolicy) -> list[SessionId]:
    """
    Who must go so that ``newcomers`` sessions fit under the cap: the oldest first.

    Args:
        live: The user's sessions that count: neither ended nor overdue.

    Raises:
        CapReached: If the policy is to refuse, or if more come at once than the cap allows.
    """
    surplus = len(live) + newcomers - policy.cap
    if surplus <= 0:
        return []
    if policy.on_cap is OnCap.REFUSE or newcomers > policy.cap:
        raise CapReached(f"a user has at most {policy.cap} live sessions")
    oldest_first = sorted(live, key=lambda session: (session.created_at, session.id))
    return [session.id for session in oldest_first[:surplus]]
