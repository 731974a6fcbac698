"""
Signatures of what we send to an application, as Standard Webhooks says.

``v1`` is an HMAC, and whoever verifies it has the secret that made it. ``v1a`` is a signature of Ed25519: whoever
verifies it has the public key only, and can sign nothing.
"""

import hmac
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Final, Protocol

from roomkey.errors import InvalidInput

PREFIX: Final = "whsec_"
MIN_BYTES: Final = 24
MAX_BYTES: Final = 64

PRIVATE_PREFIX: Final = "whsk_"
PUBLIC_PREFIX: Final = "whpk_"
SEED_BYTES: Final = 32


class SigningKey(Protocol):
    """What signs messages. It cannot be printed."""

    def sign(self, id: str, timestamp: str, body: bytes) -> str:
        """The version of the signature, a comma, and the signature of id, time and body, joined by full stops."""
        ...


class SigningSecret:
    """A secret that both sides have. It cannot be printed."""

    __slots__ = ("_key",)

    def __init__(self, secret: str) -> None:
        """
        ``secret`` is ``whsec_`` and the key in base64.

        Raises:
            InvalidInput: If it is not, or the key has less than 24 or more than 64 bytes.
        """
        form = f"a signing secret is {PREFIX} and {MIN_BYTES} to {MAX_BYTES} random bytes in base64"
        self._key = _key(secret, PREFIX, form)
        if not MIN_BYTES <= len(self._key) <= MAX_BYTES:
            raise InvalidInput(form)

    def headers(self, id: str, at: datetime, body: bytes) -> dict[str, str]:
        """The headers of a message: its id, by which it is known if it comes twice, its time, and the signature."""
        return headers((self,), id, at, body)

    def sign(self, id: str, timestamp: str, body: bytes) -> str:
        """``v1,`` and the HMAC-SHA256 of id, time and body, joined by full stops."""
        return "v1," + b64encode(hmac.digest(self._key, _signed(id, timestamp, body), sha256)).decode()

    def __repr__(self) -> str:
        return "SigningSecret(<hidden>)"


class PrivateSigningKey:
    """A private key, of which the other side has the public one. It cannot be printed."""

    __slots__ = ("_key",)

    def __init__(self, secret: str) -> None:
        """
        ``secret`` is ``whsk_`` and the key in base64: 32 bytes (RFC 8032, 5.1.5), or these and the public key.

        Raises:
            InvalidInput: If it is not, or the public key is that of another one.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415  # few need it

        form = f"a private signing key is {PRIVATE_PREFIX} and the 32 or 64 bytes of an Ed25519 key in base64"
        key = _key(secret, PRIVATE_PREFIX, form)
        if len(key) not in (SEED_BYTES, 2 * SEED_BYTES):
            raise InvalidInput(form)
        self._key = Ed25519PrivateKey.from_private_bytes(key[:SEED_BYTES])
        if len(key) > SEED_BYTES and key[SEED_BYTES:] != self._key.public_key().public_bytes_raw():
            raise InvalidInput("the public key in the signing key does not belong to the private one")

    @property
    def public(self) -> str:
        """What receivers verify with: ``whpk_`` and the public key in base64."""
        return PUBLIC_PREFIX + b64encode(self._key.public_key().public_bytes_raw()).decode()

    def sign(self, id: str, timestamp: str, body: bytes) -> str:
        """``v1a,`` and the Ed25519 signature of id, time and body, joined by full stops."""
        return "v1a," + b64encode(self._key.sign(_signed(id, timestamp, body))).decode()

    def __repr__(self) -> str:
        return "PrivateSigningKey(<hidden>)"


def signing_key(secret: str) -> SigningKey:
    """
    The secret or the private key that this text is.

    Raises:
        InvalidInput: If it is neither.
    """
    return PrivateSigningKey(secret) if secret.startswith(PRIVATE_PREFIX) else SigningSecret(secret)


def headers(keys: Sequence[SigningKey], id: str, at: datetime, body: bytes) -> dict[str, str]:
    """The headers of a message that each of ``keys`` has signed: while one is replaced, either verifies it."""
    timestamp = str(int(at.timestamp()))
    signatures = " ".join([key.sign(id, timestamp, body) for key in keys])
    return {"webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signatures}


def _signed(id: str, timestamp: str, body: bytes) -> bytes:
    return b".".join((id.encode(), timestamp.encode(), body))


def _key(secret: str, prefix: str, form: str) -> bytes:
    if not secret.startswith(prefix):
        raise InvalidInput(form)
    try:
        return b64decode(secret.removeprefix(prefix).encode(), validate=True)
    except (NotBase64, UnicodeEncodeError):
        raise InvalidInput(form) from None
