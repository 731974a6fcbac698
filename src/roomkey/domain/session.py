"""What a session is: its identity, its value, and the facts that can happen to it."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NewType
from zlib import crc32

from msgspec import Struct, field

from roomkey.domain.access import Grants
from roomkey.domain.names import check_name, check_text

SessionId = NewType("SessionId", str)
"""Public name of a session: two hex digits of its partition, then 128 random bits in lower-case base32."""

PARTITIONS = 256
"""Everything that must change together for one user lives in one partition; order is promised inside it only."""

MAX_USER_ID_BYTES = 256


def partition_of(user_id: str) -> int:
    """The partition of a user's sessions, their index, cap, epoch and events: 0 to 255."""
    return crc32(user_id.encode()) % PARTITIONS


def partition_of_id(id: SessionId) -> int:
    """The partition that a session's id names. Ids that we did not issue may name any, or raise ``ValueError``."""
    return int(id[:2], 16)


def check_user_id(user_id: str) -> str:
    """
    Return ``user_id`` if it may name a user.

    Raises:
        InvalidInput: If it is empty, longer than 256 bytes, or not printable text.
    """
    return check_text("a user id", user_id, max_bytes=MAX_USER_ID_BYTES)


def check_new_user_id(user_id: str) -> str:
    """
    Return ``user_id`` if a session may be made for it. More is asked than of one that is looked for, so that
    sessions from before there was a rule can still be found and ended.

    Raises:
        InvalidInput: As ``check_user_id``, or if it could be taken for another one, see ``names.RULES``.
    """
    return check_name("user_id", "a user id", check_user_id(user_id))


class SessionState(StrEnum):
    """Where a session stands in its life; ``lifecycle.NEXT_STATE`` says what can follow."""

    PENDING = "pending"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    EXPIRED = "expired"
    INVALIDATED = "invalidated"

    @property
    def is_live(self) -> bool:
        """Whether the session may still be used, now or after being activated or resumed."""
        return self in LIVE_STATES


LIVE_STATES = frozenset({SessionState.PENDING, SessionState.ACTIVE, SessionState.SUSPENDED})


class Client(Struct, frozen=True, gc=False):
    """The device that a session was issued to, as far as it said."""

    ip: str | None = None
    user_agent: str | None = None
    device: str | None = None


class Session(Struct, frozen=True, kw_only=True, gc=False):
    """
    The right of one user on one device to be in certain rooms, until it ends.

    Times are aware and in UTC. ``expires_at`` is the absolute deadline; the idle deadline is
    ``last_seen_at + idle_timeout``. ``version`` is the number of events in the session's history. ``reason`` is that of
    the event that brought it into its state, if one was given. ``bound_to`` is the key that whoever presents the token
    has to prove to have: ``jkt:`` and its thumbprint (RFC 9449), or ``x5t#S256:`` and that of a certificate (RFC 8705).
    Whatever was given out before ``exclusive_since`` is void: sockets, tickets, tokens.
    A session never contains its token, so it may be logged, stored and shown.
    """

    # gc=False: nothing in a session can refer back to it, and a million of them
    # would otherwise be walked by every full collection.
    id: SessionId
    user_id: str
    state: SessionState
    created_at: datetime
    expires_at: datetime
    idle_timeout: timedelta | None
    activation_timeout: timedelta
    last_seen_at: datetime
    version: int
    client: Client | None = None
    grants: Grants = ()
    metadata: Mapping[str, Any] | None = None
    violations: int = 0
    reason: str | None = None
    bound_to: str | None = None
    reauthenticated_at: datetime | None = None
    exclusive_since: datetime | None = None

    @property
    def authenticated_at(self) -> datetime:
        """When its user last proved who they are, as far as whoever issued it said."""
        return self.reauthenticated_at or self.created_at

    @property
    def idle_expires_at(self) -> datetime | None:
        """When idleness ends the session, or ``None`` if it has no idle limit."""
        return None if self.idle_timeout is None else self.last_seen_at + self.idle_timeout


class IssuedSession:
    """
    A session together with the token that opens it: the only moment at which the token can be read.

    It cannot be printed, pickled or encoded with the token in it; hand ``token`` to the client and forget it.
    Every attribute of the session can be read from it directly.
    """

    __slots__ = ("_token", "session")

    def __init__(self, session: Session, token: str) -> None:
        self.session = session
        self._token = token

    @property
    def token(self) -> str:
        """The bearer secret, ``<id>.<43 characters>``; only its hash is stored."""
        return self._token

    @property
    def id(self) -> SessionId:
        """The session's id."""
        return self.session.id

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def __repr__(self) -> str:
        return f"IssuedSession({self.session!r}, token=<hidden>)"

    def __reduce__(self) -> Any:
        raise TypeError("an IssuedSession holds a secret and cannot be serialised")


class SessionFilter(Struct, frozen=True, kw_only=True):
    """Which sessions: every condition that is given must hold. The bounds on ``created_at`` are exclusive."""

    user_id: str | None = None
    state: SessionState | None = None
    created_before: datetime | None = None
    created_after: datetime | None = None

    def matches(self, session: Session) -> bool:
        """Whether ``session`` meets every condition."""
        return (
            (self.user_id is None or session.user_id == self.user_id)
            and (self.state is None or session.state is self.state)
            and (self.created_before is None or session.created_at < self.created_before)
            and (self.created_after is None or session.created_at > self.created_after)
        )


class Event(Struct, frozen=True, kw_only=True, gc=False, tag_field="type"):
    """
    A fact about one session.

    ``version`` is the session's version after the event: its first event has 1, and there are no holes.
    ``actor`` is who caused it (``system``, ``user:…``, ``key:…``), ``reason`` why, in a word that may be shown.
    """

    session: SessionId
    user: str
    version: int
    at: datetime
    actor: str = "system"
    reason: str | None = field(default=None, name="cause")  # as it is stored

    @classmethod
    def tag(cls) -> str:
        """The name under which this fact is stored and sent."""
        return str(cls.__struct_config__.tag)


class Created(Event, frozen=True, kw_only=True, gc=False, tag="created"):
    """A session came into being, with everything that it is made of."""

    expires_at: datetime
    idle_timeout: timedelta | None
    activation_timeout: timedelta
    client: Client | None = None
    grants: Grants = ()
    metadata: Mapping[str, Any] | None = None
    bound_to: str | None = None


class Activated(Event, frozen=True, kw_only=True, gc=False, tag="activated"):
    """The session may use rooms from now on."""


class Suspended(Event, frozen=True, kw_only=True, gc=False, tag="suspended"):
    """No access until it is resumed; the secret is kept."""


class Resumed(Event, frozen=True, kw_only=True, gc=False, tag="resumed"):
    """A suspended session is active again, and was seen at that moment."""


class Extended(Event, frozen=True, kw_only=True, gc=False, tag="extended"):
    """The absolute deadline was moved."""

    expires_at: datetime


class GrantsChanged(Event, frozen=True, kw_only=True, gc=False, tag="grants_changed"):
    """The session may do what ``grants`` say, and nothing of what it might before."""

    grants: Grants


class TokenRotated(Event, frozen=True, kw_only=True, gc=False, tag="token_rotated"):
    """
    The session answers to a new secret; the one before it is honoured for the grace only, and not after a log-in.

    ``bound_to`` is set if it was bound to a key with that, ``reauthenticated`` if its user has proved who they are.
    """

    bound_to: str | None = None
    reauthenticated: bool = False
    exclusive: bool = False
    """Whether sockets and tickets from before are void, too: whoever had the former token has nothing."""
    by_holder: bool = False
    """Whether who had the former token got the new one, and not somebody to whom an application gave it."""


class Expired(Event, frozen=True, kw_only=True, gc=False, tag="expired"):
    """A deadline passed, or an operator said so."""


class Invalidated(Event, frozen=True, kw_only=True, gc=False, tag="invalidated"):
    """The session was ended on purpose."""


class Deleted(Event, frozen=True, kw_only=True, gc=False, tag="deleted"):
    """The record is gone; this is what remains of it."""


class Evicted(Event, frozen=True, kw_only=True, gc=False, tag="evicted"):
    """The session made room for a newer one of the same user."""


class ViolationRecorded(Event, frozen=True, kw_only=True, gc=False, tag="violation_recorded"):
    """The session's holder did what an honest client does not do; ``reason`` says what."""


class UserRevoked(Struct, frozen=True, kw_only=True, gc=False, tag_field="type", tag="user_revoked"):
    """
    Every session of ``user`` below ``epoch`` is dead, listed anywhere or not.

    ``session`` is the one that was kept, or ``None``; ``version`` equals ``epoch``.
    """

    user: str
    epoch: int
    at: datetime
    actor: str = "system"
    reason: str | None = field(default=None, name="cause")  # as it is stored
    session: SessionId | None = None

    @classmethod
    def tag(cls) -> str:
        """The name under which this fact is stored and sent."""
        return str(cls.__struct_config__.tag)

    @property
    def version(self) -> int:
        """The user's epoch: what a version is to a session."""
        return self.epoch


SessionEvent = (
    Created
    | Activated
    | Suspended
    | Resumed
    | Extended
    | GrantsChanged
    | TokenRotated
    | Expired
    | Invalidated
    | Deleted
    | Evicted
    | ViolationRecorded
)
AnyEvent = SessionEvent | UserRevoked
"""What the event log contains; tags are written by hand and never change, for history is read by them."""
