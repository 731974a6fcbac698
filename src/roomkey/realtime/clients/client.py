"""One client's socket and the session behind it: what is the same whatever protocol is spoken over it."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

import structlog

from roomkey.domain.session import Client, Session, SessionId
from roomkey.realtime.rooms.hub import Backlog, Hub, Outbox
from roomkey.realtime.rooms.rooms import participant
from roomkey.realtime.session.closing import closing
from roomkey.realtime.session.effects import Authenticate, Close, Effect, Rebind, Touch, Verify
from roomkey.realtime.session.guard import Effects, Watch
from roomkey.realtime.session.limits import SessionLimits
from roomkey.realtime.transport import Socket
from roomkey.wire.close import CloseCode, CloseReason
from roomkey.wire.frame import Frame

_log = structlog.get_logger("roomkey.realtime")


class ClientHost(Protocol):
    """What a peer leaves to others: all that waits, and all that concerns more than one connection."""

    def now(self) -> datetime:
        """What time it is."""
        ...

    def received(self, size: int) -> None:
        """A message came in."""
        ...

    def ask(self, client: "RealtimeClient[Any]", question: Authenticate | Verify) -> None:
        """Put a question to storage; its answer comes to ``client.connection`` later."""
        ...

    def touch(self, id: SessionId) -> None:
        """The user of the session was active."""
        ...

    def rebound(self, client: "RealtimeClient[Any]", former: Session) -> SessionLimits:
        """The peer belongs to another session than before; returns that one's ledger."""
        ...

    def watch(self, client: "RealtimeClient[Any]") -> None:
        """Look at the peer when its connection wants it."""
        ...

    def departed(self, client: "RealtimeClient[Any]") -> None:
        """The peer is no more. Called once."""
        ...

    def appeared(self, client: "RealtimeClient[Any]", document: str) -> None:
        """The peer edits a document now."""
        ...

    def disappeared(self, client: "RealtimeClient[Any]", document: str) -> None:
        """The peer edits it no more."""
        ...


W = TypeVar("W", bound=Watch)


class RealtimeClient(Generic[W]):
    """
    The ``Conversation`` of one socket, as far as it is about the session.

    Protocols say what is done with messages (``text``, ``binary``), with effects of their own (``_carry_out``),
    at the beginning (``_begin``) and at the end (``_farewell``, ``_leave``).
    """

    __slots__ = ("_gone", "_host", "_hub", "_parting", "box", "client", "connection", "due_at", "who")

    def __init__(
        self, connection: W, host: ClientHost, client: Client, *, hub: Hub, backlog: Backlog | None = None
    ) -> None:
        self.connection = connection
        self.client = client
        self.due_at: datetime | None = None
        self._host = host
        self._hub = hub
        self.box = Outbox(self._overflowed, backlog)
        self.who = participant(self.box, connection.session)
        self._parting: Close | None = None
        self._gone = False

    @property
    def is_open(self) -> bool:
        """Whether there is a socket."""
        return self.box.socket is not None

    # --- what the transport says ----------------------------------------------------------------------

    def opened(self, socket: Socket) -> None:
        """Greet; or part, if the session ended while the handshake was being answered."""
        now = self._host.now()
        if self._parting is not None:
            self._part(socket, self._parting, now)
            return
        self.box.socket = socket
        self._begin(now)
        self._host.watch(self)

    def text(self, message: bytes) -> None:
        """Take a text message."""
        raise NotImplementedError

    def binary(self, message: bytes) -> None:
        """Take a binary message."""
        raise NotImplementedError

    def writable(self) -> None:
        """Go on with what waits."""
        self._hub.writable(self.box)

    def closed(self, code: int) -> None:  # noqa: ARG002  # why makes no difference
        """Let everybody know."""
        self.connection.gone()
        self._hub.discard(self.box)
        self.box.socket = None
        self._depart(self._host.now())

    def documents(self) -> Sequence[str]:
        """The documents that it is in."""
        raise NotImplementedError

    # --- what protocols say ---------------------------------------------------------------------------

    def _begin(self, now: datetime) -> None:
        """The socket is open."""
        raise NotImplementedError

    def _carry_out(self, effect: Effect, now: datetime) -> None:
        """Do what only this protocol knows."""
        raise NotImplementedError

    def _rebind(self, former: Session, now: datetime) -> None:
        """The connection belongs to another session than before."""
        del now
        self.connection.take_over(self._host.rebound(self, former))

    def _farewell(self, close: Close, now: datetime) -> Sequence[Frame]:
        """The last messages, which say why."""
        raise NotImplementedError

    def _leave(self, now: datetime) -> None:
        """Be nowhere any more."""
        raise NotImplementedError

    # --- what the connection decides ------------------------------------------------------------------

    def carry_out(self, effects: Effects, now: datetime) -> None:
        """Do what was decided, in order."""
        for effect in effects:
            match effect:
                case Touch():
                    self._host.touch(self.connection.session.id)
                case Authenticate() | Verify():
                    self._host.ask(self, effect)
                case Rebind(former):
                    self._rebind(former, now)
                case Close():
                    self._close(effect, now)
                case _:
                    self._carry_out(effect, now)

    def carry_out_safely(self, decide: Callable[[datetime], Effects]) -> None:
        """
        Do what ``decide`` decides now. Should that fail, this peer is cut off, and no other notices.

        For whoever goes through many peers; a transport does the same for those that it calls.
        """
        now = self._host.now()
        socket = self.box.socket
        try:
            self.carry_out(decide(now), now)
        except Exception:  # noqa: BLE001  # whatever it is, the sockets behind this one must be closed
            _log.exception("peer_failed", session=self.connection.session.id)
            self.closed(CloseCode.NO_CLOSE)
            if socket is not None:
                socket.abort()

    def resume(self) -> None:
        """Go on with the messages that waited for storage, as far as they need not wait again."""
        while self.connection.can_resume:
            self.carry_out_safely(self.connection.resume)

    def end(self, end: Close) -> None:
        """Part, for a reason that the client did not bring about."""
        self.carry_out_safely(lambda _: self.connection.close(end))

    # --- the end --------------------------------------------------------------------------------------

    def _overflowed(self) -> None:
        self.end(closing(CloseReason.TOO_SLOW))

    def _close(self, close: Close, now: datetime) -> None:
        if close.flush:
            self._hub.flush_box(self.box)
        self._depart(now)
        self._hub.discard(self.box)
        socket, self.box.socket = self.box.socket, None
        if socket is None:
            self._parting = close
        else:
            self._part(socket, close, now)

    def _part(self, socket: Socket, close: Close, now: datetime) -> None:
        if frames := self._farewell(close, now):
            socket.send(frames)
        socket.close(close.code, close.reason)

    def _depart(self, now: datetime) -> None:
        if not self._gone:
            self._gone = True
            self._leave(now)
            self._host.departed(self)
            # Or each would keep the other until the collector comes.
            self.box.overflowed, self.box.backlog = _nobody, None


def _nobody() -> None:
    """Whose outbox overflows when the peer is gone."""
