"""Judges a presented token of a session, and derives its successor. Pure: the manager commits the result."""

from datetime import datetime, timedelta
from enum import Enum, auto

from roomkey.ports import Secret
from roomkey.security import tokens


class TokenStanding(Enum):
    """What a presented token is to its session."""

    CURRENT = auto()
    GRACE = auto()
    """The one before the current one, and so shortly after the rotation that it may just have been on its way."""
    REUSED = auto()
    """Once genuine, and rotated out for longer than the grace: two parties have it (ASVS 10.4.5)."""
    UNKNOWN = auto()


class Rotation:
    """Judges tokens and derives their successors under one secret key."""

    def __init__(self, key: bytes, grace: timedelta) -> None:
        self._key = key
        self._grace = grace

    def standing(self, token: str, secret: Secret, now: datetime) -> TokenStanding:
        """What ``token`` is to the session that ``secret`` belongs to."""
        digest = tokens.digest(token)
        if tokens.same(digest, secret.current):
            return TokenStanding.CURRENT
        if secret.previous is not None and secret.rotated_at is not None and tokens.same(digest, secret.previous):
            return TokenStanding.GRACE if now - secret.rotated_at < self._grace else TokenStanding.REUSED
        if tokens.descends(self._key, token, secret.current, secret.generation):
            return TokenStanding.REUSED
        return TokenStanding.UNKNOWN

    def successor(self, token: str, secret: Secret) -> str:
        """What the holder of the current ``token`` gets in its place."""
        return tokens.successor(self._key, token, secret.generation)

    def successor_again(self, token: str, secret: Secret) -> str | None:
        """What the winner of the race got for ``token``; ``None`` if an operator replaced it by a random one."""
        candidate = tokens.successor(self._key, token, secret.generation - 1)
        return candidate if tokens.same(tokens.digest(candidate), secret.current) else None


def succeed(secret: Secret, token: str, now: datetime) -> Secret:
    """What storage keeps once ``token`` has replaced the current one."""
    return Secret(
        current=tokens.digest(token),
        generation=secret.generation + 1,
        previous=secret.current,
        rotated_at=now,
    )
