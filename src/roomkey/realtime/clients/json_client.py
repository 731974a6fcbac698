"""The clients of ``/ws``: what the rules decide about messages is carried out in rooms and on the wire."""

from collections.abc import Coroutine, Sequence
from datetime import datetime
from typing import Any, assert_never

from roomkey.domain.session import Client
from roomkey.errors import Conflict, RoomkeyError
from roomkey.realtime.clients.client import ClientHost, RealtimeClient
from roomkey.realtime.clients.eager import run_eagerly
from roomkey.realtime.clients.json_rules import (
    Announce,
    Join,
    JsonEffects,
    JsonRules,
    Leave,
    Point,
    Publish,
    Send,
    acknowledgement,
)
from roomkey.realtime.protocol.json_messages import ErrorCode, Fault, MessageType, encode
from roomkey.realtime.rooms.rooms import Rooms
from roomkey.realtime.session.closing import closing
from roomkey.realtime.session.effects import Authenticate, Close, Farewell, Rebind, Touch, Verify
from roomkey.realtime.session.guard import GuardEffects
from roomkey.wire.close import CloseReason
from roomkey.wire.frame import Frame

BrokerEffect = Publish | Join | Leave
"""What only the broker can answer, perhaps not at once."""


class JsonClient(RealtimeClient):
    """The ``Conversation`` of one socket that speaks JSON."""

    __slots__ = ("_rooms", "_rules")

    def __init__(self, rules: JsonRules, host: ClientHost, device: Client, rooms: Rooms) -> None:
        super().__init__(rules.guard, host, device)
        self._rules = rules
        self._rooms = rooms

    # --- what the transport says ----------------------------------------------------------------------

    def text(self, message: bytes) -> None:
        """Decide, and do."""
        self.messages_in += 1
        self.bytes_in += len(message)
        now = self._host.now()
        self._perform(self._rules.receive(message, now), now)

    def binary(self, message: bytes) -> None:  # noqa: ARG002  # whatever it is
        """Part: this protocol is text only."""
        self.end(closing(CloseReason.TEXT_ONLY))

    def documents(self) -> Sequence[str]:
        """The documents that it follows."""
        return tuple(self.who.rooms or ())

    # --- what is decided ------------------------------------------------------------------------------

    def carry_out(self, effects: GuardEffects, now: datetime) -> None:
        """Do what the guard decided, in order."""
        self._perform(self._rules.translate(effects, now), now)

    def _begin(self, now: datetime) -> None:
        self._perform(self._rules.welcome(now), now)

    def _understand(self, message: bytes, now: datetime) -> None:
        self._perform(self._rules.understand(message, now), now)

    def _perform(self, effects: JsonEffects, now: datetime) -> None:
        """Do what was decided, in order."""
        for number, effect in enumerate(effects):
            if isinstance(effect, BrokerEffect):
                self._ask_broker(effects[number:], now)
                return
            self._perform_one(effect, now)

    def _perform_one(
        self, effect: Send | Point | Announce | Rebind | Touch | Authenticate | Verify | Close, now: datetime
    ) -> None:
        match effect:
            case Point(document, payload):
                self._rooms.point(self.who, document, payload, now)
            case Send():
                self._send(effect, now)
            case Announce():
                self._announce(effect, now)
            case Rebind(former):
                self._rooms.change_hands(self.who, self.guard.session, now)
                self.guard.limits = self._host.rebound(self, former)
            case Touch() | Authenticate() | Verify() | Close():
                self._do(effect, now)
            case _:
                assert_never(effect)

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

    def _ask_broker(self, effects: JsonEffects, now: datetime) -> None:
        """Do what follows, too, once the broker has answered; messages wait for that. It may answer at once."""
        self.guard.pause()
        run_eagerly(self._perform_in_turn(effects, now), lambda rest: self._host.spawn(self._resume_after(rest)))

    async def _perform_in_turn(self, effects: JsonEffects, now: datetime) -> None:
        try:
            for effect in effects:
                if not isinstance(effect, BrokerEffect):
                    self._perform_one(effect, now)
                elif self.guard.is_over and not isinstance(effect, Leave):
                    return
                else:
                    await self._perform_at_broker(effect, now)
        finally:
            self.guard.unpause()

    async def _perform_at_broker(self, effect: BrokerEffect, now: datetime) -> None:
        try:
            match effect:
                case Publish():
                    await self._publish(effect, now)
                case Join():
                    await self._join(effect, now)
                case Leave():
                    await self._unsubscribe(effect, now)
                case _:
                    assert_never(effect)
        except Conflict as error:
            self._refuse(Fault(ErrorCode.CONFLICT, str(error)), effect, now)
        except RoomkeyError:
            self._refuse(Fault(ErrorCode.SERVER_ERROR, "this cannot be done now", retry=True), effect, now)

    async def _publish(self, publish: Publish, now: datetime) -> None:
        id, document = publish.id, publish.document
        published = await self._rooms.publish(
            self.who, document, publish.message_type, publish.payload, keep=publish.keep, id=id, now=now
        )
        self._send(acknowledgement(id, document, published.position), now)
        if not published.repeated:
            self._perform(self._rules.published(now), now)

    async def _join(self, join: Join, now: datetime) -> None:
        def answer(payload: dict[str, Any]) -> Frame:
            return self._frame(Send(MessageType.SUBSCRIBED, payload, join.id), now)

        try:
            await self._rooms.join(self.who, join.document, join.since, answer)
        except RoomkeyError:
            self._rules.left(join.document)
            raise

    async def _unsubscribe(self, leave: Leave, now: datetime) -> None:
        await self._rooms.leave(self.who, leave.document, now)
        payload = {"document": leave.document, "error": leave.why.payload() if leave.why else None}
        self._send(Send(MessageType.UNSUBSCRIBED, payload, leave.id), now)

    def _refuse(self, fault: Fault, effect: BrokerEffect, now: datetime) -> None:
        if not self.guard.is_over:
            self._perform(self._rules.answer(fault, effect.id, now), now)

    async def _resume_after(self, rest: Coroutine[Any, Any, None]) -> None:
        try:
            await rest
        except Exception:  # noqa: BLE001  # as if it had failed at once
            self._fail(self.box.socket)
        self.resume()

    # --- the end --------------------------------------------------------------------------------------

    def _farewell(self, close: Close, now: datetime) -> Sequence[Frame]:
        return [self._frame(close.farewell, now)]

    def _leave(self, now: datetime) -> None:
        for document in self.documents():
            run_eagerly(self._rooms.leave(self.who, document, now), self._host.spawn)
