"""The peers of ``/ws``: what a connection decides about messages is carried out in the rooms and on the wire."""

from collections.abc import Sequence
from datetime import datetime

from roomkey.domain.session import Client, Session
from roomkey.realtime.clients.client import ClientHost, RealtimeClient
from roomkey.realtime.clients.json_rules import Connection, acknowledgement
from roomkey.realtime.protocol.json_messages import ErrorCode, Fault, MessageType, encode
from roomkey.realtime.rooms.rooms import Rooms, participant
from roomkey.realtime.session.closing import closing
from roomkey.realtime.session.effects import Announce, Close, Effect, Join, Leave, Point, Publish, Send
from roomkey.realtime.session.guard import Effects
from roomkey.realtime.session.limits import Published
from roomkey.wire.close import CloseReason
from roomkey.wire.frame import Frame


class JsonClient(RealtimeClient[Connection]):
    """The ``Conversation`` of one socket that speaks JSON."""

    __slots__ = ("_rooms",)

    def __init__(self, connection: Connection, host: ClientHost, client: Client, rooms: Rooms) -> None:
        super().__init__(connection, host, client, hub=rooms.hub)
        self._rooms = rooms

    # --- what the transport says ----------------------------------------------------------------------

    def text(self, message: bytes) -> None:
        """Decide, and do."""
        host = self._host
        now = host.now()
        host.received(len(message))
        self.carry_out(self.connection.receive(message, now), now)

    def binary(self, message: bytes) -> None:  # noqa: ARG002  # whatever it is
        """Part: this protocol is text only."""
        self.end(closing(CloseReason.TEXT_ONLY))

    def documents(self) -> Sequence[str]:
        """The documents that it follows."""
        return tuple(self.box.members or ())

    # --- what the connection decides ------------------------------------------------------------------

    def carry_out(self, effects: Effects, now: datetime) -> None:
        """Do what was decided, in order."""
        for effect in effects:
            # The frequent ones first.
            if type(effect) is Publish:
                self._publish(effect, now)
            elif type(effect) is Point:
                self._rooms.point(self.who, effect.document, effect.payload, now)
            elif type(effect) is Send:
                self._send(effect, now)
            else:
                super().carry_out((effect,), now)

    def _begin(self, now: datetime) -> None:
        self.carry_out(self.connection.welcome(now), now)

    def _carry_out(self, effect: Effect, now: datetime) -> None:
        match effect:
            case Join(id, document, since):
                subscribed = self._rooms.join(self.who, document, since, now)
                self._send(Send(MessageType.SUBSCRIBED, subscribed, id), now)
            case Leave():
                self._unsubscribe(effect, now)
            case Announce():
                self._announce(effect, now)
            case _:  # pragma: no cover
                raise NotImplementedError

    def _send(self, send: Send, now: datetime) -> None:
        self._hub.send(self.box, self._frame(send, now))

    def _frame(self, send: Send, now: datetime) -> Frame:
        return encode(send.id or self._rooms.new_id(), send.message_type, send.payload, now)

    def _publish(self, publish: Publish, now: datetime) -> None:
        id, document, message_type = publish.id, publish.document, publish.message_type
        position = self._rooms.publish(
            self.who, document, message_type, publish.payload, history=publish.history, now=now
        )
        if id is not None:
            self.connection.published(id, Published(message_type, document, position, now))
        self._send(acknowledgement(id, document, position), now)

    def _unsubscribe(self, leave: Leave, now: datetime) -> None:
        self._rooms.leave(self.who, leave.document, now)
        payload = {"document": leave.document, "error": leave.why.payload() if leave.why else None}
        self._send(Send(MessageType.UNSUBSCRIBED, payload, leave.id), now)

    def _announce(self, announce: Announce, now: datetime) -> None:
        if not self._rooms.announce(self.who, announce.document, announce.status, announce.payload, now):
            fault = Fault(ErrorCode.RATE_LIMITED, "there is no room for so much presence in this document")
            self._send(Send(MessageType.ERROR, fault.payload(), announce.id), now)

    def _rebind(self, former: Session, now: datetime) -> None:
        before, self.who = self.who, participant(self.box, self.connection.session)
        self._rooms.change_hands(before, self.who, now)
        super()._rebind(former, now)

    # --- the end --------------------------------------------------------------------------------------

    def _farewell(self, close: Close, now: datetime) -> Sequence[Frame]:
        return [self._frame(close.farewell, now)]

    def _leave(self, now: datetime) -> None:
        self._rooms.leave_all(self.who, now)
