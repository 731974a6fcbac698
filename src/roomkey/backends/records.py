"""
How sessions and events are written down: msgpack with an explicit schema version, upgraded when read.

A record is one byte, the version of its schema, followed by msgpack. A session is an array whose order is
fixed below by hand; an event is a map under the names of its fields and its tag. What cannot be read raises
``Serialization``, which never shows what the record contains.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from roomkey.backends.damage import NewerSchema
from roomkey.domain.access import Access, Grant
from roomkey.domain.session import AnyEvent, Client, Session, SessionId, SessionState
from roomkey.domain.token_uses import TokenUse
from roomkey.errors import InvalidInput, Serialization
from roomkey.ports import Secret

SESSION_SCHEMA: Final = 1
EVENT_SCHEMA: Final = 1

Upgrade = Callable[[Any], Any]

SESSION_UPGRADES: Final[dict[int, Upgrade]] = {}
"""From a version to the next one: takes the decoded array, returns the array of the following version."""

EVENT_UPGRADES: Final[dict[int, Upgrade]] = {}
"""The same for events, which are maps."""


class StoredSession(NamedTuple):
    """What a session record holds."""

    session: Session
    secret: Secret


class _SessionRecord(Struct, frozen=True, array_like=True, gc=False):
    # The order is the schema: new fields go to the end with a default, anything else is a new version.
    id: SessionId
    user_id: str
    state: SessionState
    created_at: datetime
    expires_at: datetime
    idle_timeout: timedelta | None
    activation_timeout: timedelta
    last_seen_at: datetime
    version: int
    client: tuple[str | None, str | None, str | None] | None
    grants: tuple[tuple[str, Access | None], ...]
    # Without an access it is the name of a group.
    metadata: Mapping[str, Any] | None
    violations: int
    secret: bytes
    generation: int
    previous_secret: bytes | None
    rotated_at: datetime | None
    uses: tuple[TokenUse, ...] = ()
    reason: str | None = None
    bound_to: str | None = None
    reauthenticated_at: datetime | None = None
    exclusive_since: datetime | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode_session = msgspec.msgpack.Decoder(_SessionRecord).decode
_decode_event = msgspec.msgpack.Decoder(AnyEvent).decode
_decode_anything = msgspec.msgpack.Decoder().decode

_NATIVE: Final = (bytes, datetime)
"""What msgpack has of itself, and ``convert`` need not expect as text."""

_DAMAGE: Final = (msgspec.MsgspecError, LookupError, TypeError, ValueError, OverflowError, RecursionError)
"""What decoding and upgrading raise over a damaged record."""

_UNENCODABLE: Final = (TypeError, ValueError, OverflowError, RecursionError)

_SESSION_MARK: Final = bytes([SESSION_SCHEMA])
_EVENT_MARK: Final = bytes([EVENT_SCHEMA])


def encode_session(session: Session, secret: Secret) -> bytes:
    """
    The record of a session and its secret.

    Raises:
        InvalidInput: If its metadata contains what cannot be stored, such as a number beyond 64 bits.
    """
    client = session.client
    grants = session.grants
    record = _SessionRecord(
        session.id,
        session.user_id,
        session.state,
        session.created_at,
        session.expires_at,
        session.idle_timeout,
        session.activation_timeout,
        session.last_seen_at,
        session.version,
        None if client is None else (client.ip, client.user_agent, client.device),
        tuple([(grant.group or grant.documents, grant.access) for grant in grants]) if grants else (),
        session.metadata,
        session.violations,
        secret.current,
        secret.generation,
        secret.previous,
        secret.rotated_at,
        secret.uses,
        session.reason,
        session.bound_to,
        session.reauthenticated_at,
        session.exclusive_since,
    )
    try:
        return _SESSION_MARK + _encode(record)
    except _UNENCODABLE:
        raise InvalidInput("the session contains something that cannot be stored") from None


def decode_session(record: bytes) -> StoredSession:
    """
    The session and the secret of a record.

    Raises:
        Serialization: If it is damaged, or of a schema that this version does not know.
    """
    found = _session_record(record)
    return StoredSession(_session(found), _secret(found))


def decode_session_only(record: bytes) -> Session:
    """Like ``decode_session`` without the secret, which most readers have no use for."""
    return _session(_session_record(record))


def encode_event(event: AnyEvent) -> bytes:
    """
    The record of an event.

    Raises:
        InvalidInput: As ``encode_session``.
    """
    try:
        return _EVENT_MARK + _encode(event)
    except _UNENCODABLE:
        raise InvalidInput("the event contains something that cannot be stored") from None


def decode_event(record: bytes) -> AnyEvent:
    """
    The event of a record.

    Raises:
        Serialization: If it is damaged, or of a schema that this version does not know.
    """
    try:
        if record[0] == EVENT_SCHEMA:
            return _decode_event(record[1:])
        return msgspec.convert(_upgraded(record, EVENT_SCHEMA, EVENT_UPGRADES), AnyEvent, builtin_types=_NATIVE)
    except _DAMAGE:
        # `from None`: the causes quote what they stumbled over.
        raise Serialization("an event record cannot be read") from None


def _session_record(record: bytes) -> _SessionRecord:
    try:
        if record[0] == SESSION_SCHEMA:
            return _decode_session(record[1:])
        return msgspec.convert(
            _upgraded(record, SESSION_SCHEMA, SESSION_UPGRADES), _SessionRecord, builtin_types=_NATIVE
        )
    except _DAMAGE:
        raise Serialization("a session record cannot be read") from None


def _upgraded(record: bytes, current: int, upgrades: Mapping[int, Upgrade]) -> Any:
    version = record[0]
    if version > current:
        raise newer(version, current)
    value = _decode_anything(record[1:])
    for step in range(version, current):
        upgrade = upgrades.get(step)
        if upgrade is None:
            raise Serialization(f"a record has schema version {version}, which this Roomkey cannot upgrade")
        value = upgrade(value)
    return value


def newer(version: int, current: int) -> NewerSchema:
    """The error for a record of a schema that comes with a later Roomkey."""
    return NewerSchema(f"a record has schema version {version}; this Roomkey knows versions up to {current}")


def _session(record: _SessionRecord) -> Session:
    client = record.client
    return Session(
        id=record.id,
        user_id=record.user_id,
        state=record.state,
        created_at=record.created_at,
        expires_at=record.expires_at,
        idle_timeout=record.idle_timeout,
        activation_timeout=record.activation_timeout,
        last_seen_at=record.last_seen_at,
        version=record.version,
        client=None if client is None else Client(*client),
        grants=tuple([_grant(*grant) for grant in record.grants]) if record.grants else (),
        metadata=record.metadata,
        violations=record.violations,
        reason=record.reason,
        bound_to=record.bound_to,
        reauthenticated_at=record.reauthenticated_at,
        exclusive_since=record.exclusive_since,
    )


def _grant(documents: str, access: Access | None) -> Grant:
    return Grant(group=documents) if access is None else Grant(documents, access)


def _secret(record: _SessionRecord) -> Secret:
    return Secret(
        current=record.secret,
        generation=record.generation,
        previous=record.previous_secret,
        rotated_at=record.rotated_at,
        uses=record.uses,
    )
