"""
lib0 as values: the encoding under both Yjs protocols and under the updates themselves.

Numbers are base 128, little-endian; bytes and texts have their length in front. Whatever is read is checked
against the bytes that are there before anything is made of it, and what is wrong raises ``Malformed`` and
nothing else.
"""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

MAX_NUMBER: Final = 2**53 - 1
"""The largest integer of lib0: what a number of JavaScript holds exactly."""

MAX_NUMBER_BYTES: Final = 8
"""Maximum number of bytes of a number, seven bits each: 2^53 - 1 needs these."""

TWO_BYTES_FROM: Final = 0x80
"""Numbers below this are one byte."""

EMPTY_STATE: Final = b"\x00"
"""The state vector of a document in which nothing was ever written."""

EMPTY_UPDATE: Final = b"\x00\x00"
"""An update that brings nothing: no blocks, nothing deleted."""


GONE: Final = b"null"
"""The awareness state of a client that has left."""


class Malformed(Exception):
    """What came is not what it should be: cut off, too long, or something else."""


def read_number(data: bytes, at: int) -> tuple[int, int]:
    """
    The unsigned integer at ``at`` (base 128, little-endian), and where it ends.

    Raises:
        Malformed: If it is cut off, or larger than ``MAX_NUMBER``.
    """
    number = shift = 0
    for end in range(at, min(at + MAX_NUMBER_BYTES, len(data))):
        byte = data[end]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if number > MAX_NUMBER:
                break
            return number, end + 1
        shift += 7
    raise Malformed("a number is cut off or too large")


def read_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    """
    The bytes at ``at``, which are preceded by their number, and where they end.

    Raises:
        Malformed: If there are fewer than that.
    """
    size, start = read_number(data, at)
    end = start + size
    if end > len(data):
        raise Malformed("a field is longer than the frame")
    return data[start:end], end


def read_text(data: bytes, at: int) -> tuple[str, int]:
    """
    The text at ``at``, which is preceded by its length in bytes, and where it ends.

    Raises:
        Malformed: If it is cut off, or not UTF-8.
    """
    encoded, end = read_bytes(data, at)
    try:
        return encoded.decode(), end
    except UnicodeDecodeError:
        raise Malformed("a text is not UTF-8") from None


def number(value: int) -> bytes:
    """An unsigned integer as lib0 writes it."""
    if value < 0x80:
        return _SMALL[value]
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def sized(value: bytes) -> bytes:
    """Bytes with their number in front."""
    return number(len(value)) + value


def text(value: str) -> bytes:
    """A text with its length in front, in bytes of UTF-8, not in characters."""
    return sized(value.encode())


_SMALL: Final = [bytes((value,)) for value in range(0x80)]


# --- state vectors ---------------------------------------------------------------------------------------


MAX_CLIENTS: Final = 100_000
"""In a state vector: each reload of a page is one, and one that has typed nothing is in none."""


def check_state(state: bytes) -> None:
    """
    Accept a state vector from outside.

    Raises:
        Malformed: If it is none, or has more than ``MAX_CLIENTS``, which are not read.
    """
    if read_number(state, 0)[0] > MAX_CLIENTS:
        raise Malformed("there are too many clients")
    read_state(state)


def read_state(state: bytes) -> dict[int, int]:
    """
    A state vector: how many units of each Yjs client are there.

    Raises:
        Malformed: If it is none.
    """
    count, at = read_number(state, 0)
    if count * 2 > len(state) - at:
        raise Malformed("there are fewer clients than announced")
    clocks: dict[int, int] = {}
    for _ in range(count):
        client, at = read_number(state, at)
        clocks[client], at = read_number(state, at)
    if at != len(state):
        raise Malformed("there is something behind the state vector")
    return clocks


# --- awareness --------------------------------------------------------------------------------------------


class AwarenessEntry(Struct, frozen=True, gc=False):
    """What one Yjs client shows of itself, as JSON; ``null`` if it is gone. A higher ``clock`` is newer."""

    client: int
    clock: int
    state: bytes

    @property
    def is_gone(self) -> bool:
        """Whether the client has left."""
        return self.state == GONE


def read_awareness(content: bytes) -> list[AwarenessEntry]:
    """
    The entries of an awareness update, in order. Whether the states are JSON is not looked at.

    Raises:
        Malformed: If it is none.
    """
    count, at = read_number(content, 0)
    if count * _LEAST_ENTRY_BYTES > len(content) - at:
        raise Malformed("there are fewer awareness entries than announced")
    entries: list[AwarenessEntry] = []
    for _ in range(count):
        client, at = read_number(content, at)
        clock, at = read_number(content, at)
        state, at = read_bytes(content, at)
        entries.append(AwarenessEntry(client, clock, state))
    if at != len(content):
        raise Malformed("there is something behind the awareness entries")
    return entries


_LEAST_ENTRY_BYTES: Final = 4
"""Client, clock, length, and one character of JSON."""


def awareness(entries: Iterable[AwarenessEntry]) -> bytes:
    """What clients show of themselves, as ``read_awareness`` reads it."""
    parts = [number(entry.client) + number(entry.clock) + sized(entry.state) for entry in entries]
    return number(len(parts)) + b"".join(parts)
