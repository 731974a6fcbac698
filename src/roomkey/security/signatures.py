"""Signatures of what we send to an application, as Standard Webhooks says: whoever has the secret can verify them."""

import hmac
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from datetime import datetime
from hashlib import sha256
from typing import Final

from roomkey.errors import InvalidInput

PREFIX: Final = "whsec_"
MIN_BYTES: Final = 24
MAX_BYTES: Final = 64


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
        if not secret.startswith(PREFIX):
            raise InvalidInput(form)
        try:
            self._key = b64decode(secret.removeprefix(PREFIX).encode(), validate=True)
        except (NotBase64, UnicodeEncodeError):
            raise InvalidInput(form) from None
        if not MIN_BYTES <= len(self._key) <= MAX_BYTES:
            raise InvalidInput(form)

    def headers(self, id: str, at: datetime, body: bytes) -> dict[str, str]:
        """The headers of a message: its id, by which it is known if it comes twice, its time, and the signature."""
        timestamp = str(int(at.timestamp()))
        return {"webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": self.sign(id, timestamp, body)}

    def sign(self, id: str, timestamp: str, body: bytes) -> str:
        """``v1,`` and the HMAC-SHA256 of id, time and body, joined by full stops."""
        signed = b".".join((id.encode(), timestamp.encode(), body))
        return "v1," + b64encode(hmac.digest(self._key, signed, sha256)).decode()

    def __repr__(self) -> str:
        return "SigningSecret(<hidden>)"
