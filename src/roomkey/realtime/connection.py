"""
One client's conversation: messages, moments and events in, decisions out. Nothing here waits or reads a clock.

A message is looked at in this order: is the session still good, is there budget, is it a message, is its type
known, do the grants allow it, is the client in the document. While storage is asked whether the session still
holds, or whose a new token is, messages wait in the order in which they came.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Final

from msgspec import UNSET

from roomkey.domain import lifecycle
from roomkey.domain.access import Access, access_to
from roomkey.domain.session import (
    AnyEvent,
    Deleted,
    Evicted,
    Expired,
    Invalidated,
    Session,
    SessionEvent,
    SessionState,
    Suspended,
    UserRevoked,
)
from roomkey.errors import InvalidState
from roomkey.realtime.effects import (
    Announce,
    Authenticate,
    Close,
    Effect,
    Join,
    Leave,
    Point,
    Publish,
    Rebind,
    Send,
    Touch,
    Verify,
)
from roomkey.realtime.endings import ending, invalidated, stopped
from roomkey.realtime.ledger import Ledger, Published
from roomkey.realtime.protocol import (
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
from roomkey.realtime.recovery import Position
from roomkey.realtime.settings import RealtimeSettings
from roomkey.realtime.term import Term
from roomkey.realtime.vocabulary import ApplicationType
from roomkey.security.ratelimit import Bucket, Rate

Effects = Sequence[Effect]

NOTHING: Final[Effects] = ()

_LEVEL: Final = {access: level for level, access in enumerate(Access)}
"""Each kind of access includes the ones before it."""


class Connection:
    """
    What one client may do, and what it has used up of it.

    Everything returns what is to be done, in order; after a ``Close``, when it ``is_over``, always nothing.
    """

    __slots__ = (
        "_access",
        "_again",
        "_doubting",
        "_forbidden",
        "_heard_at",
        "_held",
        "_ledger",
        "_malformed",
        "_refreshing",
        "_renewed",
        "_settings",
        "_term",
        "_types",
        "_verifying",
        "is_over",
    )

    def __init__(
        self,
        session: Session,
        ledger: Ledger,
        *,
        settings: RealtimeSettings,
        types: Mapping[str, ApplicationType],
        now: datetime,
    ) -> None:
        self._settings = settings
        self._types = types
        self._ledger = ledger
        self._term = Term(session, settings)
        self._access: dict[str, Access] = {}
        self._malformed = Bucket(Rate(0.1, settings.malformed_patience))
        self._forbidden = Bucket(Rate(1.0, settings.forbidden_patience))
        self._heard_at = now
        self._held: list[bytes] = []
        self._doubting = False
        self._verifying = False
        self._again = False
        self._refreshing: Authenticate | None = None
        self._renewed: Authenticate | None = None
        self.is_over = False

    @property
    def session(self) -> Session:
        """The session that the client belongs to, as far as this connection knows."""
        return self._term.session

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
        if self.is_held_up:
            return self._hold(message)
        if now >= self._term.deadline:
            # Perhaps it was moved by a request, or by another connection. Storage knows, so this one waits.
            self._hold(message)
            return self._doubt()
        return self._understand(message, now)

    @property
    def is_held_up(self) -> bool:
        """Whether messages have to wait for storage."""
        return self._doubting or self._refreshing is not None

    @property
    def can_resume(self) -> bool:
        """Whether there are messages that had to wait, and need not any more."""
        return bool(self._held) and not self.is_held_up and not self.is_over

    def resume(self, now: datetime) -> Effects:
        """Decide about the next message that had to wait. What one does must be done before the next is decided."""
        return self._understand(self._held.pop(0), now)

    def _understand(self, message: bytes, now: datetime) -> Effects:
        try:
            incoming = decode(message, max_depth=self._settings.max_depth)
        except Fault as fault:
            return self._answer(fault, decode_id(message), now)
        try:
            return self._decide(incoming, now)
        except Fault as fault:
            return self._answer(fault, _id(incoming), now)

    def _hold(self, message: bytes) -> Effects:
        if len(self._held) >= self._settings.max_held_messages:
            return self._end(ending(CloseReason.OVERLOADED))
        self._held.append(message)
        return NOTHING

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
        if id is not UNSET and (published := self._ledger.find(id, now)) is not None:
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
        return [effect, Touch()] if self._term.act(now) else [effect]

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
        self._ledger.remember(id, published)

    # --- what is checked ------------------------------------------------------------------------------

    def _check_budget(self, size: int, seconds: float) -> None:
        ledger = self._ledger
        wait = ledger.messages.take(1.0, seconds) or ledger.traffic.take(size, seconds)
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
            if _reaches(access_to(document, self.session.grants), wanted):
                raise Fault(ErrorCode.NOT_SUBSCRIBED, "subscribe to the document first")
        elif _reaches(given, wanted):
            return
        raise Fault(ErrorCode.FORBIDDEN, f"no grant of the session allows to {wanted} this document")

    def _answer(self, fault: Fault, id: str | None, now: datetime) -> Effects:
        """The error that the client is told, and the end of our patience with it."""
        answer = Send(MessageType.ERROR, fault.payload(), id)
        seconds = now.timestamp()
        match fault.code:
            case ErrorCode.RATE_LIMITED if fault.retry and self._ledger.patience.take(1.0, seconds):
                end = self._end(ending(CloseReason.LIMITS_IGNORED))
            case ErrorCode.INVALID_MESSAGE | ErrorCode.MESSAGE_TOO_LARGE if self._malformed.take(1.0, seconds):
                end = self._end(ending(CloseReason.MALFORMED))
            case ErrorCode.FORBIDDEN | ErrorCode.UNAUTHORIZED if self._forbidden.take(1.0, seconds):
                end = self._end(ending(CloseReason.FORBIDDEN))
            case _:
                end = NOTHING
        return [answer, *end]

    # --- what storage answers -------------------------------------------------------------------------

    def verified(self, session: Session | None, now: datetime) -> Effects:
        """How the session stands. ``None``: it is gone."""
        self._verifying = False
        if self.is_over:
            return NOTHING
        if self._again:
            # The doubt may be younger than this answer.
            self._again = False
            return self._verify()
        if session is None:
            return self._end(invalidated("deleted"))
        if session.state is not SessionState.ACTIVE:
            return self._end(stopped(session.state))
        if lifecycle.overdue(session, now) is not None:
            return self._end(stopped(SessionState.EXPIRED))
        self._doubting = False
        effects = [*self.learn(session), *self._notify(now)]
        if self._renewed is not None:
            effects.append(Send(MessageType.SESSION_REFRESHED, _standing(self.session), self._renewed.id))
            self._renewed = None
        return effects

    def unverified(self, now: datetime) -> Effects:
        """Storage did not answer. Unless there is reason to doubt it, the session goes on within its known time."""
        self._verifying = False
        if self.is_over:
            return NOTHING
        if self._doubting:
            return self._end(ending(CloseReason.UNAVAILABLE))
        return self._notify(now)

    def refreshed(self, session: Session, now: datetime) -> Effects:
        """
        The new token opens ``session``: this one, or another of the same user, to which the connection then belongs.

        Its state is asked for once more, after whoever hears of events knows that they matter here.
        """
        if self.is_over or self._refreshing is None:
            return NOTHING
        if session.user_id != self.session.user_id:
            return self.not_refreshed(Fault(ErrorCode.FORBIDDEN, "the token is somebody else's"), now)
        if session.state is not SessionState.ACTIVE:
            return self.not_refreshed(Fault(ErrorCode.INVALID_SESSION, f"the session is {session.state}"), now)
        self._renewed, self._refreshing = self._refreshing, None
        if session.id == self.session.id:
            return [*self.learn(session), *self._doubt()]
        former = self.session
        self._term.begin(session)
        return [Rebind(former), *self._review_access(), *self._doubt()]

    def not_refreshed(self, fault: Fault, now: datetime) -> Effects:
        """The new token opens nothing, or this cannot be found out now. The session goes on as it was."""
        if self.is_over or self._refreshing is None:
            return NOTHING
        id, self._refreshing = self._refreshing.id, None
        return self._answer(fault, id, now)

    def learn(self, session: Session) -> Effects:
        """The session as storage has it, or had it some time ago."""
        if session.version < self.session.version:
            return NOTHING  # read before something that is known already
        self._term.learn(session)
        return self._review_access()

    def take_over(self, ledger: Ledger) -> None:
        """Use what is remembered of the session that the connection belongs to now."""
        self._ledger = ledger

    def _doubt(self) -> Effects:
        """Let nothing pass until storage has said how the session stands."""
        self._doubting = True
        self._again = self._verifying
        return self._verify()

    def _verify(self) -> Effects:
        if self._verifying:
            return NOTHING
        self._verifying = True
        return [Verify()]

    def _review_access(self) -> Effects:
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

    # --- what happens to the session ------------------------------------------------------------------

    def happened(self, event: AnyEvent, now: datetime) -> Effects:
        """Something happened to a session, perhaps this one, perhaps known already."""
        if isinstance(event, UserRevoked):
            return self._user_revoked(event)
        if self.is_over or event.session != self.session.id or event.version <= self.session.version:
            return NOTHING
        match event:
            case Suspended():
                return self._end(stopped(SessionState.SUSPENDED, event.cause))
            case Expired():
                return self._end(stopped(SessionState.EXPIRED, event.cause))
            case Invalidated() | Evicted() | Deleted():
                return self._end(invalidated(event.tag(), event.cause))
            case _:
                return self._change(event, now)

    def _change(self, event: SessionEvent, now: datetime) -> Effects:
        if event.version > self.session.version + 1:
            return self._doubt()  # something came in between that nobody told us
        try:
            session = lifecycle.apply(self.session, event)
        except InvalidState:
            return self._doubt()
        return [*self.learn(session), *self._notify(now)]

    def _user_revoked(self, event: UserRevoked) -> Effects:
        if self.is_over or event.user != self.session.user_id or event.session == self.session.id:
            return NOTHING
        if self.session.created_at <= event.at:
            return self._end(invalidated(event.tag(), event.cause))
        return self._doubt()  # it looks newer, and clocks differ

    # --- time -----------------------------------------------------------------------------------------

    def next_check(self) -> datetime:
        """When ``due`` is to be called, if nothing happens before."""
        timeout = self._settings.heartbeat_timeout
        check = self._term.next_check()
        return check if timeout is None else min(check, self._heard_at + timeout)

    def due(self, now: datetime) -> Effects:
        """What time has brought about."""
        timeout = self._settings.heartbeat_timeout
        if self.is_over:
            return NOTHING
        if timeout is not None and now - self._heard_at >= timeout:
            return self._end(ending(CloseReason.NO_HEARTBEAT))
        if now >= self._term.deadline:
            return NOTHING if self._doubting else self._doubt()
        # Storage first: the deadline may have been moved from elsewhere.
        return self._verify() if self._term.wants_notice(now) else NOTHING

    def _notify(self, now: datetime) -> Effects:
        term = self._term
        if not term.wants_notice(now):
            return NOTHING
        term.noticed()
        return [Send(MessageType.SESSION_EXPIRING, {"expires_at": term.deadline, "reason": term.reason})]

    # --- the end --------------------------------------------------------------------------------------

    def close(self, end: Close) -> Effects:
        """End for a reason that lies outside: see ``endings``."""
        return self._end(end)

    def gone(self) -> None:
        """The socket is closed; nothing more is decided."""
        self.is_over = True

    def _end(self, end: Close) -> Effects:
        if self.is_over:
            return NOTHING
        self.is_over = True
        self._held.clear()
        return [end]


def acknowledgement(id: str | None, document: str, position: Position | None) -> Send:
    """The answer to what was published, the first time and every other time."""
    return Send(MessageType.ACK, {"document": document, "position": position}, id)


def _reaches(given: Access | None, wanted: Access) -> bool:
    return given is not None and _LEVEL[given] >= _LEVEL[wanted]


def _id(incoming: Incoming) -> str | None:
    return None if incoming.id is UNSET else incoming.id


def _standing(session: Session) -> dict[str, Any]:
    return {
        "session_id": session.id,
        "expires_at": session.expires_at,
        "idle_expires_at": session.idle_expires_at,
    }
