"""Cursors of lists: a position in bytes, as text that fits into a URL and says which kind of list it is of."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error

from roomkey.errors import InvalidInput


def encode_cursor(kind: bytes, position: bytes) -> str:
    """The cursor of a page that ends at ``position``. ``kind`` is one byte."""
    return urlsafe_b64encode(kind + position).decode().rstrip("=")


def decode_cursor(cursor: str, kind: bytes, *, max_bytes: int) -> bytes:
    """
    The position behind which a page begins: 1 to ``max_bytes`` bytes, which anybody may have made up.

    Raises:
        InvalidInput: If the cursor is not one of this kind.
    """
    # Base64 makes four characters of three bytes.
    if len(cursor) > 2 * max_bytes + 4:
        raise not_ours()
    try:
        value = urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4))
    except (Base64Error, UnicodeEncodeError):
        raise not_ours() from None
    if not value.startswith(kind) or not 1 < len(value) <= 1 + max_bytes:
        raise not_ours()
    return value[1:]


def not_ours() -> InvalidInput:
    """The error for a cursor that did not come from here."""
    return InvalidInput("the cursor is not one of ours")
