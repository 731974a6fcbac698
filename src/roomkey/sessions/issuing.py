"""Make a new session out of a request: every limit is checked here, nothing is stored."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from sys import intern
from typing import Any

import msgspec
from msgspec import Struct

from roomkey.domain.access import GrantLike, Grants, check_grants
from roomkey.domain.lifecycle import begin
from roomkey.domain.names import check_name
from roomkey.domain.policy import SessionPolicy
from roomkey.domain.session import Client, Created, IssuedSession, check_new_user_id, partition_of
from roomkey.errors import InvalidInput
from roomkey.ports import NewSession, Secret
from roomkey.security import possession, tokens
from roomkey.sessions import arguments


class SessionRequest(Struct, frozen=True, kw_only=True):
    """What a caller asks for; what it leaves out is decided by the policy."""

    user_id: str
    client: Client | None = None
    grants: Sequence[GrantLike] | None = None
    lifetime: timedelta | None = None
    metadata: Mapping[str, Any] | None = None
    bound_to: str | None = None
    """The key that the holder has to prove, as ``Session`` has it."""


def issue(
    request: SessionRequest, policy: SessionPolicy, default_grants: Grants, *, actor: str, now: datetime
) -> tuple[IssuedSession, NewSession]:
    """
    A pending session with its only token, and what storage is to keep of it.

    Raises:
        InvalidInput: If the user id, a grant, the lifetime or the metadata is beyond its limits.
    """
    arguments.check_text("user_id", request.user_id)
    arguments.check_client("client", request.client)
    # One string for all sessions of a user: requests bring a new copy each time, and they stay.
    user_id = intern(check_new_user_id(request.user_id))
    lifetime, grants, metadata = request.lifetime, request.grants, request.metadata
    id, token = tokens.mint_both(partition_of(user_id))
    event = Created(
        session=id,
        user=user_id,
        version=1,
        at=now,
        actor=actor,
        expires_at=now + (policy.lifetime if lifetime is None else check_lifetime(lifetime, policy)),
        idle_timeout=policy.idle_timeout,
        activation_timeout=policy.activation_timeout,
        client=request.client,
        grants=default_grants if grants is None else check_grants(grants),
        metadata=None if metadata is None else _checked_metadata(metadata, policy.max_metadata_bytes),
        bound_to=_checked_binding(request.bound_to),
    )
    session = begin(event)
    return IssuedSession(session, token), NewSession(event, session, Secret(current=tokens.digest(token)))


def check_lifetime(lifetime: timedelta, policy: SessionPolicy) -> timedelta:
    """Return ``lifetime`` if the policy allows it; raise ``InvalidInput`` otherwise."""
    arguments.check_lifetime("lifetime", lifetime)
    if not timedelta() < lifetime <= policy.lifetime:
        raise InvalidInput(f"a lifetime is positive and at most {policy.lifetime}")
    return lifetime


def _checked_binding(bound_to: str | None) -> str | None:
    if bound_to is None:
        return None
    arguments.check_text("bound_to", bound_to)
    return possession.check_confirmation(bound_to)


def _checked_metadata(metadata: Mapping[str, Any], limit: int) -> Mapping[str, Any]:
    arguments.check_metadata("metadata", metadata)
    try:
        # A copy, so that the stored value does not change with the caller's.
        encoded = msgspec.json.encode(metadata)
        copy = msgspec.json.decode(encoded)
        msgspec.msgpack.encode(copy)  # what storages keep: it knows no integer beyond 64 bits
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise InvalidInput("metadata must be plain JSON, its integers of at most 64 bits") from None
    if len(encoded) > limit:
        raise InvalidInput(f"metadata has at most {limit} bytes as JSON")
    for key in copy:
        check_name("key", "a key of metadata", key)
    name = copy.get("name")
    if isinstance(name, str):
        # Others see it beside the user's cursor.
        check_name("name", "the name in metadata", name)
    return copy
