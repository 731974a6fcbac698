"""Values that lie where others may read: encrypted, so that only who has the secret of the deployment can."""

import hmac
from importlib.util import find_spec
from secrets import token_bytes
from typing import Final

from roomkey.errors import Serialization

_NONCE_BYTES: Final = 12
_DIGEST_BYTES: Final = 16


def can_seal() -> bool:
    """Whether the package that encrypts is installed."""
    return find_spec("cryptography") is not None


class Seal:
    """
    AES-256-GCM under keys that are derived from a secret, apart for each ``purpose``.

    A sealed value is bound to the place where it lies. No two are the same, whatever they hold.
    """

    def __init__(self, secret: bytes, purpose: str) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        self._cipher = AESGCM(hmac.digest(secret, b"seal " + purpose.encode(), "sha256"))
        self._digest_key = hmac.digest(secret, b"digest " + purpose.encode(), "sha256")

    def seal(self, place: bytes, value: bytes) -> bytes:
        """What may be stored at ``place``."""
        nonce = token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, value, place)

    def open(self, place: bytes, sealed: bytes) -> bytes:
        """
        The value.

        Raises:
            Serialization: If it is none that was sealed for this place, with this secret.
        """
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415

        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place)
        except (InvalidTag, ValueError):
            raise Serialization("a sealed value cannot be opened: it was changed, or is of another secret") from None

    def digest(self, value: bytes) -> bytes:
        """What tells values apart without showing them."""
        return hmac.digest(self._digest_key, value, "sha256")[:_DIGEST_BYTES]
