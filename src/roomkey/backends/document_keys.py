"""What finds documents and versions in every backend: names as bytes, and the cursors of lists."""

from hashlib import sha256
from typing import Final

from roomkey.backends.cursors import decode_cursor, encode_cursor, not_ours
from roomkey.errors import InvalidInput

MAX_NAME_BYTES: Final = 1024

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
    return encode_cursor(_NAME, name.encode())


def name_of(cursor: str) -> str:
    """
    The name behind which a page of documents begins.

    Raises:
        InvalidInput: If the cursor is not one of ours.
    """
    try:
        name = decode_cursor(cursor, _NAME, max_bytes=MAX_NAME_BYTES).decode()
    except UnicodeDecodeError:
        raise not_ours() from None
    if name_key(name) is None:
        raise not_ours()
    return name


def version_cursor(number: int) -> str:
    """The cursor of a page of versions that ends with ``number``."""
    return encode_cursor(_VERSION, str(number).encode())


def version_of(cursor: str) -> int:
    """
    The number of the version behind which a page of versions begins.

    Raises:
        InvalidInput: If the cursor is not one of ours.
    """
    digits = decode_cursor(cursor, _VERSION, max_bytes=_MAX_DIGITS)
    if not digits.isdigit():
        raise not_ours()
    return int(digits)


def grave_digest(name: bytes, lineage: str) -> bytes:
    """What a deleted document is known by: as long as any other, however long its name is."""
    return sha256(len(name).to_bytes(4, "big") + name + lineage.encode("utf-8", "surrogatepass")).digest()
