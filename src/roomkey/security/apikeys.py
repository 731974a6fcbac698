"""API keys: how backends and operators prove who they are. Like session tokens, only their hashes are kept."""

import hmac
import secrets
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Final

from msgspec import Struct

from roomkey.domain.access import Role
from roomkey.security.narrowing import EVERYTHING, Narrowing

PREFIX: Final = "rkey_"
"""Tells keys from session tokens, and lets secret scanners find them."""

SECRET_BYTES: Final = 32

MAX_NAME_LENGTH: Final = 64

_HEX_DIGITS: Final = frozenset("0123456789abcdef")


class ApiKey(Struct, frozen=True):
    """
    A key, without its secret.

    ``name`` is who is written down as the cause of what the key does. ``digest`` is the SHA-256 of the key in
    lower-case hex; the key cannot be recovered from it, and needs no salt, because it has 256 random bits. ``only``
    narrows what the role allows.
    """

    name: str
    role: Role
    digest: str
    only: Narrowing = EVERYTHING

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= MAX_NAME_LENGTH or not self.name.isprintable():
            raise ValueError(f"the name of an API key has 1 to {MAX_NAME_LENGTH} printable characters")
        if len(self.digest) != 64 or not _HEX_DIGITS.issuperset(self.digest):
            raise ValueError(f"the digest of the API key {self.name!r} must be 64 lower-case hex digits")

    @property
    def actor(self) -> str:
        """How events name whoever holds the key."""
        return f"key:{self.name}"


class ApiKeys:
    """
    The keys that are accepted.

    Raises:
        ValueError: If two keys share a name or a digest.
    """

    def __init__(self, keys: Iterable[ApiKey] = ()) -> None:
        self._by_digest: dict[str, ApiKey] = {}
        names: set[str] = set()
        for key in keys:
            if key.name in names:
                raise ValueError(f"there are two API keys with the name {key.name!r}")
            if key.digest in self._by_digest:
                raise ValueError(f"the API keys {self._by_digest[key.digest].name!r} and {key.name!r} are the same")
            names.add(key.name)
            self._by_digest[key.digest] = key

    def __len__(self) -> int:
        return len(self._by_digest)

    def __iter__(self) -> Iterator[ApiKey]:
        return iter(self._by_digest.values())

    def find(self, token: str) -> ApiKey | None:
        """The key that ``token`` is, or ``None``."""
        presented = digest(token)
        # The table is searched by the hash of what was presented, so how long that takes says nothing about
        # a key; the comparison is there for the day when somebody makes this a list.
        key = self._by_digest.get(presented)
        return key if key is not None and hmac.compare_digest(key.digest, presented) else None


def mint() -> tuple[str, str]:
    """A new key, to be shown once, and the digest that goes into the configuration."""
    token = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    return token, digest(token)


def digest(token: str) -> str:
    """SHA-256 of a key in hex."""
    return sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
