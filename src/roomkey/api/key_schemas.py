"""API keys in JSON."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Final, TypeVar

from msgspec import Meta, Struct

from roomkey.api.schemas import MAX_LIFETIME_SECONDS, Moment, Pattern, UserId
from roomkey.domain.access import Role
from roomkey.keys import LONGEST_OVERLAP, NAME_PATTERN, ListedKey
from roomkey.security.narrowing import MAX_ENTRIES, Narrowing, Scope

KeyName = Annotated[
    str, Meta(pattern=NAME_PATTERN, examples=["backend"], description="Who events say did it.", max_length=64)
]

_SOME: Final = Meta(min_length=1, max_length=MAX_ENTRIES)
_SECRET: Final = Meta(description="The key, shown only here.", pattern="^rkey_[A-Za-z0-9_-]{43}$")

T = TypeVar("T")

# --- in -----------------------------------------------------------------------------------------------


class NarrowingInput(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    What a key may do of that which its role allows; what is left out narrows nothing.

    `documents` are patterns as in grants: the key sees no others, and grants sessions no others. `users` are beginnings
    of ids: of other users the key sees nothing.
    """

    scopes: Annotated[list[Scope], _SOME] | None = None
    documents: Annotated[list[Pattern], _SOME] | None = None
    users: Annotated[list[UserId], _SOME] | None = None

    def __post_init__(self) -> None:
        self.narrowing()

    def narrowing(self) -> Narrowing:
        """The same in the words of the rules."""
        return Narrowing(scopes=_tuple(self.scopes), documents=_tuple(self.documents), users=_tuple(self.users))


class NewKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An API key to be made. Left out, `lifetime` is without an end."""

    name: KeyName
    role: Role
    only: NarrowingInput | None = None
    lifetime: (
        Annotated[float, Meta(ge=1, le=MAX_LIFETIME_SECONDS, description="Whole seconds.", examples=[7_776_000])] | None
    ) = None

    def __post_init__(self) -> None:
        _check_seconds("lifetime", self.lifetime)

    @property
    def span(self) -> timedelta | None:
        """The lifetime."""
        return None if self.lifetime is None else timedelta(seconds=self.lifetime)


class KeyRotation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the secret before the new one is accepted: a day, if it is left out."""

    overlap: (
        Annotated[
            float,
            Meta(ge=0, le=int(LONGEST_OVERLAP.total_seconds()), description="Whole seconds.", examples=[3600]),
        ]
        | None
    ) = None

    def __post_init__(self) -> None:
        _check_seconds("overlap", self.overlap)


# --- out ----------------------------------------------------------------------------------------------


class NarrowingBody(Struct, frozen=True, kw_only=True):
    """What the key may do of that which its role allows; null narrows nothing."""

    scopes: Sequence[Scope] | None
    documents: Sequence[str] | None
    users: Sequence[str] | None


class KeyBody(Struct, frozen=True, kw_only=True):
    """
    An API key without its secret, which nobody has but whoever was given it.

    Keys of the configuration have no times. `last_used_at` is as old as minutes on the other nodes.
    """

    name: str
    role: Role
    only: NarrowingBody
    is_configured: Annotated[bool, Meta(description="Whether it stands in the configuration, and is changed there.")]
    created_at: Moment | None
    created_by: str | None
    expires_at: Moment | None
    rotated_at: Moment | None
    rotated_by: str | None
    former_until: Annotated[datetime, Meta(tz=True, description="Until when the former secret is accepted.")] | None
    last_used_at: Moment | None


class MintedKeyBody(Struct, frozen=True):
    """The key and the only copy of its secret."""

    key: KeyBody
    secret: Annotated[str, _SECRET]


class KeysBody(Struct, frozen=True):
    """Every key: those of the configuration first, each by name."""

    keys: list[KeyBody]


def key_body(key: ListedKey) -> KeyBody:
    """``key`` as outsiders see it."""
    only = key.only
    return KeyBody(
        name=key.name,
        role=key.role,
        only=NarrowingBody(scopes=only.scopes, documents=only.documents, users=only.users),
        is_configured=key.is_configured,
        created_at=key.created_at,
        created_by=key.created_by,
        expires_at=key.expires_at,
        rotated_at=key.rotated_at,
        rotated_by=key.rotated_by,
        former_until=None if key.former is None else key.former.until,
        last_used_at=key.last_used_at,
    )


def _tuple(values: list[T] | None) -> tuple[T, ...] | None:
    return None if values is None else tuple(values)


def _check_seconds(field: str, seconds: float | None) -> None:
    if seconds is not None and not seconds.is_integer():
        raise ValueError(f"{field}: expected whole seconds")
