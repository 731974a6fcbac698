"""
The JSON protocol of ``/ws`` as values: what is said, how it is encoded, how things go wrong.

One text frame is one message: ``{"id", "message_type", "payload", "timestamp"}``. A client may leave out
``id``: answers then carry one of the server's. Its ``timestamp`` must be a time, and is not believed. The
server's own messages have ids of its own, except answers, which repeat the id of what they answer.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, TypeVar
from zlib import crc32

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from roomkey.domain.names import check_text
from roomkey.domain.session import SessionId
from roomkey.errors import InvalidInput
from roomkey.ports import Position
from roomkey.security.inspection import MAX_DOCUMENT_NAME_BYTES, check_document_name, is_deeper
from roomkey.wire.frame import Frame

MAX_ID_CHARS: Final = 128
MAX_TYPE_CHARS: Final = 64
MAX_STATUS_BYTES: Final = 64
ONLINE: Final = "online"
"""The status of a session that edits the document through a Yjs socket, and said nothing else."""

OFFLINE: Final = "offline"
"""The status of a session that is not in the document any more; a client that sends it leaves."""

_NO_CONTROLS: Final = r"^[^\u0000-\u001F\u007F-\u009F]+$"
"""What ``check_text`` demands, as far as JSON Schema can say it; no schema refuses what is accepted."""

MessageId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_ID_CHARS,
        description="Names the message in its answer; unique within the session.",
        extra_json_schema={"pattern": _NO_CONTROLS},
    ),
]
DocumentName = Annotated[
    str,
    Meta(
        description="Printable text of at most 1,024 bytes in UTF-8, without `.` and `..` between its slashes.",
        examples=["notes/plan"],
        extra_json_schema={
            "minLength": 1,
            "maxLength": MAX_DOCUMENT_NAME_BYTES,
            "pattern": _NO_CONTROLS,
            "not": {"pattern": r"(^|/)\.{1,2}(/|$)"},
        },
    ),
]
"""A description alone: ``document_of`` checks it."""
Status = Annotated[
    str,
    Meta(
        description="What the user does: `online`, `away`, whatever the application says. With `offline` it leaves.",
        examples=["away"],
        extra_json_schema={"minLength": 1, "maxLength": MAX_STATUS_BYTES, "pattern": _NO_CONTROLS},
    ),
]
"""A description alone: ``status_of`` checks it."""

Moment = Annotated[datetime, Meta(tz=True)]
"""As the server says it: RFC 3339 in UTC."""

T = TypeVar("T")


class MessageType(StrEnum):
    """What messages are called. Applications add their own, see ``vocabulary``."""

    HEARTBEAT = "heartbeat"
    HEARTBEAT_ACK = "heartbeat_ack"
    SUBSCRIBE = "subscribe"
    SUBSCRIBED = "subscribed"
    UNSUBSCRIBE = "unsubscribe"
    UNSUBSCRIBED = "unsubscribed"
    ACCESS_CHANGED = "access_changed"
    REALTIME_EDIT = "realtime_edit"
    ACK = "ack"
    POSITION = "position"
    CURSOR_POSITION = "cursor_position"
    USER_PRESENCE = "user_presence"
    SESSION_REFRESH = "session_refresh"
    SESSION_REFRESHED = "session_refreshed"
    SESSION_CONNECTED = "session_connected"
    SESSION_DISCONNECTED = "session_disconnected"
    SESSION_EXPIRING = "session_expiring"
    SESSION_SUSPENDED = "session_suspended"
    SESSION_INVALIDATED = "session_invalidated"
    DRAINING = "draining"
    SERVICE_RESTORED = "service_restored"
    ERROR = "error"


class ErrorCode(StrEnum):
    """What an ``error`` message says went wrong."""

    INVALID_SESSION = "INVALID_SESSION"
    """The token is genuine, its session cannot be used: pending, suspended or ended."""
    UNAUTHORIZED = "UNAUTHORIZED"
    """The token opens nothing."""
    FORBIDDEN = "FORBIDDEN"
    """The session's grants do not allow it."""
    RATE_LIMITED = "RATE_LIMITED"
    """Too much or too many; ``details.retry_after_ms`` says when there is room again, if time helps."""
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    INVALID_MESSAGE = "INVALID_MESSAGE"
    UNKNOWN_TYPE = "UNKNOWN_TYPE"
    NOT_SUBSCRIBED = "NOT_SUBSCRIBED"
    CONFLICT = "CONFLICT"
    """The message id was used for something else before."""
    VIOLATION = "VIOLATION"
    """A warning: what the session did wrong counts, and ``details`` says how much and what will follow."""
    DISCONNECTED = "DISCONNECTED"
    """Why the client is not in a document any more: somebody wanted that; ``details.reason`` is what they gave."""
    SERVER_ERROR = "SERVER_ERROR"


class WebSocketMessage(Struct, frozen=True, gc=False):
    """One message as it goes over the wire, in either direction."""

    id: str
    message_type: str
    payload: Any
    timestamp: Moment


class Incoming(Struct, frozen=True, kw_only=True):
    """A message of a client that is well formed; its payload may still be wrong for its type."""

    message_type: Annotated[str, Meta(max_length=MAX_TYPE_CHARS)]
    id: MessageId | UnsetType = UNSET
    payload: dict[str, Any] = {}
    timestamp: Annotated[datetime | None, Meta(description="RFC 3339. It is not believed.")] = None


class Subscription(Struct, frozen=True):
    """Follows a document, from where the client stopped reading it if it did. Answered by `subscribed`."""

    document: DocumentName
    since: Annotated[Position | None, Meta(description="The last position that the client has seen.")] = None


class Renewal(Struct, frozen=True):
    """Shows a new token of the session, or of another of the same user. Answered by `session_refreshed`."""

    token: Annotated[str, Meta(min_length=1, max_length=512)]
    proof: Annotated[
        Annotated[str, Meta(min_length=1, max_length=4096)] | None,
        Meta(description="Of DPoP, where the session is bound to a key: about `GET` and the address of the socket."),
    ] = None

    def __repr__(self) -> str:
        return "Renewal(token=<hidden>)"


class SessionInfo(Struct, frozen=True, gc=False):
    """Who sent what is relayed."""

    session_id: SessionId
    user_id: str


class Failure(Struct, frozen=True):
    """What went wrong: with the message whose id it has, or by itself. The message had no effect."""

    code: ErrorCode
    message: Annotated[str, Meta(description="For people.")]
    details: dict[str, Any] | None
    retry: Annotated[bool, Meta(description="Whether the same message may succeed later.")]


class Fault(Exception):
    """A message that is answered with an ``error``, and changes nothing."""

    def __init__(
        self, code: ErrorCode, text: str, *, details: dict[str, Any] | None = None, retry: bool = False
    ) -> None:
        super().__init__(text)
        self.code = code
        self.details = details
        self.retry = retry

    def payload(self) -> Failure:
        """What the client is told."""
        return Failure(self.code, str(self), self.details, self.retry)


def decode(message: bytes, *, max_depth: int) -> Incoming:
    """
    Understand a text frame.

    Raises:
        Fault: If it is no message, or nests too deep: INVALID_MESSAGE.
    """
    try:
        incoming = _incoming.decode(message)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Fault(ErrorCode.INVALID_MESSAGE, _said(error)) from None
    # Every level takes a bracket, so most messages need no closer look. To find none is faster than to count them.
    brackets = message.count(b"{") + (message.count(b"[") if b"[" in message else 0)
    if brackets > max_depth and is_deeper(incoming.payload, max_depth):
        raise Fault(ErrorCode.INVALID_MESSAGE, f"a payload nests at most {max_depth} deep")
    id = incoming.id
    if id is not UNSET and not id.isprintable():
        raise Fault(ErrorCode.INVALID_MESSAGE, "an id must not contain control characters")
    return incoming


def decode_id(message: bytes) -> str | None:
    """The id of a message that is otherwise refused, so that the refusal can name it."""
    try:
        id = _identified.decode(message).id
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return id if id.isprintable() else None


def read(payload: dict[str, Any], kind: type[T]) -> T:
    """
    The payload as the structure that its type demands.

    Raises:
        Fault: If it is not that: INVALID_MESSAGE.
    """
    try:
        return msgspec.convert(payload, kind)
    except msgspec.ValidationError as error:
        raise Fault(ErrorCode.INVALID_MESSAGE, _said(error)) from None


def document_of(payload: dict[str, Any]) -> str:
    """
    The document that a payload is about.

    Raises:
        Fault: If it names none, or one that cannot exist: INVALID_MESSAGE.
    """
    document = payload.get("document")
    if type(document) is not str:
        raise Fault(ErrorCode.INVALID_MESSAGE, "the payload needs the name of a `document`")
    try:
        return check_document_name(document)
    except InvalidInput as error:
        raise Fault(ErrorCode.INVALID_MESSAGE, str(error)) from None


def status_of(payload: dict[str, Any]) -> str:
    """
    The status in a ``user_presence``.

    Raises:
        Fault: If there is none, or it is no short text: INVALID_MESSAGE.
    """
    status = payload.get("status")
    if type(status) is not str:
        raise Fault(ErrorCode.INVALID_MESSAGE, "the payload needs a `status`")
    try:
        return check_text("a status", status, max_bytes=MAX_STATUS_BYTES)
    except InvalidInput as error:
        raise Fault(ErrorCode.INVALID_MESSAGE, str(error)) from None


def encode(id: str, message_type: str, payload: Any, now: datetime) -> Frame:
    """A message of the server, ready for any number of sockets."""
    return Frame(_encode(WebSocketMessage(id, message_type, payload, now)))


def encode_publication(message_type: str, payload: dict[str, Any], now: datetime) -> bytes:
    """
    The part of a message that brokers carry: everything between its id and its position, which ``place`` adds.

    ``payload`` must not be empty, and have no ``position``.
    """
    return _encode(_Publication(message_type, now, payload))[1:-2]


def fingerprint_of(message_type: str, message: bytes) -> int:
    """
    What an encoded publication says, at whatever time: its type and its payload, document included.

    The order of the keys counts, because what is sent again is the same text. It is a checksum and no cryptographic
    hash, because that is a tenth of the price and whoever makes two of its own messages collide harms itself alone.
    """
    said = message[message.index(_PAYLOAD) :]
    return crc32(said, crc32(message_type.encode())) << 32 | len(said)


def place(message: bytes, position: Position) -> bytes:
    """The whole message of a publication that stands at ``position``, which is also its id."""
    epoch, offset = position.epoch.encode(), position.offset
    return b'{"id":"%b.%d",%b,"position":{"epoch":"%b","offset":%d}}}' % (epoch, offset, message, epoch, offset)


def identify(message: bytes, id: str) -> bytes:
    """The whole message of a publication that is not kept."""
    return b'{"id":"%b",%b}}' % (id.encode(), message)


def encode_value(value: Any) -> Raw:
    """A part of messages that is encoded once and used many times."""
    return Raw(_encode(value))


def decode_value(encoded: bytes) -> Any:
    """What ``encode_value`` encoded."""
    return msgspec.json.decode(encoded)


def milliseconds(duration: timedelta) -> int:
    """A duration as messages have it, in fields that end in ``_ms``."""
    return int(duration.total_seconds() * 1000)


def _said(error: Exception) -> str:
    # msgspec says where and what it expected; of what was sent it repeats nothing.
    return "this nests too deep" if isinstance(error, RecursionError) else str(error)


class _Publication(Struct, frozen=True, gc=False):
    """The payload comes last, so that its end is known without reading it."""

    message_type: str
    timestamp: datetime
    payload: dict[str, Any]


class _Identified(Struct, frozen=True):
    id: MessageId


_PAYLOAD: Final = b',"payload":'
"""It cannot stand in the type before it: quotes inside of strings are escaped."""

_incoming = msgspec.json.Decoder(Incoming)
_identified = msgspec.json.Decoder(_Identified)
_encode = msgspec.json.Encoder().encode
