"""
Mint, parse and hash: the bearer tokens that open sessions.

A token is ``<session id>.<secret>``, the secret 256 random bits in 43 base64url characters. Whoever has it
is in, so it is handed out once and only its SHA-256 is kept. The id in front of it is public.
"""

import hmac
import re
from base64 import urlsafe_b64encode
from hashlib import sha256
from os import urandom
from typing import Final

from roomkey.domain.session import SessionId
from roomkey.errors import InvalidToken

SECRET_BYTES: Final = 32
"""256 bits from the system's CSPRNG; ASVS 5.0 7.2.3 and 11.5.1 ask for 128, NIST SP 800-63B-4 for 64."""

ID_BYTES: Final = 16

TOKEN_LENGTH: Final = 28 + 1 + 43

_TOKEN: Final = re.compile(r"([0-9a-f]{2}[a-z2-7]{26})\.[A-Za-z0-9_-]{43}", re.ASCII)
_ID: Final = re.compile(r"[0-9a-f]{2}[a-z2-7]{26}", re.ASCII)

_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
# Two characters at a time: base64.b32encode is written in Python and six times slower.
_PAIRS: Final = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
_SHIFTS: Final = tuple(range(120, -1, -10))
_PARTITION_DIGITS: Final = tuple(f"{number:02x}" for number in range(256))


def mint_id(partition: int) -> SessionId:
    """A new id in ``partition``: two hex digits of it, and 128 random bits in lower-case base32 (RFC 4648)."""
    return _id(partition, urandom(ID_BYTES))


def mint_both(partition: int) -> tuple[SessionId, str]:
    """A new id in ``partition`` and a new token for it, for one call of the system instead of two."""
    random = urandom(ID_BYTES + SECRET_BYTES)
    id = _id(partition, random[:ID_BYTES])
    return id, f"{id}.{_text(random[ID_BYTES:])}"


def mint(id: SessionId) -> str:
    """A new token for the session ``id``."""
    return f"{id}.{_text(urandom(SECRET_BYTES))}"


def digest(token: str) -> bytes:
    """
    What storage keeps of ``token``: SHA-256 over the whole of it.

    The id is hashed with the secret, so a digest that is moved to another session opens nothing. No salt
    and no slow hash: the secret has 256 random bits already.
    """
    return sha256(token.encode()).digest()


def session_of(token: str) -> SessionId:
    """
    The id that ``token`` names; nothing is said about whether the token is genuine.

    Raises:
        InvalidToken: If it does not have the form of a token.
    """
    match = _TOKEN.fullmatch(token) if len(token) == TOKEN_LENGTH else None
    if match is None:
        raise InvalidToken("the token is not one of ours")
    return SessionId(match[1])


def is_session_id(text: str) -> bool:
    """Whether ``text`` has the form of an id that we could have issued."""
    return _ID.fullmatch(text) is not None


def same(one: bytes, other: bytes) -> bool:
    """Compare digests in constant time."""
    return hmac.compare_digest(one, other)


def successor(key: bytes, token: str, generation: int) -> str:
    """
    The token that follows ``token`` when its holder rotates it, as the ``generation``-th one.

    The same for everyone who presents the same token, so that clients which rotate at the same time end up
    with the same successor; without ``key`` it cannot be computed from the token.
    """
    id = session_of(token)
    mac = hmac.digest(key, f"{id}|{generation}|{token}".encode(), "sha256")
    return f"{id}.{_text(mac)}"


def descends(key: bytes, token: str, current: bytes, generation: int, *, reach: int = 16) -> bool:
    """
    Whether the token with the digest ``current`` grew out of ``token`` by rotations of its holder.

    That proves ``token`` was once genuine. Ids are public, so without proof a presented secret must not
    be able to end a session. Looks back over at most ``reach`` rotations, and not past an operator's.
    """
    for first in range(generation - 1, max(-1, generation - 1 - reach), -1):
        later = token
        for number in range(first, generation):
            later = successor(key, later, number)
        if same(digest(later), current):
            return True
    return False


def _id(partition: int, random: bytes) -> SessionId:
    bits = int.from_bytes(random, "big")
    pairs = _PAIRS
    return SessionId(_PARTITION_DIGITS[partition] + "".join([pairs[bits >> shift & 1023] for shift in _SHIFTS]))


def _text(secret: bytes) -> str:
    return urlsafe_b64encode(secret).decode("ascii").rstrip("=")
