"""Checkpoints: how large a log is and what is in it, in three lines that are signed (C2SP tlog-checkpoint)."""

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from roomkey.audit.merkle import HASH_BYTES
from roomkey.errors import InvalidInput

MAX_SIZE: Final = 2**63 - 1
_DECIMAL: Final = re.compile("0|[1-9][0-9]{0,18}")


class Checkpoint(Struct, frozen=True):
    """The head of the log ``origin``: the root of the tree of its first ``size`` entries."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()
    """Further lines, about which nothing is known."""

    @property
    def text(self) -> str:
        """What is signed."""
        return "".join(f"{line}\n" for line in (self.origin, self.size, hash_text(self.root), *self.extensions))


def checkpoint(text: str) -> Checkpoint:
    """
    The head that the text of a note says.

    Raises:
        InvalidInput: If it says none.
    """
    lines = text.split("\n")
    if len(lines) < 4 or lines.pop() or not all(lines):
        raise InvalidInput("a checkpoint has an origin, a size and a root, one a line")
    origin, size, root, *extensions = lines
    return Checkpoint(origin, number(size), hash_of(root), tuple(extensions))


def number(text: str) -> int:
    """
    A size or an index in the only way in which it is written.

    Raises:
        InvalidInput: If it is none.
    """
    if _DECIMAL.fullmatch(text) is None or int(text) > MAX_SIZE:
        raise InvalidInput("a size or an index is a decimal without leading zeros, less than 2 ** 63")
    return int(text)


def hash_text(hash: bytes) -> str:
    """A hash as a line has it."""
    return b64encode(hash).decode()


def hash_of(text: str) -> bytes:
    """
    The hash that a line has.

    Raises:
        InvalidInput: If it has none.
    """
    try:
        hash = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        hash = b""
    if len(hash) != HASH_BYTES or hash_text(hash) != text:
        raise InvalidInput("a hash has 32 bytes, in base64")
    return hash


def hashes_of(lines: Sequence[str], most: int) -> list[bytes]:
    """
    The hashes of a proof, one a line.

    Raises:
        InvalidInput: If a line is none, or there are more than ``most``.
    """
    if len(lines) > most:
        raise InvalidInput(f"a proof has at most {most} hashes")
    return [hash_of(line) for line in lines]
