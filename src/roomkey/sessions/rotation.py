"""Judges a presented token of a session, and derives its successor. Pure: the manager commits the result."""

from datetime import datetime
from enum import Enum, auto
from typing import Final

from msgspec import Struct

from roomkey.domain.policy import OnReuse, SessionPolicy
from roomkey.domain.session import Client, Session
from roomkey.domain.token_uses import Place, TokenUse, is_theft, is_worth_noting, noted
from roomkey.ports import Secret
from roomkey.security import tokens


class TokenStanding(Enum):
    """What a presented token is to its session."""

    CURRENT = auto()
    GRACE = auto()
    """The one before the current one, and so shortly after the rotation that it may just have been on its way."""
    REPLACED = auto()
    """Once genuine, and rotated out for longer than the grace."""
    UNKNOWN = auto()


# What nearly every token is. Python 3.11 takes a tenth of a microsecond to find a member in its class.
_CURRENT: Final = TokenStanding.CURRENT


class Verdict(Struct, frozen=True):
    """Whether two parties have tokens of the session, and the use of a token that is to be remembered."""

    is_theft: bool = False
    to_note: TokenUse | None = None


NOTHING_FOLLOWS: Final = Verdict()


class Rotation:
    """Judges tokens and derives their successors under one secret key."""

    def __init__(self, key: bytes, policy: SessionPolicy) -> None:
        self._key = key
        self._grace = policy.rotation_grace
        self._on_reuse = policy.on_reuse
        self._window = policy.reuse_window

    def standing(self, token: str, secret: Secret, now: datetime) -> TokenStanding:
        """What ``token`` is to the session that ``secret`` belongs to."""
        digest = tokens.digest(token)
        if tokens.same(digest, secret.current):
            return _CURRENT
        if secret.previous is not None and secret.rotated_at is not None and tokens.same(digest, secret.previous):
            return TokenStanding.GRACE if now - secret.rotated_at < self._grace else TokenStanding.REPLACED
        if tokens.descends(self._key, token, secret.current, secret.generation):
            return TokenStanding.REPLACED
        return TokenStanding.UNKNOWN

    def judge(
        self, session: Session, secret: Secret, standing: TokenStanding, client: Client | None, now: datetime
    ) -> Verdict:
        """What follows from ``client`` presenting a token of this standing now, beside what was seen before."""
        is_current = standing is TokenStanding.CURRENT
        if standing is TokenStanding.UNKNOWN or standing is TokenStanding.GRACE or secret.generation == 0:
            return NOTHING_FOLLOWS
        if not is_current and self._on_reuse is OnReuse.REVOKE:
            return Verdict(is_theft=True)
        use = TokenUse(Place.of(client), is_current, now, now)
        uses = noted(secret.uses, use, self._window)
        if is_theft(uses, now=now, last_seen_at=session.last_seen_at, window=self._window):
            return Verdict(is_theft=True)
        return Verdict(to_note=use if is_worth_noting(secret.uses, use, self._window) else None)

    def successor(self, token: str, secret: Secret) -> str:
        """What the holder of the current ``token`` gets in its place."""
        return tokens.successor(self._key, token, secret.generation)

    def without_grace(self, now: datetime) -> datetime:
        """When a token must have been replaced that is dead by ``now``."""
        return now - self._grace

    def successor_again(self, token: str, secret: Secret) -> str | None:
        """What the winner of the race got for ``token``; ``None`` if an operator replaced it by a random one."""
        candidate = tokens.successor(self._key, token, secret.generation - 1)
        return candidate if tokens.same(tokens.digest(candidate), secret.current) else None


def succeed(secret: Secret, token: str, now: datetime, rotator: TokenUse | None) -> Secret:
    """
    What storage keeps once ``token`` has replaced the current one, for a holder at ``rotator``'s place or nobody.

    ``now`` is when the grace of the replaced one begins.
    """
    # Who has not got the new token yet does not count as its user. Uses of replaced ones stay: else a thief
    # would rotate once more to be rid of a suspicion.
    strays = tuple(use for use in secret.uses if not use.is_current)
    return Secret(
        current=tokens.digest(token),
        generation=secret.generation + 1,
        previous=secret.current,
        rotated_at=now,
        uses=strays if rotator is None else (*strays, rotator),
    )
