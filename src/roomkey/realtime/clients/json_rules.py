"""
One client's conversation: messages, moments and events in, decisions out. Nothing here waits or reads a clock.

A message is looked at in this order: is the session still good, is there budget, is it a message, is its type
known, do the grants allow it, is the client in the document. While storage is asked whether the session still
holds, or whose a new token is, messages wait in the order in which they came.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, ClassVar

from msgspec import UNSET

from roomkey.domain.access import Access, access_to, reaches
from roomkey.domain.session import Session
from roomkey.realtime.protocol.json_messages import (
    CloseReason,
    ErrorCode,
    Fault,
    Incoming,
    MessageType,
    Renewal,
    Subscription,
    decode,
    decode_id,
    document_of,
    milliseconds,
    read,
    status_of,
)
from roomkey.realtime.protocol.message_types import ApplicationType
from roomkey.realtime.rooms.history import Position
from roomkey.realtime.session.closing import closing
from roomkey.realtime.session.effects import (
    Announce,
    Authenticate,
    Effect,
    Join,
    Leave,
    Point,
    Publish,
    Send,
    Touch,
)
from roomkey.realtime.session.guard import NOTHING, Effects, Watch
from roomkey.realtime.session.limits import Published, SessionLimits
from roomkey.realtime.settings import RealtimeSettings
from roomkey.security.ratelimit import Bucket, Rate


class Connection(Watch):
    """
    What one client may do, and what it has used up of it.

    Everything returns what is to be done, in order; after a ``Close``, when it ``is_over``, always nothing.
    """

    __slots__ = ("_access", "_forbidden", "_malformed", "_types")

    def __init__(
        self,
        session: Session,
        limits: SessionLimits,
        *,
        settings: RealtimeSettings,
        types: Mapping[str, ApplicationType],
        now: datetime,
    ) -> None:
        super().__init__(session, limits, settings=settings, now=now)
        self._types = types
        self._access: dict[str, Access] = {}
        self._malformed = Bucket(Rate(0.1, settings.malformed_patience))
        self._forbidden = Bucket(Rate(1.0, settings.forbidden_patience))

    def welcome(self, now: datetime) -> Effects:
        """The first message, once the socket is open."""
        settings = self._settings
        timeout = settings.heartbeat_timeout
        self._heard_at = now
        payload = {
            **_standing(self.session),
            "user_id": self.session.user_id,
            "heartbeat": {
                "interval_ms": milliseconds(settings.heartbeat),
                "timeout_ms": None if timeout is None else milliseconds(timeout),
            },
            "limits": {
                "message_bytes": settings.max_message_bytes,
                "messages_per_second": settings.messages_per_second,
                "message_burst": settings.message_burst,
                "bytes_per_second": settings.traffic_per_second_bytes,
                "subscriptions": settings.max_subscriptions,
                "presence_bytes": settings.max_presence_bytes,
            },
        }
        return [Send(MessageType.SESSION_CONNECTED, payload)]

    # --- what the client says -------------------------------------------------------------------------

    def receive(self, message: bytes, now: datetime) -> Effects:
        """Decide about one text frame."""
        if self.is_over:
            return NOTHING
        self._heard_at = now
        try:
            self._check_budget(len(message), now.timestamp())
        except Fault as fault:
            return self._answer(fault, decode_id(message), now)
        return self._admit(message, now)

    def _understand(self, message: bytes, now: datetime) -> Effects:
        try:
            incoming = decode(message, max_depth=self._settings.max_depth)
        except Fault as fault:
            return self._answer(fault, decode_id(message), now)
        try:
            return self._decide(incoming, now)
        except Fault as fault:
            return self._answer(fault, _id(incoming), now)

    def _decide(self, incoming: Incoming, now: datetime) -> Effects:
        handler = self._HANDLERS.get(incoming.message_type)
        if handler is not None:
            return handler(self, incoming, now)
        kind = self._types.get(incoming.message_type)
        if kind is None:
            raise Fault(ErrorCode.UNKNOWN_TYPE, "there is no such message type here")
        kind.check(incoming.payload)
        return self._publish(incoming, kind.options.access, now, history=kind.options.history)

    def _heartbeat(self, incoming: Incoming, now: datetime) -> Effects:
        return [Send(MessageType.HEARTBEAT_ACK, {"server_time": now}, _id(incoming))]

    def _subscribe(self, incoming: Incoming, now: datetime) -> Effects:  # noqa: ARG002  # handlers are called alike
        document = document_of(incoming.payload)
        subscription = read(incoming.payload, Subscription)
        access = access_to(document, self.session.grants)
        if access is None:
            raise Fault(ErrorCode.FORBIDDEN, "no grant of the session covers this document")
        limit = self._settings.max_subscriptions
        if len(self._access) >= limit and document not in self._access:
            raise Fault(ErrorCode.RATE_LIMITED, f"a connection follows at most {limit} documents")
        self._access[document] = access
        return [Join(_id(incoming), document, subscription.since)]

    def _unsubscribe(self, incoming: Incoming, now: datetime) -> Effects:  # noqa: ARG002
        document = document_of(incoming.payload)
        # Who is not in the document gets what it wants, too.
        self._access.pop(document, None)
        return [Leave(_id(incoming), document)]

    def _edit(self, incoming: Incoming, now: datetime) -> Effects:
        return self._publish(incoming, Access.WRITE, now, history=True)

    def _publish(self, incoming: Incoming, access: Access, now: datetime, *, history: bool) -> Effects:
        payload = incoming.payload
        document = document_of(payload)
        self._check_access(document, access)
        id = incoming.id
        if id is not UNSET and (published := self._limits.find(id, now)) is not None:
            return self._repeat(incoming, document, published)
        publish = Publish(_id(incoming), document, incoming.message_type, payload, history)
        return self._act(publish, now)

    def _repeat(self, incoming: Incoming, document: str, published: Published) -> Effects:
        if (published.document, published.message_type) != (document, incoming.message_type):
            raise Fault(ErrorCode.CONFLICT, "this id was used for another message; ids must not repeat")
        return [acknowledgement(_id(incoming), document, published.position)]

    def _point(self, incoming: Incoming, now: datetime) -> Effects:
        document = document_of(incoming.payload)
        self._check_access(document, Access.READ)
        return self._act(Point(document, incoming.payload), now)

    def _announce(self, incoming: Incoming, now: datetime) -> Effects:  # noqa: ARG002
        # Not activity: programs announce "away" and "online" without anyone at the keyboard.
        document = document_of(incoming.payload)
        self._check_access(document, Access.READ)
        status = status_of(incoming.payload)
        return [Announce(_id(incoming), document, status, incoming.payload)]

    def _refresh(self, incoming: Incoming, now: datetime) -> Effects:  # noqa: ARG002
        renewal = read(incoming.payload, Renewal)
        # What follows may need what the new credential allows, so it waits.
        self._refreshing = Authenticate(_id(incoming), renewal.token)
        return [self._refreshing]

    def _act(self, effect: Effect, now: datetime) -> Effects:
        """The effect, which is something that the user did, and so moves the idle deadline (ASVS 7.3.1)."""
        return [effect, Touch()] if self._deadline.act(now) else [effect]

    _HANDLERS: ClassVar[Mapping[str, Callable[..., Effects]]] = {
        MessageType.HEARTBEAT: _heartbeat,
        MessageType.SUBSCRIBE: _subscribe,
        MessageType.UNSUBSCRIBE: _unsubscribe,
        MessageType.REALTIME_EDIT: _edit,
        MessageType.CURSOR_POSITION: _point,
        MessageType.USER_PRESENCE: _announce,
        MessageType.SESSION_REFRESH: _refresh,
    }
    """The messages that a client may send; the application's own come after them."""

    def published(self, id: str, published: Published) -> None:
        """What became of a ``Publish``, so that a repetition is recognised."""
        self._limits.remember(id, published)

    # --- what is checked ------------------------------------------------------------------------------

    def _check_budget(self, size: int, seconds: float) -> None:
        limits = self._limits
        wait = limits.messages.take(1.0, seconds) or limits.traffic.take(size, seconds)
        if wait:
            raise Fault(
                ErrorCode.RATE_LIMITED,
                "the session sends too much",
                details={"retry_after_ms": int(wait * 1000) + 1},
                retry=True,
            )
        limit = self._settings.max_message_bytes
        if size > limit:
            raise Fault(ErrorCode.MESSAGE_TOO_LARGE, f"a message has at most {limit} bytes")

    def _check_access(self, document: str, wanted: Access) -> None:
        given = self._access.get(document)
        if given is None:
            if reaches(access_to(document, self.session.grants), wanted):
                raise Fault(ErrorCode.NOT_SUBSCRIBED, "subscribe to the document first")
        elif reaches(given, wanted):
            return
        raise Fault(ErrorCode.FORBIDDEN, f"no grant of the session allows to {wanted} this document")

    def _answer(self, fault: Fault, id: str | None, now: datetime) -> Effects:
        """The error that the client is told, and the end of our patience with it."""
        answer = Send(MessageType.ERROR, fault.payload(), id)
        seconds = now.timestamp()
        match fault.code:
            case ErrorCode.RATE_LIMITED if fault.retry and self._limits.patience.take(1.0, seconds):
                end = self._end(closing(CloseReason.LIMITS_IGNORED))
            case ErrorCode.INVALID_MESSAGE | ErrorCode.MESSAGE_TOO_LARGE if self._malformed.take(1.0, seconds):
                end = self._end(closing(CloseReason.MALFORMED))
            case ErrorCode.FORBIDDEN | ErrorCode.UNAUTHORIZED if self._forbidden.take(1.0, seconds):
                end = self._end(closing(CloseReason.FORBIDDEN))
            case _:
                end = NOTHING
        return [answer, *end]

    # --- what the client is told ----------------------------------------------------------------------

    def _review(self) -> Effects:
        """Put the client out of documents that the grants do not cover any more."""
        effects: list[Effect] = []
        for document in tuple(self._access):
            access = access_to(document, self.session.grants)
            if access is None:
                del self._access[document]
                why = Fault(ErrorCode.FORBIDDEN, "the session's grants do not cover this document any more")
                effects.append(Leave(None, document, why))
            else:
                self._access[document] = access
        return effects

    def _renewal(self, renewed: Authenticate) -> Effects:
        return [Send(MessageType.SESSION_REFRESHED, _standing(self.session), renewed.id)]

    def _notice(self) -> Effects:
        return [
            Send(MessageType.SESSION_EXPIRING, {"expires_at": self._deadline.deadline, "reason": self._deadline.reason})
        ]

    def _refused(self, fault: Fault, refused: Authenticate, now: datetime) -> Effects:
        return self._answer(fault, refused.id, now)


def acknowledgement(id: str | None, document: str, position: Position | None) -> Send:
    """The answer to what was published, the first time and every other time."""
    return Send(MessageType.ACK, {"document": document, "position": position}, id)


def _id(incoming: Incoming) -> str | None:
    return None if incoming.id is UNSET else incoming.id


def _standing(session: Session) -> dict[str, Any]:
    return {
        "session_id": session.id,
        "expires_at": session.expires_at,
        "idle_expires_at": session.idle_expires_at,
    }
