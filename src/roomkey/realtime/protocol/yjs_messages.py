"""
The two Yjs protocols as values: the messages of y-websocket and of Hocuspocus.

A y-websocket frame is one message. A Hocuspocus frame has an address in front, ``document`` or
``document NUL session``, so that one socket carries many documents; a few kinds of message are its own.

Whatever arrives is checked against the bytes that are there before anything is made of it, and what is wrong
raises ``Malformed`` and nothing else. Updates and state vectors are passed on as bytes: what is in an
update is the business of ``documents.crdt.updates``.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any, Final

import msgspec
from msgspec import Struct

from roomkey.security.inspection import is_deeper
from roomkey.wire import lib0
from roomkey.wire.lib0 import (
    AwarenessEntry,
    Malformed,
    check_state,
    number,
    read_bytes,
    read_number,
    read_text,
    sized,
    text,
)

MAX_AWARENESS_DEPTH: Final = 32

MAX_AWARENESS_ENTRIES: Final = 10_000
"""Clients in one awareness update. Clients may repeat everybody's state, and so many do not fit into a document."""

MAX_ADDRESS_BYTES: Final = 2 * 1024
"""A document's name of 1024 bytes and a session's: it stands in front of everything that is sent to the client."""


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


_SERVICE: Final = 9
"""Of y-websocket, which has no pings: a number that none of its clients knows is passed over."""


class _Sync(IntEnum):
    STEP1 = 0
    STEP2 = 1
    UPDATE = 2


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


class AwarenessUpdate(Struct, frozen=True, gc=False):
    """What some clients show of themselves now."""

    entries: Sequence[AwarenessEntry]


class QueryAwareness(Struct, frozen=True, gc=False):
    """The sender asks for the awareness of everyone."""


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


class AddressedMessage(Struct, frozen=True, gc=False):
    """A Hocuspocus message and the document it is for: ``address`` as it was written, without the session in it."""

    address: str
    document: str
    message: Message


def decode(frame: bytes) -> Message:
    """
    The message of a y-websocket client.

    Raises:
        Malformed: If it is none, or there is something behind it.
    """
    if frame[:2] == UPDATE_HEAD and len(frame) > 2 and frame[2] == len(frame) - 3 < lib0.TWO_BYTES_FROM:
        return Update(frame[3:])  # what people type, seen at one glance
    return _decode(frame, 0, _Y_WEBSOCKET)


UPDATE_HEAD: Final = bytes((MessageKind.SYNC, _Sync.UPDATE))
"""How the messages begin that people's changes come in."""


def decode_addressed(frame: bytes) -> AddressedMessage:
    """
    The message of a Hocuspocus client. Pings and pongs have no address.

    Raises:
        Malformed: As ``decode``.
    """
    if len(frame) == 1 and frame[0] in (MessageKind.PING, MessageKind.PONG):
        return AddressedMessage("", "", Sign(frame[0] == MessageKind.PING))
    address, at = read_text(frame, 0)
    if at > MAX_ADDRESS_BYTES:
        raise Malformed("an address is too long")
    return AddressedMessage(address, address.partition("\0")[0], _decode(frame, at, _HOCUSPOCUS))


def _decode(frame: bytes, at: int, kinds: frozenset[int]) -> Message:
    kind, at = read_number(frame, at)
    if kind not in kinds:
        raise Malformed("there is no such message from clients")
    message, at = _READERS[kind](frame, at)
    if at != len(frame):
        raise Malformed("there is something behind the message")
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
    raise Malformed("there is no such step of synchronisation")


def _read_awareness(frame: bytes, at: int) -> tuple[Message, int]:
    content, at = read_bytes(frame, at)
    return AwarenessUpdate(read_awareness(content)), at


def _read_token(frame: bytes, at: int) -> tuple[Message, int]:
    kind, at = read_number(frame, at)
    if kind != 0:
        raise Malformed("of authentication, clients send the token only")
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
        Malformed: If it is none or far too long, or a state is not JSON: every client would stumble over it.
    """
    if read_number(content, 0)[0] > MAX_AWARENESS_ENTRIES:
        raise Malformed("there are too many awareness entries")
    entries = lib0.read_awareness(content)
    for entry in entries:
        _check_json(entry.state)
    return entries


def _check_json(state: bytes) -> None:
    try:
        value: Any = msgspec.json.decode(state)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = _decode_half_characters(state)
    if is_deeper(value, MAX_AWARENESS_DEPTH):
        raise Malformed("an awareness state nests too deep")


def _decode_half_characters(state: bytes) -> Any:
    """JavaScript writes half of a surrogate pair as an escape (ECMA-262, 25.5.2.3), which msgspec does not read."""
    try:
        return json.loads(state, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise Malformed("an awareness state is not JSON") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


# --- what the server says -----------------------------------------------------------------------------

READ_WRITE: Final = "read-write"
READ_ONLY: Final = "readonly"
"""The scopes of Hocuspocus."""

PING: Final = bytes((MessageKind.PING,))
PONG: Final = bytes((MessageKind.PONG,))

QUERY_AWARENESS: Final = bytes((MessageKind.QUERY_AWARENESS,))
"""The client answers with all states that it knows."""


def sync_step1(state: bytes) -> bytes:
    """What we have: the client answers with what we lack."""
    return b"\x00\x00" + sized(state)


def sync_step2(update: bytes) -> bytes:
    """The answer to a step 1."""
    return b"\x00\x01" + sized(update)


def update(content: bytes) -> bytes:
    """Something was changed."""
    return UPDATE_HEAD + sized(content)


def awareness(entries: Iterable[AwarenessEntry]) -> bytes:
    """What clients show of themselves."""
    return b"\x01" + sized(lib0.awareness(entries))


def denied(reason: str) -> bytes:
    """Something was not allowed: a write to y-websocket clients, the document to those of Hocuspocus."""
    kind = 0  # y-protocols/auth: permission denied is the only message of this kind
    return bytes((MessageKind.AUTH, kind)) + text(reason)


def saved(count: int) -> bytes:
    """The first ``count`` changes of this connection are durable. Only for those who asked for it."""
    return bytes((MessageKind.SYNC_STATUS,)) + number(count)


def service(*, degraded: bool) -> bytes:
    """Whether changes reach others later than they should. Only for those who asked what is durable."""
    return bytes((_SERVICE, degraded))


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


def service_notice(*, degraded: bool) -> bytes:
    """Hocuspocus: whether changes reach others later than they should, as a stateless message in JSON."""
    return bytes((MessageKind.STATELESS,)) + text(json.dumps({"type": "roomkey.service", "degraded": degraded}))


def warning_notice(details: Mapping[str, Any]) -> bytes:
    """Hocuspocus: violations of the session count, as a stateless message in JSON."""
    return bytes((MessageKind.STATELESS,)) + text(json.dumps({"type": "roomkey.violation", **details}))


def closed(reason: str) -> bytes:
    """Hocuspocus: this document is closed on this socket, which stays open."""
    return bytes((MessageKind.CLOSE,)) + text(reason)
