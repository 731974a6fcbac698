"""The clients of ``/ws``: they carry out in rooms and on the wire what the rules decide about messages."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, assert_never

from roomkey.domain.session import Client
from roomkey.errors import Conflict, RoomkeyError
from roomkey.ports import Published
from roomkey.realtime.clients.client import ClientHost, RealtimeClient
from roomkey.realtime.clients.eager import Waiting, begin
from roomkey.realtime.clients.json_rules import (
    Announce,
    Decide,
    Join,
    JsonEffect,
    JsonEffects,
    JsonRules,
    Leave,
    Point,
    Publish,
    Send,
    Suspect,
    Violate,
    acknowledgement,
)
from roomkey.realtime.protocol.json_messages import ErrorCode, Fault, MessageType, encode
from roomkey.realtime.protocol.payloads import ServiceRestored, Subscribed, Unsubscribed
from roomkey.realtime.rooms.rooms import Rooms
from roomkey.realtime.rooms.shared_rooms import SharedRooms
from roomkey.realtime.session.activity import is_activity
from roomkey.realtime.session.closing import closing
from roomkey.realtime.session.effects import Authenticate, Close, Farewell, Rebind, Touch, Verify
from roomkey.realtime.session.guard import GuardEffects
from roomkey.wire.close import CloseReason
from roomkey.wire.frame import Frame

RETRY_AFTER_MS: Final = 2000
"""When clients are to try again what could not be done: breakers let one call through every few seconds."""


class JsonClient(RealtimeClient):
    """The ``Conversation`` of one socket that speaks JSON."""

    protocol = "ws"

    __slots__ = ("_rooms", "_rules", "_shared")

    def __init__(self, rules: JsonRules, host: ClientHost, device: Client, rooms: Rooms) -> None:
        super().__init__(rules.guard, host, device)
        self._rules = rules
        self._rooms = rooms
        self._shared = rooms if isinstance(rooms, SharedRooms) else None

    # --- what the transport says ----------------------------------------------------------------------

    def text(self, message: bytes) -> None:
        """Have the rules decide about the message, and carry that out."""
        self.messages_in += 1
        self.bytes_in += len(message)
        now = self._host.now()
        self._perform(self._rules.receive(message, now), now)

    def binary(self, message: bytes) -> None:  # noqa: ARG002  # whatever it is
        """Close: this protocol is text only."""
        self.end(closing(CloseReason.TEXT_ONLY))

    def documents(self) -> Sequence[str]:
        """The documents that it follows."""
        return tuple(self.who.rooms or ())

    # --- what is decided ------------------------------------------------------------------------------

    def carry_out(self, effects: GuardEffects, now: datetime) -> None:
        """Do what the guard decided, in order."""
        self._perform(self._rules.translate(effects, now), now)

    def put_out(self, document: str, reason: str | None) -> None:
        """Unsubscribe the client, which is told why; its socket stays open."""
        now = self._host.now()
        self._safely(lambda: self._perform(self._rules.put_out(document, reason), now))

    def warn(self, details: Mapping[str, Any], now: datetime) -> None:
        """As an error that answers nothing."""
        text = "the session has violated the protocol: if that goes on, it is suspended and then ended"
        self._send(Send(MessageType.ERROR, Fault(ErrorCode.VIOLATION, text, details={**details}).payload()), now)

    def tell_service(self, now: datetime) -> None:
        """Say it once per change, beside the errors that answer messages."""
        if self._host.degraded:
            why = "what you send may reach others later"
            fault = Fault(
                ErrorCode.SERVER_ERROR, why, details={"degraded": True, "retry_after_ms": RETRY_AFTER_MS}, retry=True
            )
            self._send(Send(MessageType.ERROR, fault.payload()), now)
        else:
            self._send(Send(MessageType.SERVICE_RESTORED, ServiceRestored()), now)

    def _begin(self, now: datetime) -> None:
        self._perform(self._rules.welcome(now), now)
        if self._host.degraded:
            self.tell_service(now)

    def _understand(self, message: bytes, now: datetime) -> None:
        self._perform(self._rules.understand(message, now), now)

    def _perform(self, effects: JsonEffects, now: datetime) -> None:
        """Do what was decided, in order. What comes behind a question to the broker waits if its answer does."""
        for number, effect in enumerate(effects, 1):
            # The most frequent one first.
            waiting = self._publish(effect, now) if type(effect) is Publish else self._perform_one(effect, now)
            if waiting is not None:
                self.guard.pause()
                self._host.spawn(self._go_on(waiting, effects[number:], now))
                return

    def _perform_one(self, effect: JsonEffect, now: datetime) -> Awaitable[None] | None:
        """What is left to wait for, if the broker did not answer at once."""
        match effect:
            case Publish():
                return self._publish(effect, now)
            case Decide() | Join() | Leave():
                return self._come_or_go(effect, now)
            case Point(document, payload):
                self._rooms.point(self.who, document, payload, now)
            case Send():
                self._send(effect, now)
            case Suspect() | Violate():
                self._note(effect)
            case Announce():
                self._announce(effect, now)
            case Rebind(former):
                self._rooms.change_hands(self.who, self.guard.session, now)
                self.guard.limits = self._host.rebound(self, former)
            case Touch() | Authenticate() | Verify() | Close():
                self._do(effect, now)
            case _:
                assert_never(effect)
        return None

    def _note(self, effect: Suspect | Violate) -> None:
        match effect:
            case Suspect(what):
                self._host.suspected(self.guard.session, what)
            case Violate(cause):
                self._host.violated(self.guard.session.id, cause)

    async def _go_on(self, waiting: Awaitable[None], effects: JsonEffects, now: datetime) -> None:
        """Do what follows when the answer has come, and then what the client has said meanwhile."""
        try:
            await waiting
            for effect in effects:
                if not self.guard.is_over and (more := self._perform_one(effect, now)) is not None:
                    await more
        except Exception:  # noqa: BLE001  # as if it had failed at once
            self._fail(self.box.socket)
        finally:
            self.guard.unpause()
        self.resume()

    def _send(self, send: Send, now: datetime) -> None:
        self._hub.send(self.box, self._frame(send, now))

    def _frame(self, send: Send | Farewell, now: datetime) -> Frame:
        id = send.id if isinstance(send, Send) else None
        return encode(id or self._rooms.new_id(), send.message_type, send.payload, now)

    def _announce(self, announce: Announce, now: datetime) -> None:
        if not self._rooms.announce(self.who, announce.document, announce.status, announce.payload, now):
            fault = Fault(ErrorCode.RATE_LIMITED, "there is no room for so much presence in this document")
            self._send(Send(MessageType.ERROR, fault.payload(), announce.id), now)

    # --- what the broker has a part in ----------------------------------------------------------------

    def _publish(self, publish: Publish, now: datetime) -> Awaitable[None] | None:
        """Publish without a coroutine of its own, because every edit comes this way."""
        if self._shared is not None:
            return begin(self._publish_in_order(self._shared, publish, now))
        try:
            published = begin(
                self._rooms.publish(
                    self.who,
                    publish.document,
                    publish.message_type,
                    publish.payload,
                    keep=publish.keep,
                    id=publish.id,
                    now=now,
                )
            )
        except RoomkeyError as error:
            self._refuse(error, publish.id, now)
            return None
        if isinstance(published, Waiting):
            return self._publish_later(published, publish, now)
        self._published(published, publish, now)
        return None

    async def _publish_later(self, waiting: Awaitable[Published], publish: Publish, now: datetime) -> None:
        try:
            self._published(await waiting, publish, now)
        except RoomkeyError as error:
            self._refuse(error, publish.id, now)

    async def _publish_in_order(self, rooms: SharedRooms, publish: Publish, now: datetime) -> None:
        """Publish on every node; what other nodes publish before this stands before the acknowledgement."""
        try:
            await rooms.publish_in_order(
                self.who,
                publish.document,
                publish.message_type,
                publish.payload,
                keep=publish.keep,
                id=publish.id,
                now=now,
                told=lambda published: self._published(published, publish, now),
            )
        except RoomkeyError as error:
            self._refuse(error, publish.id, now)

    def _published(self, published: Published, publish: Publish, now: datetime) -> None:
        self._send(acknowledgement(publish.id, publish.document, published.position), now)
        if published.repeated:
            return
        self._rooms.publications += 1
        if is_activity(publish.message_type, is_new=True) and (acted := self.guard.acted(now)):
            self.carry_out(acted, now)

    def _come_or_go(self, effect: Decide | Join | Leave, now: datetime) -> Awaitable[None] | None:
        match effect:
            case Decide():
                return self._decide(effect, now)  # always in a task: an application may need one
            case Join():
                return begin(self._join(effect, now))
            case Leave():
                return begin(self._unsubscribe(effect, now))

    async def _decide(self, decide: Decide, now: datetime) -> None:
        """Ask the application; what the client says meanwhile waits."""
        try:
            await self._host.decisions.decide(self.guard.session, decide.document)
        except RoomkeyError as error:
            self._refuse(error, decide.id, now)
            return
        for effect in self._rules.subscribe(decide, now):
            if not self.guard.is_over and (waiting := self._perform_one(effect, now)) is not None:
                await waiting

    async def _join(self, join: Join, now: datetime) -> None:
        def answer(subscribed: Callable[..., Subscribed]) -> Frame:
            payload = subscribed(access=self._rules.access_in(join.document))
            return self._frame(Send(MessageType.SUBSCRIBED, payload, join.id), now)

        try:
            await self._rooms.join(self.who, join.document, join.since, answer)
        except RoomkeyError as error:
            self._rules.left(join.document)
            self._host.left(self, join.document)
            self._refuse(error, join.id, now)
        else:
            if join.document in (self.who.rooms or ()):  # it may have left meanwhile
                self._host.joined(self, join.document)

    async def _unsubscribe(self, leave: Leave, now: datetime) -> None:
        self._host.left(self, leave.document)
        with suppress(RoomkeyError):  # the client is out of the room, whatever the broker still sends
            await self._rooms.leave(self.who, leave.document, now)
        payload = Unsubscribed(leave.document, leave.why.payload() if leave.why else None)
        self._send(Send(MessageType.UNSUBSCRIBED, payload, leave.id), now)

    def _refuse(self, error: RoomkeyError, id: str | None, now: datetime) -> None:
        if isinstance(error, Conflict):
            fault = Fault(ErrorCode.CONFLICT, str(error))
        else:
            details = {"retry_after_ms": RETRY_AFTER_MS}
            fault = Fault(ErrorCode.SERVER_ERROR, "this cannot be done now", details=details, retry=True)
        if not self.guard.is_over:
            self._perform(self._rules.answer(fault, id, now), now)

    # --- the end --------------------------------------------------------------------------------------

    def _farewell(self, close: Close, now: datetime) -> Sequence[Frame]:
        return [self._frame(close.farewell, now)]

    def _leave(self, now: datetime) -> None:
        for document in self.documents():
            self._host.left(self, document)
            leaving = begin(self._rooms.leave(self.who, document, now))
            if leaving is not None:
                self._host.spawn(_finish(leaving))


async def _finish(waiting: Awaitable[None]) -> None:
    await waiting
