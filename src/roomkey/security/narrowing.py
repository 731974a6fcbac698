"""What an API key is narrowed to besides its role: kinds of actions, documents, and users."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from msgspec import Struct

from roomkey.domain.access import MAX_PATTERN_BYTES, Grants, covers, matches

MAX_ENTRIES: Final = 32
"""Patterns or prefixes that one key may have of each."""

MAX_PREFIX_BYTES: Final = 256


class Scope(StrEnum):
    """A kind of actions. ``sessions:issue`` is all that gives access, ``sessions:write`` all that takes it away."""

    SESSIONS_READ = "sessions:read"
    SESSIONS_ISSUE = "sessions:issue"
    SESSIONS_WRITE = "sessions:write"
    DOCUMENTS_READ = "documents:read"
    DOCUMENTS_WRITE = "documents:write"
    DOCUMENTS_ADMIN = "documents:admin"
    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"
    FIGURES_READ = "figures:read"
    AUDIT_READ = "audit:read"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"


class Narrowing(Struct, frozen=True, kw_only=True):
    """
    What a key may do of that which its role allows. What is ``None`` narrows nothing.

    ``documents`` are patterns as in grants. The key sees no others, and the sessions that it issues are granted no
    others. ``users`` are beginnings of ids of users: of the others the key sees nothing.
    """

    scopes: tuple[Scope, ...] | None = None
    documents: tuple[str, ...] | None = None
    users: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for what, entries, most in (
            ("documents", self.documents, MAX_PATTERN_BYTES),
            ("users", self.users, MAX_PREFIX_BYTES),
        ):
            if entries is not None:
                _check(what, entries, most)
        if self.scopes is not None and not self.scopes:
            raise ValueError("scopes: without any the key could do nothing")

    @property
    def narrows_sessions(self) -> bool:
        """Whether what may be done to a session depends on whose it is, or on its grants."""
        return self.users is not None or self.documents is not None

    def has(self, scope: Scope | None) -> bool:
        """Whether actions of this kind are among those that it leaves; ``None`` is a kind that has no name."""
        return self.scopes is None or scope in self.scopes

    def sees_document(self, name: str) -> bool:
        """Whether the document is one of those that it leaves."""
        return self.documents is None or any(matches(pattern, name) for pattern in self.documents)

    def sees_user(self, id: str) -> bool:
        """Whether the user is one of those that it leaves."""
        return self.users is None or id.startswith(self.users)

    def gives(self, grants: Grants) -> bool:
        """Whether all that ``grants`` cover is among what it leaves. What a group may have tomorrow, nobody knows."""
        return self.documents is None or all(grant.group is None and self._covers(grant.documents) for grant in grants)

    def includes(self, other: "Narrowing") -> bool:
        """Whether it leaves everything that ``other`` does."""
        if self.scopes is not None and (other.scopes is None or not set(self.scopes).issuperset(other.scopes)):
            return False
        if self.documents is not None and (other.documents is None or not all(map(self._covers, other.documents))):
            return False
        return self.users is None or (other.users is not None and all(map(self.sees_user, other.users)))

    def _covers(self, pattern: str) -> bool:
        return self.documents is None or any(covers(mine, pattern) for mine in self.documents)


EVERYTHING: Final = Narrowing()
"""What narrows nothing."""


def _check(what: str, entries: Sequence[str], most: int) -> None:
    if not 0 < len(entries) <= MAX_ENTRIES:
        raise ValueError(f"{what}: 1 to {MAX_ENTRIES} of them, or none at all")
    for entry in entries:
        if not 0 < len(entry.encode("utf-8", "surrogatepass")) <= most or not entry.isprintable():
            raise ValueError(f"{what}: each has 1 to {most} bytes of printable text")
