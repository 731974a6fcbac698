"""One client's socket: what its connection decides is carried out in the rooms and on the wire."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

import structlog

from roomkey.domain.session import Client, Session, SessionId
from roomkey.realtime.connection import Connection, Effects, acknowledgement
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
from roomkey.realtime.endings import ending
from roomkey.realtime.frames import Frame
from roomkey.realtime.hub import Outbox
from roomkey.realtime.ledger import Ledger, Published
from roomkey.realtime.protocol import CloseReason, ErrorCode, Fault, MessageType, SessionInfo, encode, encode_value
from roomkey.realtime.rooms import Participant, Rooms
from roomkey.realtime.socket import Socket

_log = structlog.get_logger("roomkey.realtime")


class Office(Protocol):
    """What a peer leaves to others: all that waits, and all that concerns more than one connection."""

    rooms: Rooms

    def now(self) -> datetime:
        """What time it is."""
        ...

    def received(self, size: int) -> None:
        """A message came in."""
        ...

    def ask(self, peer: "Peer", question: Authenticate | Verify) -> None:
        """Put a question to storage; its answer comes to ``peer.connection`` later."""
        ...

    def touch(self, id: SessionId) -> None:
        """The user of the session was active."""
        ...

    def rebound(self, peer: "Peer", former: Session) -> Ledger:
        """The peer belongs to another session than before; returns that one's ledger."""
        ...

    def watch(self, peer: "Peer") -> None:
        """Look at the peer when its connection wants it."""
        ...

    def departed(self, peer: "Peer") -> None:
        """The peer is no more. Called once."""
        ...


class Peer:
    """The ``Conversation`` of one socket."""

    __slots__ = ("_gone", "_office", "_parting", "_rooms", "box", "client", "connection", "due_at", "who")

    def __init__(self, connection: Connection, office: Office, client: Client) -> None:
        self.connection = connection
        self.client = client
        self.due_at: datetime | None = None
        self._office = office
        self._rooms = office.rooms
        self.box = Outbox(self._overflowed)
        self.who = _participant(self.box, connection.session)
        self._parting: tuple[Frame, Close] | None = None
        self._gone = False

    @property
    def is_open(self) -> bool:
        """Whether there is a socket."""
        return self.box.socket is not None

    # --- what the transport says ----------------------------------------------------------------------

    def opened(self, socket: Socket) -> None:
        """Greet; or part, if the session ended while the handshake was being answered."""
        if self._parting is not None:
            _part(socket, *self._parting)
            return
        self.box.socket = socket
        now = self._office.now()
        self.carry_out(self.connection.welcome(now), now)
        self._office.watch(self)

    def text(self, message: bytes) -> None:
        """Decide, and do."""
        office = self._office
        now = office.now()
        office.received(len(message))
        self.carry_out(self.connection.receive(message, now), now)

    def binary(self, message: bytes) -> None:  # noqa: ARG002  # whatever it is
        """Part: this protocol is text only."""
        self.end(ending(CloseReason.TEXT_ONLY))

    def writable(self) -> None:
        """Go on with what waits."""
        self._rooms.hub.writable(self.box)

    def closed(self, code: int) -> None:  # noqa: ARG002  # why makes no difference
        """Let everybody know."""
        self.connection.gone()
        self._rooms.hub.discard(self.box)
        self.box.socket = None
        self._depart(self._office.now())

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
                self._carry_out(effect, now)

    def carry_out_safely(self, decide: Callable[[datetime], Effects]) -> None:
        """
        Do what ``decide`` decides now. Should that fail, this peer is cut off, and no other notices.

        For whoever goes through many peers; a transport does the same for those that it calls.
        """
        now = self._office.now()
        socket = self.box.socket
        try:
            self.carry_out(decide(now), now)
        except Exception:  # noqa: BLE001  # whatever it is, the sockets behind this one must be closed
            _log.exception("peer_failed", session=self.who.session_id)
            self.closed(1006)
            if socket is not None:
                socket.abort()

    def resume(self) -> None:
        """Go on with the messages that waited for storage, as far as they need not wait again."""
        while self.connection.can_resume:
            self.carry_out_safely(self.connection.resume)

    def end(self, end: Close) -> None:
        """Part, for a reason that the client did not bring about."""
        self.carry_out_safely(lambda _: self.connection.close(end))

    def _carry_out(self, effect: Effect, now: datetime) -> None:
        match effect:
            case Join(id, document, since):
                subscribed = self._rooms.join(self.who, document, since, now)
                self._send(Send(MessageType.SUBSCRIBED, subscribed, id), now)
            case Leave():
                self._leave(effect, now)
            case Announce():
                self._announce(effect, now)
            case Touch():
                self._office.touch(self.who.session_id)
            case Authenticate() | Verify():
                self._office.ask(self, effect)
            case Rebind(former):
                self._rebind(former, now)
            case Close():
                self._close(effect, now)
            case Send() | Publish() | Point():  # pragma: no cover
                self.carry_out((effect,), now)

    def _send(self, send: Send, now: datetime) -> None:
        rooms = self._rooms
        rooms.hub.send(self.box, encode(send.id or rooms.new_id(), send.message_type, send.payload, now))

    def _publish(self, publish: Publish, now: datetime) -> None:
        id, document, message_type = publish.id, publish.document, publish.message_type
        position = self._rooms.publish(
            self.who, document, message_type, publish.payload, history=publish.history, now=now
        )
        if id is not None:
            self.connection.published(id, Published(message_type, document, position, now))
        self._send(acknowledgement(id, document, position), now)

    def _leave(self, leave: Leave, now: datetime) -> None:
        self._rooms.leave(self.who, leave.document, now)
        payload = {"document": leave.document, "error": leave.why.payload() if leave.why else None}
        self._send(Send(MessageType.UNSUBSCRIBED, payload, leave.id), now)

    def _announce(self, announce: Announce, now: datetime) -> None:
        if not self._rooms.announce(self.who, announce.document, announce.status, announce.payload, now):
            fault = Fault(ErrorCode.RATE_LIMITED, "there is no room for so much presence in this document")
            self._send(Send(MessageType.ERROR, fault.payload(), announce.id), now)

    def _rebind(self, former: Session, now: datetime) -> None:
        before, self.who = self.who, _participant(self.box, self.connection.session)
        self._rooms.change_hands(before, self.who, now)
        self.connection.take_over(self._office.rebound(self, former))

    # --- the end --------------------------------------------------------------------------------------

    def _overflowed(self) -> None:
        self.end(ending(CloseReason.TOO_SLOW))

    def _close(self, close: Close, now: datetime) -> None:
        hub = self._rooms.hub
        if close.flush:
            hub.flush_box(self.box)
        self._depart(now)
        hub.discard(self.box)
        farewell = encode(self._rooms.new_id(), close.farewell.message_type, close.farewell.payload, now)
        socket, self.box.socket = self.box.socket, None
        if socket is None:
            self._parting = farewell, close
        else:
            _part(socket, farewell, close)

    def _depart(self, now: datetime) -> None:
        if not self._gone:
            self._gone = True
            self._rooms.leave_all(self.who, now)
            self._office.departed(self)
            self.box.overflowed = _nobody  # or each would keep the other until the collector comes


def _nobody() -> None:
    """Whose outbox overflows when the peer is gone."""


def _part(socket: Socket, farewell: Frame, close: Close) -> None:
    socket.send([farewell])
    socket.close(close.code, close.reason)


def _participant(box: Outbox, session: Session) -> Participant:
    return Participant(box, session.id, encode_value(SessionInfo(session.id, session.user_id)))
