"""
User ids where a storage has to find them: sealed so that equal ones stay equal, and nothing else can be told of them.

AES-SIV (RFC 5297) is made for that: without a nonce, and authenticated. What it makes of an id is a name that can be
read again, so a storage needs no other place for the id, and any storage can keep it. Names have the partition of their
user, because ids of sessions say it, and so does the place of events in the log.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, Final

from roomkey.domain.session import MAX_USER_ID_BYTES, partition_of
from roomkey.errors import InvalidInput, Serialization

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

KEY_BYTES: Final = 64
"""Two keys of AES-256: one authenticates, the other one encrypts."""

BLOCK_BYTES: Final = 16
"""Ids are padded to a multiple of this, so that their length says little."""

MAX_HIDDEN_BYTES: Final = 159
"""Longer ids would have names that are longer than a storage must take: ``MAX_USER_ID_BYTES``."""

MAX_CACHED: Final = 20_000
"""Maximum number of users whose names are remembered, some 500 bytes each."""

_TAIL: Final = 3
"""Characters at the end of a name that only put it into its partition: one of 256 does, so one of 64**3 always does."""

_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_END: Final = b"\x80"
"""What padding begins with, before zeros."""


class UserIds:
    """Hides user ids and shows them again. Until it has a key it leaves them as they are."""

    def __init__(self) -> None:
        self._cipher: AESSIV | None = None
        self._names: dict[str, str] = {}
        self._ids: dict[str, str] = {}

    def use(self, key: bytes) -> None:
        """Hide ids from now on, with this key of ``KEY_BYTES``."""
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV  # noqa: PLC0415  # not all commands need it

        self._cipher = AESSIV(key)
        self._names, self._ids = {}, {}

    @property
    def are_hidden(self) -> bool:
        """Whether there is a key."""
        return self._cipher is not None

    def check(self, user_id: str) -> None:
        """
        Raise unless ``user_id`` can be hidden, or need not be.

        Raises:
            InvalidInput: If it is too long.
        """
        if self._cipher is not None and len(_encoded(user_id)) > MAX_HIDDEN_BYTES:
            raise InvalidInput(
                f"a user id has at most {MAX_HIDDEN_BYTES} bytes where ids are encrypted, not {MAX_USER_ID_BYTES}"
            )

    def hide(self, user_id: str) -> str:
        """The name of a user in the storage, always the same. One that is too long to be a user's has a name, too."""
        if self._cipher is None:
            return user_id
        name = self._names.get(user_id)
        if name is None:
            name = _encrypted(self._cipher, user_id)
            self._remember(user_id, name)
        return name

    def show(self, name: str) -> str:
        """
        The user whose name this is.

        Raises:
            Serialization: If it is nobody's.
        """
        if self._cipher is None:
            return name
        user_id = self._ids.get(name)
        if user_id is None:
            user_id = _decrypted(self._cipher, name)
            self._remember(user_id, name)
        return user_id

    def _remember(self, user_id: str, name: str) -> None:
        if len(self._names) >= MAX_CACHED:
            self._names, self._ids = {}, {}
        self._names[user_id], self._ids[name] = name, user_id


def _encoded(user_id: str) -> bytes:
    return user_id.encode("utf-8", "surrogatepass")  # one that is looked for may be any text


def _partition_of(text: str) -> int:
    """As ``partition_of``; text that cannot be a user's id has one, too."""
    return partition_of(_encoded(text).decode("utf-8", "replace"))


def _encrypted(cipher: "AESSIV", user_id: str) -> str:
    text = _encoded(user_id) + _END
    sealed = cipher.encrypt(text.ljust(-(-len(text) // BLOCK_BYTES) * BLOCK_BYTES, b"\0"), None)
    stem, partition = urlsafe_b64encode(sealed).rstrip(b"=").decode(), _partition_of(user_id)
    return next(stem + tail for tail in _tails() if partition_of(stem + tail) == partition)


def _decrypted(cipher: "AESSIV", name: str) -> str:
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415

    stem = name[:-_TAIL]
    try:
        sealed = urlsafe_b64decode(stem + "=" * (-len(stem) % 4))
        text, end, _ = cipher.decrypt(sealed, None).rpartition(_END)
        if not end:
            raise Serialization("the name of a user was altered")
        return text.decode("utf-8", "surrogatepass")
    except (InvalidTag, NotBase64, ValueError):
        raise Serialization("the name of a user was altered") from None


def _tails() -> Iterator[str]:
    return map("".join, product(_ALPHABET, repeat=_TAIL))
