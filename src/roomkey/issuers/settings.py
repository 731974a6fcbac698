"""Whose tokens can be exchanged for sessions, and what such sessions are."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from msgspec import Struct

from roomkey.domain.access import Grant, check_grants
from roomkey.security.networks import is_loopback

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
"""Signatures of a private key (RFC 7518, 3.1; RFC 8037; RFC 9864); never a secret that both sides have, never none."""

LONGEST_AGE: Final = timedelta(days=1)
"""Users that are ended are remembered for as long as tokens from before are good."""


class Issuer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    An issuer of JSON Web Tokens (RFC 7519), such as an OpenID provider, whose users may have sessions.

    A token is good if ``key_set`` has the key that signed it with one of ``algorithms``, its ``iss`` is ``issuer``, its
    ``aud`` is or contains ``audience``, it has not expired, and its ``iat`` is at most ``max_age`` ago.
    """

    issuer: str
    """The claim ``iss`` of its tokens, to the letter."""
    audience: str
    """What it calls this deployment. Tokens that are for others open nothing here (RFC 8725, 3.9)."""
    key_set: str
    """Where its public keys are: an ``https://`` address of a JWK set (RFC 7517), or a file with one."""
    algorithms: tuple[Algorithm, ...] = ("RS256", "ES256", "EdDSA", "Ed25519")
    token_type: str | None = None
    """What ``typ`` in the header must be, such as ``at+jwt`` (RFC 9068). Off: anything."""
    max_age: timedelta = timedelta(hours=1)
    """Time since a token was issued after which it is no longer exchanged, even if it is good for longer."""
    leeway: timedelta = timedelta(seconds=30)
    """By how much the clock of the issuer may be wrong."""
    one_use: bool = True
    """Whether each token can be exchanged once."""
    user_claim: str = "sub"
    """The claim that is the user's id."""
    user_prefix: str = ""
    """What goes before it, so that users of two issuers are never taken for one another."""
    grants: tuple[Grant, ...] | None = None
    """Grants of the sessions. Off: ``access.default_grants``."""
    grants_claim: str | None = None
    """A claim with grants, written as for REST, which count instead; of a token without it ``grants``, or else none.
    Off: tokens do not say what users may do."""

    def __post_init__(self) -> None:
        if not self.issuer or not self.audience or not self.user_claim:
            raise ValueError("an issuer has an issuer, an audience and a user_claim")
        if not self.algorithms:
            raise ValueError("an issuer signs with at least one of the algorithms")
        if not timedelta() < self.max_age <= LONGEST_AGE:
            raise ValueError("max_age must be more than 0s and at most 1d")
        if not timedelta() <= self.leeway <= timedelta(minutes=5):
            raise ValueError("leeway must be at most 5m")
        if self.grants is not None:
            check_grants(self.grants)
        _check_place(self.key_set)

    @property
    def file(self) -> Path | None:
        """The file with its keys, if they are not fetched."""
        return None if _is_address(self.key_set) else Path(self.key_set).expanduser()


def clashes_of(issuers: Sequence[Issuer]) -> Iterator[str]:
    """Reasons why these cannot stand beside each other: a user of one could be taken for a user of another."""
    for number, one in enumerate(issuers):
        for other in issuers[number + 1 :]:
            if one.issuer == other.issuer:
                yield f"{one.issuer} is there twice"
            elif one.user_prefix.startswith(other.user_prefix) or other.user_prefix.startswith(one.user_prefix):
                yield (
                    f"{one.issuer} and {other.issuer} need a user_prefix each, of which none begins with the other: "
                    "otherwise their users could be taken for one another"
                )


def _is_address(place: str) -> bool:
    return "://" in place


def _check_place(place: str) -> None:
    if not place:
        raise ValueError("key_set is an https:// address, or a file")
    if not _is_address(place):
        return
    parts = urlsplit(place)
    if parts.hostname is None or parts.username is not None or parts.fragment:
        raise ValueError(f"{place!r} is not the address of a JWK set")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        raise ValueError("keys are fetched over https:// only: whoever changes them on their way lets anybody in")
