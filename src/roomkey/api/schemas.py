"""What goes over the wire in JSON: strict on the way in, written out by hand on the way out."""

import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, TypeVar, cast
from urllib.parse import parse_qsl

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, to_builtins

from roomkey.api.flaws import flaw_in_query
from roomkey.domain.access import GROUP_PATTERN, MAX_GRANTS, MAX_PATTERN_BYTES, Access, Grant, Grants, check_grants
from roomkey.domain.names import HIDDEN, check_name
from roomkey.domain.session import (
    Client,
    Created,
    Extended,
    GrantsChanged,
    Session,
    SessionEvent,
    SessionFilter,
    SessionState,
    check_new_user_id,
    check_user_id,
)
from roomkey.errors import Flaw, InvalidInput, SchemaViolation
from roomkey.security.possession import DPOP
from roomkey.sessions.manager import SessionRequest

MAX_BATCH_CREATE: Final = 100
MAX_BATCH_INVALIDATE: Final = 1000

MAX_METADATA_ENTRIES: Final = 64
MAX_METADATA_DEPTH: Final = 8

MAX_LIFETIME_SECONDS: Final = 10 * 366 * 86400
"""Far beyond any policy, whose own limit is checked later: only so that no number is too large to be a time."""

_PRINTABLE: Final = (
    r" -~\u00A1-\u00AC\u00AE-\u0377\u0400-\u052F\u05D0-\u05EA\u0620-\u064A\u0905-\u0939\u0E01-\u0E30"
    r"\u10D0-\u10F0\u1E00-\u1F15\u2010-\u2027\u20A0-\u20B9\u2190-\u23F3\u2500-\u2775\u3041-\u3096\u30A1-\u30FA"
    r"\u3400-\u4DB5\u4E00-\u9FCC\uAC00-\uD7A3"
)
"""
Part of what ``str.isprintable`` means, for regular expressions of ECMA 262 and of Python.

What is printable depends on the version of Unicode, and only some languages have a word for it. These ranges are
printable in all of them and promised; everything else that is printable is accepted, too.
"""


def _text(most: int, examples: list[str]) -> Meta:
    return Meta(max_length=most, examples=examples, extra_json_schema={"pattern": f"^[^{HIDDEN}]*$"})


_IDENTIFYING: Final = (
    r" -~\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u017F\u05D0-\u05EA\u0620-\u064A\u0905-\u0939\u0E01-\u0E30\u3041-\u3096"
    r"\u20A0-\u20B9\u30A1-\u30FA\u3400-\u4DB5\u4E00-\u9FCC\uAC00-\uD7A3"
)
"""The same for identities, see ``names.RULES``: composed letters, and none that look like those of another alphabet."""


def _name(most: int, examples: list[str], letters: str = _PRINTABLE) -> Meta:
    # JSON Schema cannot count bytes. Text of either form is short enough in UTF-8; more may be accepted.
    # Each choice has its type: generators of clients look no further.
    short = {"type": "string", "pattern": f"^[{letters}]*$", "maxLength": most // 4}
    return Meta(
        min_length=1,
        max_length=most,
        description=f"Printable text of at most {most} bytes in UTF-8, of any script.",
        examples=examples,
        extra_json_schema={"anyOf": [{"type": "string", "pattern": "^[ -~]*$"}, short]},
    )


UserId = Annotated[str, _name(256, ["alice"], _IDENTIFYING)]
Pattern = Annotated[str, _name(MAX_PATTERN_BYTES, ["notes/**"])]
Reason = Annotated[str, _text(200, ["signed in elsewhere"])]
Token = Annotated[
    str,
    Meta(
        description="The bearer secret of the session, shown only here.",
        pattern=r"^[0-9a-f]{2}[a-z2-7]{26}\.[A-Za-z0-9_-]{43}$",
    ),
]
EntryIndex = Annotated[str, Meta(pattern="^(0|[1-9][0-9]{0,17})$", examples=["0"])]
LogFile = Annotated[
    str, Meta(pattern=r"^([0-9]{1,2}/)?(x[0-9]{3}/)*[0-9]{3}(\.p/[1-9][0-9]{0,2})?$", examples=["000.p/1"])
]
GroupName = Annotated[str, Meta(pattern=GROUP_PATTERN, examples=["team-7"])]
SessionIdText = Annotated[str, Meta(pattern=r"^[0-9a-f]{2}[a-z2-7]{26}$", examples=["a7kq3v5zt2mjc4nxw6ye3rf5hbgd"])]
# 3600 and 3600.0 are the same integer in JSON (JSON Schema 2020-12, 4.2.3), and to msgspec only as floats.
Lifetime = Annotated[float, Meta(ge=1, le=MAX_LIFETIME_SECONDS, description="Whole seconds.", examples=[3600])]

Moment = Annotated[datetime, Meta(tz=True)]
Cursor = Annotated[
    str,
    Meta(
        max_length=512,
        pattern=r"^[A-Za-z0-9._~=-]+$",
        description="Where the page before ended: its `next_cursor`. Opaque.",
    ),
]
Limit = Annotated[int, Meta(ge=1, le=500, description="At most so many.")]


# --- in -----------------------------------------------------------------------------------------------


class GrantInput(Struct, frozen=True, forbid_unknown_fields=True):
    """
    One line of a session's rights: `access` to `documents`, or what a `group` has.

    In `documents` `*` stays inside a segment and `**` does not.
    """

    documents: Pattern | UnsetType = UNSET
    access: Access | UnsetType = UNSET
    group: GroupName | UnsetType = UNSET

    def __post_init__(self) -> None:
        try:
            check_grants((to_builtins(self),))
        except InvalidInput as error:
            said = str(error).replace("grants[0]", "a grant")
            raise ValueError(said if self.documents is UNSET else f"documents: {said}") from None

    def granted(self) -> Grant:
        """The same in the words of the domain."""
        (grant,) = check_grants((to_builtins(self),))
        return grant


_EITHER_FORM: Final[dict[str, Any]] = {
    "minProperties": 1,
    "maxProperties": 2,
    "dependentRequired": {"documents": ["access"], "access": ["documents"]},
}
"""A grant has documents and access, or a group."""

GrantInputs = Annotated[list[Annotated[GrantInput, Meta(extra_json_schema=_EITHER_FORM)]], Meta(max_length=MAX_GRANTS)]


class ClientInput(Struct, frozen=True, forbid_unknown_fields=True):
    """The device that the session is for, as far as it is known."""

    ip: (
        Annotated[
            str,
            Meta(
                max_length=45,
                examples=["203.0.113.7"],
                extra_json_schema={"anyOf": [{"type": "string", "format": each} for each in ("ipv4", "ipv6")]},
            ),
        ]
        | None
    ) = None
    user_agent: Annotated[str, _text(512, ["Mozilla/5.0"])] | None = None
    device: Annotated[str, _text(128, ["Ada's laptop"])] | None = None

    def __post_init__(self) -> None:
        if self.ip is not None and not is_address(self.ip):
            raise ValueError("ip: expected an IPv4 or IPv6 address")
        check_shown("user_agent", self.user_agent, kind="device")
        check_shown("device", self.device)


class NewSession(Struct, frozen=True, forbid_unknown_fields=True):
    """
    A session to be created.

    Left out, `grants` are those of the configuration and `lifetime` is that of the policy. `metadata` has at
    most 4096 bytes as JSON and is nested at most 8 deep; integers beyond 64 bits are kept as doubles (RFC 7493).
    """

    user_id: UserId
    client: ClientInput | None = None
    grants: GrantInputs | None = None
    lifetime: Lifetime | None = None
    metadata: (
        Annotated[
            dict[Annotated[str, _text(64, ["theme"])], Any],
            Meta(max_length=MAX_METADATA_ENTRIES, examples=[{"theme": "dark"}]),
        ]
        | None
    ) = None
    dpop_jkt: (
        Annotated[
            str,
            Meta(
                pattern="^[A-Za-z0-9_-]{43}$",
                description="Thumbprint (RFC 7638) of the key that whoever presents the token must prove to have.",
                examples=["0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"],
            ),
        ]
        | None
    ) = None
    activate: Annotated[bool, Meta(description="Whether the session may be used at once; not, if left out.")] = False

    def __post_init__(self) -> None:
        _check_user_id(self.user_id, check_new_user_id)
        _check_lifetime(self.lifetime)

    def request(self, default_client: Client | None = None) -> SessionRequest:
        """
        The same in the words of the domain.

        Raises:
            SchemaViolation: If the metadata is nested too deep or has a number that no double can hold.
        """
        return SessionRequest(
            user_id=self.user_id,
            client=default_client if self.client is None else _client(self.client),
            grants=None if self.grants is None else _grants(self.grants),
            lifetime=None if self.lifetime is None else timedelta(seconds=self.lifetime),
            metadata=None if self.metadata is None else _metadata(self.metadata),
            bound_to=None if self.dpop_jkt is None else DPOP + self.dpop_jkt,
        )


class Batch(Struct, frozen=True, forbid_unknown_fields=True):
    """Sessions to be invalidated, for a `reason`, and sessions to be created."""

    create: Annotated[list[NewSession], Meta(max_length=MAX_BATCH_CREATE)] = []
    invalidate: Annotated[list[SessionIdText], Meta(max_length=MAX_BATCH_INVALIDATE)] = []
    reason: Reason | None = None

    def __post_init__(self) -> None:
        check_shown("reason", self.reason)


class ReasonBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Why the state of a session is changed. The reason is kept in its history and may be shown to its user."""

    reason: Reason | None = None

    def __post_init__(self) -> None:
        check_shown("reason", self.reason)


class Extension(Struct, frozen=True, forbid_unknown_fields=True):
    """How long the session may live from now on; left out, as long as the policy allows."""

    lifetime: Lifetime | None = None

    def __post_init__(self) -> None:
        _check_lifetime(self.lifetime)


class Rights(Struct, frozen=True, forbid_unknown_fields=True):
    """
    What a session may do from now on, instead of what it might before.

    The first grant that matches a document wins; what none mentions is closed, and with none everything is.
    """

    grants: GrantInputs

    def granted(self) -> Grants:
        """The same in the words of the domain."""
        return _grants(self.grants)


class Listing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which sessions, and which part of the list."""

    user_id: UserId | None = None
    state: SessionState | None = None
    created_before: Moment | None = None
    created_after: Moment | None = None
    cursor: Cursor | None = None
    limit: Limit = 50

    def __post_init__(self) -> None:
        if self.user_id is not None:
            _check_user_id(self.user_id)

    def filter(self) -> SessionFilter:
        """The conditions in the words of the domain."""
        return SessionFilter(
            user_id=self.user_id,
            state=self.state,
            created_before=_utc(self.created_before),
            created_after=_utc(self.created_after),
        )


class HistoryListing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which part of a history."""

    cursor: Cursor | None = None
    limit: Limit = 50


class UserListing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which of a user's sessions, and which part of the list."""

    state: SessionState | None = None
    cursor: Cursor | None = None
    limit: Limit = 50


class RevocationQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"spare": "except"}):
    """Which session survives, the one whose token is presented; and why the others end, which their users are told."""

    spare: Literal["current"] | None = None
    reason: Reason | None = None

    def __post_init__(self) -> None:
        check_shown("reason", self.reason)


# --- out ----------------------------------------------------------------------------------------------


class SessionBody(Struct, frozen=True, kw_only=True, gc=False):
    """The right of one user on one device to be in certain rooms, until it ends."""

    id: SessionIdText
    state: SessionState
    user_id: str
    created_at: Moment
    expires_at: Annotated[datetime, Meta(tz=True, description="The absolute deadline.")]
    idle_expires_at: Annotated[datetime, Meta(tz=True, description="When idleness ends the session.")] | None
    last_seen_at: Moment
    version: Annotated[int, Meta(ge=1, description="Grows with every change; the `ETag` of the session.")]
    client: Client | None
    grants: Grants
    metadata: Mapping[str, Any]
    authenticated_at: Annotated[datetime, Meta(tz=True, description="When its user last proved who they are.")]
    bound_to: Annotated[str, Meta(description="What whoever presents the token must prove to have.")] | None


class IssuedBody(Struct, frozen=True):
    """A new session, the only copy of its token, and where to connect. The URL contains no secret."""

    session: SessionBody
    token: Token
    websocket_url: Annotated[str, Meta(examples=["wss://rooms.example.com/ws"])]


class RotatedBody(Struct, frozen=True):
    """The session and the only copy of its new token; that of a browser is in its cookie, and not here."""

    session: SessionBody
    token: Token | msgspec.UnsetType = msgspec.UNSET


class InvalidatedBody(Struct, frozen=True):
    """Whether there was such a session; if so it is over now."""

    id: SessionIdText
    found: bool


class BatchBody(Struct, frozen=True):
    """What became of a batch, in the order of its entries."""

    created: list[IssuedBody] = []
    invalidated: list[InvalidatedBody] = []


class PageBody(Struct, frozen=True):
    """
    One part of a list.

    It may be shorter than asked for, even empty, when few of the sessions that were looked at match; the
    list is at its end when `next_cursor` is null, and only then.
    """

    sessions: list[SessionBody]
    next_cursor: str | None


class EventBody(Struct, frozen=True, kw_only=True, gc=False):
    """
    Something that happened to a session: what, when, who caused it, and the reason if one was given.

    `version` is the session's after it. `expires_at` and `grants` come with the events that set them.
    """

    type: Annotated[str, Meta(examples=["suspended"])]
    at: Moment
    actor: Annotated[str, Meta(examples=["key:backend"])]
    reason: str | None
    version: Annotated[int, Meta(ge=1)]
    expires_at: Moment | msgspec.UnsetType = msgspec.UNSET
    grants: Grants | msgspec.UnsetType = msgspec.UNSET


class HistoryBody(Struct, frozen=True):
    """
    One part of the history of a session, the oldest event first.

    It may be shorter than asked for, even empty; it is at its end when `next_cursor` is null, and only then.
    """

    events: list[EventBody]
    next_cursor: str | None


class RevokedBody(Struct, frozen=True):
    """The user's new epoch, and how many live sessions were ended. Every session of an older epoch is dead."""

    epoch: Annotated[int, Meta(ge=1)]
    revoked: Annotated[int, Meta(ge=0)]


class TicketBody(Struct, frozen=True):
    """A ticket for one handshake: connect to `/ws?ticket=…` within `expires_in` seconds."""

    ticket: str
    expires_in: Annotated[int, Meta(ge=1)]


class HealthBody(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    How the service is doing; what is more than `status` and `timestamp` is for administrators.

    `degraded` means: works, but look at it. `unhealthy`: sessions cannot be read or changed.
    """

    status: Literal["healthy", "degraded", "unhealthy"]
    timestamp: Moment
    sessions_count: int | msgspec.UnsetType = msgspec.UNSET
    memory_usage: Annotated[int, Meta(description="Bytes.")] | msgspec.UnsetType = msgspec.UNSET
    checks: dict[str, str] | msgspec.UnsetType = msgspec.UNSET


class ProbeBody(Struct, frozen=True):
    """What an orchestrator asks."""

    status: Literal["alive", "ready"]


def session_body(session: Session) -> SessionBody:
    """``session`` as outsiders see it."""
    return SessionBody(
        id=session.id,
        state=session.state,
        user_id=session.user_id,
        created_at=session.created_at,
        expires_at=session.expires_at,
        idle_expires_at=session.idle_expires_at,
        last_seen_at=session.last_seen_at,
        version=session.version,
        client=session.client,
        grants=session.grants,
        metadata=session.metadata or {},
        authenticated_at=session.authenticated_at,
        bound_to=session.bound_to,
    )


def event_body(event: SessionEvent) -> EventBody:
    """``event`` as outsiders see it."""
    return EventBody(
        type=event.tag(),
        at=event.at,
        actor=event.actor,
        reason=event.reason,
        version=event.version,
        expires_at=event.expires_at if isinstance(event, Created | Extended) else msgspec.UNSET,
        grants=event.grants if isinstance(event, Created | GrantsChanged) else msgspec.UNSET,
    )


# --- reading ------------------------------------------------------------------------------------------

Q = TypeVar("Q", bound=Struct)

MAX_PARAMETERS: Final = 16


def parse_query(text: bytes, kind: type[Q]) -> Q:
    """
    The parameters of a query string.

    Raises:
        SchemaViolation: If one is unknown, stands twice, or is not what it should be.
    """
    try:
        pairs = parse_qsl(
            text.decode("latin-1"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS
        )
    except ValueError:
        raise SchemaViolation(Flaw(detail=f"a query has at most {MAX_PARAMETERS} parameters in UTF-8")) from None
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise SchemaViolation(Flaw(detail="a parameter may stand once"))
        # The only number among the parameters. Text stays text, so that a user may be called `42`.
        values[name] = int(value) if name == "limit" and _is_number(value) else value
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise SchemaViolation(flaw_in_query(str(error))) from None


def is_address(text: str) -> bool:
    """Whether ``text`` is an IPv4 or IPv6 address, without a zone."""
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        socket.inet_pton(family, text)
    except (OSError, ValueError):
        return False
    return True


def check_shown(field: str, text: str | None, *, kind: str | None = None) -> None:
    """
    Raise if ``text`` is not what people may be shown: see ``names.RULES``, ``kind`` being that of the field.

    Raises:
        ValueError: For ``__post_init__``: the message names the field.
    """
    try:
        if text is not None:
            check_name(kind or field, "it", text)
    except InvalidInput as error:
        raise ValueError(f"{field}: {error}") from None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


def _check_user_id(user_id: str, check: Callable[[str], str] = check_user_id) -> None:
    try:
        check(user_id)
    except InvalidInput as error:
        raise ValueError(f"user_id: {error}") from None


def _check_lifetime(lifetime: float | None) -> None:
    if lifetime is not None and not lifetime.is_integer():
        raise ValueError("lifetime: expected whole seconds")


def _client(client: ClientInput) -> Client:
    return Client(ip=client.ip, user_agent=client.user_agent, device=client.device)


def _grants(grants: Sequence[GrantInput]) -> Grants:
    return check_grants(tuple(grant.granted() for grant in grants))


def _metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return _plain(metadata, MAX_METADATA_DEPTH)
    except OverflowError:
        flaw = Flaw(pointer="#/metadata", detail="a number is out of range")
    except RecursionError:
        flaw = Flaw(pointer="#/metadata", detail=f"nested more than {MAX_METADATA_DEPTH} deep")
    raise SchemaViolation(flaw)


def _plain(value: Any, depth: int) -> Any:
    """What every storage can keep of a JSON value."""
    if type(value) is int:
        return value if -(1 << 63) <= value < (1 << 63) else float(value)
    if not isinstance(value, dict | list):
        return value
    if depth == 0:
        raise RecursionError
    if isinstance(value, list):
        return [_plain(item, depth - 1) for item in cast("list[Any]", value)]
    return {key: _plain(item, depth - 1) for key, item in cast("dict[str, Any]", value).items()}


def _utc(moment: datetime | None) -> datetime | None:
    """``moment`` in UTC; what lies beyond the calendar there stays at its edge."""
    if moment is None:
        return None
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC) if moment.year == 1 else datetime.max.replace(tzinfo=UTC)
