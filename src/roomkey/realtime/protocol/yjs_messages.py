"""
The two Yjs protocols as values: lib0's encoding, and the messages of y-websocket and Hocuspocus.

A y-websocket frame is one message. A Hocuspocus frame has an address in front, ``document`` or
``document NUL session``, so that one socket carries many documents; a few kinds of message are its own.

Whatever arrives is checked against the bytes that are there before anything is made of it, and what is wrong
raises ``MalformedFrame`` and nothing else. Updates and state vectors are passed on as bytes: what is in an
update is the business of ``documents.structs``.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any, Final

import msgspec
from msgspec import Struct

from roomkey.security.inspection import is_deeper

MAX_NUMBER: Final = 2**53 - 1
"""The largest integer of lib0: what a number of JavaScript holds exactly."""

MAX_NUMBER_BYTES: Final = 8
"""Of seven bits each: 2^53 - 1 needs so many."""

MAX_AWARENESS_DEPTH: Final = 32

MAX_ADDRESS_BYTES: Final = 2 * 1024
"""A document's name of 1024 bytes and a session's: it stands in front of everything that is sent to the client."""

EMPTY_STATE: Final = b"\x00"
"""The state vector of a document in which nothing was ever written."""

EMPTY_UPDATE: Final = b"\x00\x00"
"""An update that brings nothing: no blocks, nothing deleted."""


class MessageKind(IntEnum):
    """The first number of a message, behind the address if there is one. From ``SYNC_REPLY`` on: Hocuspocus."""

    SYNC = 0
    AWARENESS = 1
    AUTH = 2
    QUERY_AWARENESS = 3
    SYNC_REPLY = 4
    STATELESS = 5
    BROADCAST_STATELESS = 6
    CLOSE = 7
    SYNC_STATUS = 8
    PING = 9
    PONG = 10


class _Sync(IntEnum):
    STEP1 = 0
    STEP2 = 1
    UPDATE = 2


class MalformedFrame(Exception):
    """What came is no message of the protocol."""


# --- lib0 ---------------------------------------------------------------------------------------------


def read_number(data: bytes, at: int) -> tuple[int, int]:
    """
    The unsigned integer at ``at`` (base 128, little-endian), and where it ends.

    Raises:
        MalformedFrame: If it is cut off, or larger than ``MAX_NUMBER``.
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
    raise MalformedFrame("a number is cut off or too large")


def read_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    """
    The bytes at ``at``, which are preceded by their number, and where they end.

    Raises:
        MalformedFrame: If there are fewer than that.
    """
    size, start = read_number(data, at)
    end = start + size
    if end > len(data):
        raise MalformedFrame("a field is longer than the frame")
    return data[start:end], end


def read_text(data: bytes, at: int) -> tuple[str, int]:
    """
    The text at ``at``, which is preceded by its length in bytes, and where it ends.

    Raises:
        MalformedFrame: If it is cut off, or not UTF-8.
    """
    encoded, end = read_bytes(data, at)
    try:
        return encoded.decode(), end
    except UnicodeDecodeError:
        raise MalformedFrame("a text is not UTF-8") from None


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


# --- what clients say ---------------------------------------------------------------------------------


class SyncStep1(Struct, frozen=True, gc=False):
    """The sender has what ``state`` says, and asks for the rest."""

    state: bytes


class SyncStep2(Struct, frozen=True, gc=False):
    """The answer to a step 1: everything that was missing there, perhaps nothing."""

    update: bytes


class Update(Struct, frozen=True, gc=False):
    """Something was changed just now."""

    update: bytes


class AwarenessEntry(Struct, frozen=True, gc=False):
    """What one Yjs client shows of itself, as JSON; ``null`` if it is gone. A higher ``clock`` is newer."""

    client: int
    clock: int
    state: bytes

    @property
    def is_gone(self) -> bool:
        """Whether the client has left."""
        return self.state == GONE


class AwarenessUpdate(Struct, frozen=True, gc=False):
    """What some clients show of themselves now."""

    entries: Sequence[AwarenessEntry]


class QueryAwareness(Struct, frozen=True, gc=False):
    """The sender wants to know what everybody shows."""


class Token(Struct, frozen=True, gc=False):
    """A credential. ``version`` is what the client calls itself."""

    token: str
    version: str | None = None

    def __repr__(self) -> str:
        return "Token(<hidden>)"


class Stateless(Struct, frozen=True, gc=False):
    """A message of the application that has nothing to do with the document."""

    payload: str


class Detach(Struct, frozen=True, gc=False):
    """The sender is done with this document."""


class Sign(Struct, frozen=True, gc=False):
    """A sign of life: a ping wants a pong."""

    is_ping: bool


Message = SyncStep1 | SyncStep2 | Update | AwarenessUpdate | QueryAwareness | Token | Stateless | Detach | Sign

GONE: Final = b"null"


class AddressedMessage(Struct, frozen=True, gc=False):
    """A Hocuspocus message and the document it is for: ``address`` as it was written, without the session in it."""

    address: str
    document: str
    message: Message


def decode(frame: bytes) -> Message:
    """
    The message of a y-websocket client.

    Raises:
        MalformedFrame: If it is none, or there is something behind it.
    """
    return _decode(frame, 0, _Y_WEBSOCKET)


def decode_addressed(frame: bytes) -> AddressedMessage:
    """
    The message of a Hocuspocus client. Pings and pongs have no address.

    Raises:
        MalformedFrame: As ``decode``.
    """
    if len(frame) == 1 and frame[0] in (MessageKind.PING, MessageKind.PONG):
        return AddressedMessage("", "", Sign(frame[0] == MessageKind.PING))
    address, at = read_text(frame, 0)
    if at > MAX_ADDRESS_BYTES:
        raise MalformedFrame("an address is too long")
    return AddressedMessage(address, address.partition("\0")[0], _decode(frame, at, _HOCUSPOCUS))


def _decode(frame: bytes, at: int, kinds: frozenset[int]) -> Message:
    kind, at = read_number(frame, at)
    if kind not in kinds:
        raise MalformedFrame("there is no such message from clients")
    message, at = _READERS[kind](frame, at)
    if at != len(frame):
        raise MalformedFrame("there is something behind the message")
    return message


def _read_sync(frame: bytes, at: int) -> tuple[Message, int]:
    step, at = read_number(frame, at)
    content, at = read_bytes(frame, at)
    if step == _Sync.UPDATE:
        return Update(content), at
    if step == _Sync.STEP2:
        return SyncStep2(content), at
    if step == _Sync.STEP1:
        check_state(content)
        return SyncStep1(content), at
    raise MalformedFrame("there is no such step of synchronisation")


def _read_awareness(frame: bytes, at: int) -> tuple[Message, int]:
    content, at = read_bytes(frame, at)
    return AwarenessUpdate(read_awareness(content)), at


def _read_token(frame: bytes, at: int) -> tuple[Message, int]:
    kind, at = read_number(frame, at)
    if kind != 0:
        raise MalformedFrame("of authentication, clients send the token only")
    token, at = read_text(frame, at)
    if at == len(frame):
        return Token(token), at
    version, at = read_text(frame, at)
    return Token(token, version), at


def _read_stateless(frame: bytes, at: int) -> tuple[Message, int]:
    payload, at = read_text(frame, at)
    return Stateless(payload), at


def _read_detach(frame: bytes, at: int) -> tuple[Message, int]:
    # Some versions say why.
    return Detach(), read_text(frame, at)[1] if at < len(frame) else at


def _read_query(frame: bytes, at: int) -> tuple[Message, int]:  # noqa: ARG001  # readers are called alike
    return QueryAwareness(), at


_READERS: Final[Mapping[int, Callable[[bytes, int], tuple[Message, int]]]] = {
    MessageKind.SYNC: _read_sync,
    MessageKind.SYNC_REPLY: _read_sync,
    MessageKind.AWARENESS: _read_awareness,
    MessageKind.AUTH: _read_token,
    MessageKind.QUERY_AWARENESS: _read_query,
    MessageKind.STATELESS: _read_stateless,
    MessageKind.CLOSE: _read_detach,
}
_Y_WEBSOCKET: Final[frozenset[int]] = frozenset({MessageKind.SYNC, MessageKind.AWARENESS, MessageKind.QUERY_AWARENESS})
_HOCUSPOCUS: Final[frozenset[int]] = frozenset(_READERS)


def read_awareness(content: bytes) -> list[AwarenessEntry]:
    """
    The entries of an awareness update, in order.

    Raises:
        MalformedFrame: If it is none, or a state is not JSON: every client would stumble over it.
    """
    count, at = read_number(content, 0)
    if count * _LEAST_ENTRY_BYTES > len(content) - at:
        raise MalformedFrame("there are fewer awareness entries than announced")
    entries: list[AwarenessEntry] = []
    for _ in range(count):
        client, at = read_number(content, at)
        clock, at = read_number(content, at)
        state, at = read_bytes(content, at)
        _check_json(state)
        entries.append(AwarenessEntry(client, clock, state))
    if at != len(content):
        raise MalformedFrame("there is something behind the awareness entries")
    return entries


_LEAST_ENTRY_BYTES: Final = 4
"""Client, clock, length, and one character of JSON."""


def _check_json(state: bytes) -> None:
    try:
        value: Any = msgspec.json.decode(state)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = _decode_half_characters(state)
    if is_deeper(value, MAX_AWARENESS_DEPTH):
        raise MalformedFrame("an awareness state nests too deep")


def _decode_half_characters(state: bytes) -> Any:
    """JavaScript writes half of a surrogate pair as an escape (ECMA-262, 25.5.2.3), which msgspec does not read."""
    try:
        return json.loads(state, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise MalformedFrame("an awareness state is not JSON") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def check_state(state: bytes) -> None:
    """
    Accept a state vector.

    Raises:
        MalformedFrame: If it is none.
    """
    read_state(state)


def read_state(state: bytes) -> dict[int, int]:
    """
    A state vector: how many units of each Yjs client are there.

    Raises:
        MalformedFrame: If it is none.
    """
    count, at = read_number(state, 0)
    if count * 2 > len(state) - at:
        raise MalformedFrame("there are fewer clients than announced")
    clocks: dict[int, int] = {}
    for _ in range(count):
        client, at = read_number(state, at)
        clocks[client], at = read_number(state, at)
    if at != len(state):
        raise MalformedFrame("there is something behind the state vector")
    return clocks


# --- what the server says -----------------------------------------------------------------------------

READ_WRITE: Final = "read-write"
READ_ONLY: Final = "readonly"
"""The scopes of Hocuspocus."""

PING: Final = bytes((MessageKind.PING,))
PONG: Final = bytes((MessageKind.PONG,))


def sync_step1(state: bytes) -> bytes:
    """What we have: the client answers with what we lack."""
    return b"\x00\x00" + sized(state)


def sync_step2(update: bytes) -> bytes:
    """The answer to a step 1."""
    return b"\x00\x01" + sized(update)


def update(content: bytes) -> bytes:
    """Something was changed."""
    return b"\x00\x02" + sized(content)


def awareness(entries: Iterable[AwarenessEntry]) -> bytes:
    """What clients show of themselves."""
    parts = [number(entry.client) + number(entry.clock) + sized(entry.state) for entry in entries]
    return b"\x01" + sized(number(len(parts)) + b"".join(parts))


def denied(reason: str) -> bytes:
    """Something was not allowed: a write to y-websocket clients, the document to those of Hocuspocus."""
    kind = 0  # y-protocols/auth: permission denied is the only message of this kind
    return bytes((MessageKind.AUTH, kind)) + text(reason)


def saved(count: int) -> bytes:
    """The first ``count`` changes of this connection are durable. Only for those who asked for it."""
    return bytes((MessageKind.SYNC_STATUS,)) + number(count)


def address(name: str) -> bytes:
    """What stands in front of every Hocuspocus message."""
    return text(name)


def authenticated(scope: str) -> bytes:
    """Hocuspocus: the document may be used."""
    return bytes((MessageKind.AUTH, 2)) + text(scope)


def permission_denied(reason: str) -> bytes:
    """Hocuspocus: the document may not be used."""
    return bytes((MessageKind.AUTH, 1)) + text(reason)


def token_wanted() -> bytes:
    """Hocuspocus: the client should send its token again, or a newer one."""
    return bytes((MessageKind.AUTH, 0))


def sync_status(*, applied: bool) -> bytes:
    """Hocuspocus: what became of an update or a step 2 of the client."""
    return bytes((MessageKind.SYNC_STATUS, applied))


def stateless(payload: str) -> bytes:
    """Hocuspocus: a message of the application."""
    return bytes((MessageKind.STATELESS,)) + text(payload)


def closed(reason: str) -> bytes:
    """Hocuspocus: this document is closed on this socket, which stays open."""
    return bytes((MessageKind.CLOSE,)) + text(reason)
