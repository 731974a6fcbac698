"""What finds documents and versions in every backend: names as bytes, and the cursors of lists."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from typing import Final

from roomkey.errors import InvalidInput

MAX_NAME_BYTES: Final = 1024

_MAX_CURSOR_LENGTH: Final = 4 * MAX_NAME_BYTES
_MAX_DIGITS: Final = 20

_NAME: Final = b"n"
_VERSION: Final = b"v"


def name_key(name: str) -> bytes | None:
    """A name as bytes, which sort as names do; ``None`` for text that cannot be one."""
    try:
        key = name.encode()
    except UnicodeEncodeError:
        return None
    return key if 0 < len(key) <= MAX_NAME_BYTES else None


def new_name_key(name: str) -> bytes:
    """
    The name of a document that is to be made.

    Raises:
        InvalidInput: If it cannot be one.
    """
    key = name_key(name)
    if key is None:
        raise InvalidInput(f"the name of a document is text of 1 to {MAX_NAME_BYTES} bytes in UTF-8")
    return key


def name_cursor(name: str) -> str:
    """The cursor of a page of documents that ends with ``name``."""
    return _cursor(_NAME, name.encode())


def name_of(cursor: str) -> str:
    """
    The name behind which a page of documents begins.

    Raises:
        InvalidInput: If the cursor is not one of ours.
    """
    try:
        name = _position(cursor, _NAME).decode()
    except UnicodeDecodeError:
        raise _not_ours() from None
    if name_key(name) is None:
        raise _not_ours()
    return name


def version_cursor(number: int) -> str:
    """The cursor of a page of versions that ends with ``number``."""
    return _cursor(_VERSION, str(number).encode())


def version_of(cursor: str) -> int:
    """
    The number of the version behind which a page of versions begins.

    Raises:
        InvalidInput: If the cursor is not one of ours.
    """
    digits = _position(cursor, _VERSION)
    if not digits.isdigit() or len(digits) > _MAX_DIGITS:
        raise _not_ours()
    return int(digits)


def _cursor(kind: bytes, position: bytes) -> str:
    return urlsafe_b64encode(kind + position).decode().rstrip("=")


def _position(cursor: str, kind: bytes) -> bytes:
    if len(cursor) > _MAX_CURSOR_LENGTH:
        raise _not_ours()
    try:
        value = urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4))
    except (Base64Error, UnicodeEncodeError):
        raise _not_ours() from None
    if not value.startswith(kind):
        raise _not_ours()
    return value[len(kind) :]


def _not_ours() -> InvalidInput:
    return InvalidInput("the cursor is not one of ours")
