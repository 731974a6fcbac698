"""What is stored of an API key, and what can become of it. Nothing here reads a clock or a storage."""

import hmac
import re
from datetime import datetime, timedelta
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from roomkey.domain.access import Role
from roomkey.errors import InvalidInput, Serialization
from roomkey.security.apikeys import MAX_NAME_LENGTH, ApiKey
from roomkey.security.narrowing import EVERYTHING, Narrowing

SPACE: Final = "api-keys"

GENERATION: Final = "generation"
"""An object that changes with every key, so that whoever has read all of them knows when to do it again."""

KEY_PREFIX: Final = "key/"
USE_PREFIX: Final = "used/"

MAX_KEYS: Final = 500
"""Stored keys, the expired ones among them."""

LONGEST_OVERLAP: Final = timedelta(days=30)

NAME_PATTERN: Final = rf"^[A-Za-z0-9][A-Za-z0-9._:@-]{{0,{MAX_NAME_LENGTH - 1}}}$"


class FormerSecret(Struct, frozen=True):
    """What was replaced, and is accepted until its end."""

    digest: str
    until: datetime


class StoredKey(Struct, frozen=True, kw_only=True):
    """
    A key as it is stored. Of its secrets only the digests are known.

    ``created_by`` and ``rotated_by`` are actors, as events of sessions name them.
    """

    name: str
    role: Role
    digest: str
    only: Narrowing = EVERYTHING
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    rotated_at: datetime | None = None
    rotated_by: str | None = None
    former: FormerSecret | None = None

    def opened_with(self, digest: str, now: datetime) -> bool:
        """Whether a secret with this ``digest``, one of the key's, is accepted at this time."""
        if self.expires_at is not None and now >= self.expires_at:
            return False
        return hmac.compare_digest(digest, self.digest) or (self.former is not None and now < self.former.until)

    def rotated(self, digest: str, now: datetime, *, overlap: timedelta, actor: str) -> "StoredKey":
        """
        The key with a new secret. The one before it is accepted for ``overlap``, any older one no more.

        Raises:
            InvalidInput: If the overlap is negative or longer than ``LONGEST_OVERLAP``.
        """
        if not timedelta() <= overlap <= LONGEST_OVERLAP:
            raise InvalidInput(f"the overlap is at most {LONGEST_OVERLAP.days} days")
        former = FormerSecret(self.digest, now + overlap) if overlap else None
        return replace(self, digest=digest, rotated_at=now, rotated_by=actor, former=former)

    @property
    def api_key(self) -> ApiKey:
        """What callers are made of."""
        return ApiKey(self.name, self.role, self.digest, self.only)


def check_name(name: str) -> str:
    """
    Return ``name`` if a stored key may have it: it stands in paths, logs and configurations.

    Raises:
        InvalidInput: If not.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise InvalidInput(f"the name of a key has 1 to {MAX_NAME_LENGTH} letters, digits and . _ : @ -")
    return name


def encode(key: StoredKey) -> bytes:
    """``key`` as it is stored."""
    return _encoder.encode(key)


def decode(stored: bytes) -> StoredKey:
    """
    The key that ``encode`` was given.

    Raises:
        Serialization: If it is none, or one of a newer version that means more than this one understands.
    """
    try:
        return _decoder.decode(stored)
    except (msgspec.DecodeError, ValueError) as error:
        raise Serialization(f"a stored API key cannot be read: {error}") from None


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(StoredKey)
