"""
One JSON client's conversation: messages, moments and events in, decisions out. Nothing here waits or reads a clock.

A message is looked at in this order: is the session still good, is there budget, is it a message, is its type
known, do the grants allow it, is the client in the document. While storage is asked whether the session still
holds, or whose a new token is, messages wait in the order in which they came.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Final, assert_never
from zlib import crc32

from msgspec import UNSET, Struct

from roomkey.domain.access import Access, reaches
from roomkey.domain.session import Session
from roomkey.ports import GRANTS_ALONE, AccessDecisions, Position
from roomkey.realtime.protocol.json_messages import (
    ErrorCode,
    Fault,
    Incoming,
    MessageType,
    Renewal,
    Subscription,
    decode,
    decode_id,
    document_of,
    encode_value,
    milliseconds,
    read,
    status_of,
)
from roomkey.realtime.protocol.message_types import ApplicationType
from roomkey.realtime.protocol.payloads import (
    AccessChanged,
    Acknowledged,
    ConnectionLimits,
    HeartbeatAnswer,
    HeartbeatTimes,
    SessionConnected,
    SessionExpiring,
    SessionRefreshed,
)
from roomkey.realtime.session.activity import is_activity
from roomkey.realtime.session.closing import OVERSIZED, closing
from roomkey.realtime.session.effects import (
    Authenticate,
    Close,
    ExpiringSoon,
    NotRenewed,
    Rebind,
    Renewed,
    Review,
    Touch,
    Verify,
)
from roomkey.realtime.session.guard import GuardEffects, SessionGuard
from roomkey.realtime.settings import RealtimeSettings
from roomkey.security.injection import Inspector, Suspicion
from roomkey.security.ratelimit import Bucket, Rate
from roomkey.wire.close import CloseReason


class Send(Struct, frozen=True, gc=False):
    """Send a message to the client. ``id`` is that of the message that this answers, if any."""

    message_type: str
    payload: Any
    id: str | None = None


class Join(Struct, frozen=True, gc=False):
    """Subscribe the client to a document, and answer ``subscribed`` with what it missed and what it may do."""

    id: str | None
    document: str
    since: Position | None


class Decide(Struct, frozen=True, gc=False):
    """Find out what the session may do in the document, and then ask ``JsonRules.subscribe``."""

    id: str | None
    document: str
    since: Position | None


class Leave(Struct, frozen=True, gc=False):
    """Unsubscribe the client, and answer ``unsubscribed``; ``why`` is set if the client did not ask for it."""

    id: str | None
    document: str
    why: Fault | None = None


class Publish(Struct, frozen=True, gc=False):
    """
    Publish a message to everyone else in the document, and acknowledge it.

    What is published for the first time may be something that the user did: ask ``is_activity``.
    """

    id: str | None
    document: str
    message_type: str
    payload: dict[str, Any]
    keep: bool


class Point(Struct, frozen=True, gc=False):
    """Send a cursor to everyone else in the document."""

    document: str
    payload: dict[str, Any]


class Suspect(Struct, frozen=True, gc=False):
    """Report that the client sent text that looks like an attack."""

    what: Suspicion


class Violate(Struct, frozen=True, gc=False):
    """Count what the client did as a violation, and let it go on."""

    cause: str


class Announce(Struct, frozen=True, gc=False):
    """Change how the session is shown to everyone else in the document."""

    id: str | None
    document: str
    status: str
    payload: dict[str, Any]


JsonEffect = (
    Send
    | Decide
    | Join
    | Leave
    | Publish
    | Point
    | Announce
    | Suspect
    | Violate
    | Touch
    | Authenticate
    | Verify
    | Rebind
    | Close
)
"""What a JSON client may have to do."""

JsonEffects = Sequence[JsonEffect]

NOTHING: Final[JsonEffects] = ()

# Python 3.11 takes a tenth of a microsecond to find a member of an enumeration in its class.
_READ, _WRITE = Access.READ, Access.WRITE


class JsonRules:
    """
    What one client may do, and what it has used up of it.

    Everything returns what is to be done, in order; when the ``guard`` is over, always nothing.
    """

    __slots__ = (
        "_access",
        "_cursors",
        "_decisions",
        "_forbidden",
        "_inspector",
        "_malformed",
        "_node",
        "_settings",
        "_types",
        "guard",
    )

    def __init__(
        self,
        guard: SessionGuard,
        *,
        settings: RealtimeSettings,
        types: Mapping[str, ApplicationType],
        inspector: Inspector | None = None,
        node: str | None = None,
        decisions: AccessDecisions = GRANTS_ALONE,
    ) -> None:
        """``inspector`` looks at what is sent, if there is one; ``decisions`` say what the session may do."""
        self._decisions = decisions
        self.guard = guard
        self._inspector = inspector
        self._node = node
        self._settings = settings
        self._types = types
        self._access: dict[str, Access] = {}
        self._cursors: dict[str, int] = {}
        self._malformed = Bucket(Rate(0.1, settings.malformed_patience))
        self._forbidden = Bucket(Rate(1.0, settings.forbidden_patience))

    def welcome(self, now: datetime) -> JsonEffects:
        """The first message, once the socket is open."""
        settings = self._settings
        timeout = settings.heartbeat_timeout
        self.guard.heard(now)
        session = self.guard.session
        greeting = SessionConnected(
            session_id=session.id,
            expires_at=session.expires_at,
            idle_expires_at=session.idle_expires_at,
            user_id=session.user_id,
            heartbeat=HeartbeatTimes(
                interval_ms=milliseconds(settings.heartbeat),
                timeout_ms=None if timeout is None else milliseconds(timeout),
            ),
            limits=ConnectionLimits(
                message_bytes=settings.max_message_bytes,
                messages_per_second=settings.messages_per_second,
                message_burst=settings.message_burst,
                bytes_per_second=settings.traffic_per_second_bytes,
                subscriptions=settings.max_subscriptions,
                presence_bytes=settings.max_presence_bytes,
            ),
            node=UNSET if self._node is None else self._node,
        )
        return [Send(MessageType.SESSION_CONNECTED, greeting)]

    # --- what the client says -------------------------------------------------------------------------

    def receive(self, message: bytes, now: datetime) -> JsonEffects:
        """Decide about one text frame."""
        guard = self.guard
        if guard.is_over:
            return NOTHING
        guard.heard(now)
        limits, size, seconds = guard.limits, len(message), now.timestamp()
        wait = limits.messages.take(1.0, seconds) or limits.traffic.take(size, seconds)
        if wait or size > self._settings.max_message_bytes:
            return self.answer(self._excess(wait), decode_id(message), now)
        waits = guard.admit(message, now)
        return self.understand(message, now) if waits is None else self.translate(waits, now)

    def understand(self, message: bytes, now: datetime) -> JsonEffects:
        """Decide about a text frame of a session that is certain."""
        try:
            incoming = decode(message, max_depth=self._settings.max_depth)
            inspector = self._inspector
            if inspector is not None and (found := inspector.look_at_message(message, incoming.payload)) is not None:
                return [Suspect(found), *self._answer_to_suspect(incoming, now, is_refused=inspector.rejects_text)]
            return self._decide(incoming, now)
        except Fault as fault:
            return self.answer(fault, decode_id(message), now)

    def _answer_to_suspect(self, incoming: Incoming, now: datetime, *, is_refused: bool) -> JsonEffects:
        if is_refused:
            return self.answer(Fault(ErrorCode.INVALID_MESSAGE, "the text looks like an attack"), _id(incoming), now)
        try:
            return self._decide(incoming, now)
        except Fault as fault:
            return self.answer(fault, _id(incoming), now)

    def _decide(self, incoming: Incoming, now: datetime) -> JsonEffects:
        handler = self._HANDLERS.get(incoming.message_type)
        if handler is not None:
            return handler(self, incoming, now)
        kind = self._types.get(incoming.message_type)
        if kind is None:
            raise Fault(ErrorCode.UNKNOWN_TYPE, "there is no such message type here")
        kind.check(incoming.payload)
        return self._publish(incoming, kind.options.access, keep=kind.options.history)

    def _heartbeat(self, incoming: Incoming, now: datetime) -> JsonEffects:
        return [Send(MessageType.HEARTBEAT_ACK, HeartbeatAnswer(now), _id(incoming))]

    def _subscribe(self, incoming: Incoming, now: datetime) -> JsonEffects:  # noqa: ARG002  # handlers are called alike
        document = document_of(incoming.payload)
        subscription = read(incoming.payload, Subscription)
        if not self._decisions.is_fresh(self.guard.session, document):
            return [Decide(_id(incoming), document, subscription.since)]
        return self._admit(_id(incoming), document, subscription.since)

    def subscribe(self, decided: Decide, now: datetime) -> JsonEffects:
        """It is known what the session may do in the document."""
        if self.guard.is_over:
            return NOTHING
        try:
            return self._admit(decided.id, decided.document, decided.since)
        except Fault as fault:
            return self.answer(fault, decided.id, now)

    def _admit(self, id: str | None, document: str, since: Position | None) -> JsonEffects:
        access = self._decisions.access(self.guard.session, document)
        if access is None:
            raise Fault(ErrorCode.FORBIDDEN, "the session may not use this document")
        limit = self._settings.max_subscriptions
        if len(self._access) >= limit and document not in self._access:
            raise Fault(ErrorCode.RATE_LIMITED, f"a connection follows at most {limit} documents")
        self._access[document] = access
        return [Join(id, document, since)]

    def _unsubscribe(self, incoming: Incoming, now: datetime) -> JsonEffects:  # noqa: ARG002
        document = document_of(incoming.payload)
        # Who is not in the document gets what it wants, too.
        self.left(document)
        return [Leave(_id(incoming), document)]

    def _edit(self, incoming: Incoming, now: datetime) -> JsonEffects:  # noqa: ARG002
        return self._publish(incoming, _WRITE, keep=True)

    def _publish(self, incoming: Incoming, access: Access, *, keep: bool) -> JsonEffects:
        document = self._document_of(incoming.payload, access)
        return [Publish(_id(incoming), document, incoming.message_type, incoming.payload, keep)]

    def _point(self, incoming: Incoming, now: datetime) -> JsonEffects:
        document = self._document_of(incoming.payload, _READ)
        guard, point = self.guard, Point(document, incoming.payload)
        if guard.is_open_to_activity(now) and is_activity(incoming.message_type, is_new=self._has_moved(point)):
            return [point, *self.translate(guard.acted(now), now)]
        return [point]

    def _has_moved(self, point: Point) -> bool:
        """Whether it is another cursor than when this was last asked; a first one is not known to be."""
        before, now = self._cursors.get(point.document), crc32(encode_value(point.payload))
        self._cursors[point.document] = now
        return before is not None and before != now

    def _announce(self, incoming: Incoming, now: datetime) -> JsonEffects:  # noqa: ARG002
        document = self._document_of(incoming.payload, Access.READ)
        status = status_of(incoming.payload)
        return [Announce(_id(incoming), document, status, incoming.payload)]

    def _refresh(self, incoming: Incoming, now: datetime) -> JsonEffects:
        renewal = read(incoming.payload, Renewal)
        return self.translate(self.guard.refresh(Authenticate(_id(incoming), renewal.token, renewal.proof)), now)

    _HANDLERS: ClassVar[Mapping[str, Callable[..., JsonEffects]]] = {
        MessageType.HEARTBEAT: _heartbeat,
        MessageType.SUBSCRIBE: _subscribe,
        MessageType.UNSUBSCRIBE: _unsubscribe,
        MessageType.REALTIME_EDIT: _edit,
        MessageType.CURSOR_POSITION: _point,
        MessageType.USER_PRESENCE: _announce,
        MessageType.SESSION_REFRESH: _refresh,
    }
    """The messages that a client may send; the application's own come after them."""

    # --- what is checked ------------------------------------------------------------------------------

    def _excess(self, wait: float) -> Fault:
        """What is wrong with a message for which there is no budget before ``wait`` seconds, or which is too large."""
        if not wait:
            limit = self._settings.max_message_bytes
            return Fault(ErrorCode.MESSAGE_TOO_LARGE, f"a message has at most {limit} bytes")
        details = {"retry_after_ms": int(wait * 1000) + 1}
        return Fault(ErrorCode.RATE_LIMITED, "the session sends too much", details=details, retry=True)

    def _document_of(self, payload: dict[str, Any], wanted: Access) -> str:
        """The document that a payload is about, if the client is in it and may do there what it wants."""
        document: Any = payload.get("document")
        given = self._access.get(document) if type(document) is str else None
        if given is wanted or reaches(given, wanted):
            return document  # its name was looked at when the client came in
        if given is None and reaches(self._decisions.access(self.guard.session, document_of(payload)), wanted):
            raise Fault(ErrorCode.NOT_SUBSCRIBED, "subscribe to the document first")
        raise Fault(ErrorCode.FORBIDDEN, f"the session may not {wanted} this document")

    def answer(self, fault: Fault, id: str | None, now: datetime) -> JsonEffects:
        """The error message for the client, and the close if it has made too many."""
        answer: list[JsonEffect] = [Send(MessageType.ERROR, fault.payload(), id)]
        if fault.code is ErrorCode.MESSAGE_TOO_LARGE:
            answer.append(Violate(OVERSIZED))
        seconds = now.timestamp()
        self.guard.limits.rejected += 1
        match fault.code:
            case ErrorCode.RATE_LIMITED if fault.retry and self.guard.limits.patience.take(1.0, seconds):
                end = self.guard.close(closing(CloseReason.LIMITS_IGNORED))
            case ErrorCode.INVALID_MESSAGE | ErrorCode.MESSAGE_TOO_LARGE if self._malformed.take(1.0, seconds):
                end = self.guard.close(closing(CloseReason.MALFORMED))
            case ErrorCode.FORBIDDEN | ErrorCode.UNAUTHORIZED if self._forbidden.take(1.0, seconds):
                end = self.guard.close(closing(CloseReason.FORBIDDEN, is_violation=True))
            case _:
                end = ()
        return [*answer, *self.translate(end, now)]

    # --- what the client is told ----------------------------------------------------------------------

    def translate(self, effects: GuardEffects, now: datetime) -> JsonEffects:
        """What a decision of the guard means for this client."""
        if not effects:
            return NOTHING
        translated: list[JsonEffect] = []
        for effect in effects:
            match effect:
                case Review(reason):
                    translated.extend(self._review(reason))
                case Renewed(question):
                    translated.append(Send(MessageType.SESSION_REFRESHED, _refreshed(self.guard.session), question.id))
                case NotRenewed(question, why):
                    translated.extend(self.answer(why, question.id, now))
                case ExpiringSoon():
                    deadline = self.guard.deadline
                    notice = SessionExpiring(deadline.deadline, deadline.reason)
                    translated.append(Send(MessageType.SESSION_EXPIRING, notice))
                case Touch() | Authenticate() | Verify() | Rebind() | Close():
                    translated.append(effect)
                case _:
                    assert_never(effect)
        return translated

    def _review(self, reason: str | None) -> JsonEffects:
        """Tell the client what it may do now, and unsubscribe it from documents that it may not use any more."""
        effects: list[JsonEffect] = []
        for document in tuple(self._access):
            access = self._decisions.access(self.guard.session, document)
            if access is None:
                self.left(document)
                text = "the session may not use this document any more"
                why = Fault(ErrorCode.FORBIDDEN, text, details=_with(reason))
                effects.append(Leave(None, document, why))
            elif access is not self._access[document]:
                self._access[document] = access
                effects.append(Send(MessageType.ACCESS_CHANGED, AccessChanged(document, access)))
        return effects

    def put_out(self, document: str, reason: str | None) -> JsonEffects:
        """Unsubscribe the client from a document because somebody wants that."""
        if self.guard.is_over or document not in self._access:
            return NOTHING
        self.left(document)
        text = "the session was disconnected from this document"
        return [Leave(None, document, Fault(ErrorCode.DISCONNECTED, text, details=_with(reason)))]

    def access_in(self, document: str) -> Access | None:
        """What the client may do in a document that it is in."""
        return self._access.get(document)

    def left(self, document: str) -> None:
        """The client is not in the document any more, or after all."""
        self._access.pop(document, None)
        self._cursors.pop(document, None)


def acknowledgement(id: str | None, document: str, position: Position | None) -> Send:
    """The answer to what was published, the first time and every other time."""
    return Send(MessageType.ACK, Acknowledged(document, position), id)


def _id(incoming: Incoming) -> str | None:
    return None if incoming.id is UNSET else incoming.id


def _refreshed(session: Session) -> SessionRefreshed:
    return SessionRefreshed(session.id, session.expires_at, session.idle_expires_at)


def _with(reason: str | None) -> dict[str, Any] | None:
    """What an operator wrote, as details of an error."""
    return None if reason is None else {"reason": reason}
