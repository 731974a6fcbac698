"""One client's socket and the session behind it: everything that all protocols have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Literal, Protocol

import structlog

from roomkey.domain.session import Client, Session, SessionId
from roomkey.ports import AccessDecisions
from roomkey.realtime.rooms.hub import Backlog, Hub, Outbox
from roomkey.realtime.rooms.rooms import Participant
from roomkey.realtime.session.closing import OVERSIZED, closing
from roomkey.realtime.session.effects import Authenticate, Close, Question, Touch, Verify
from roomkey.realtime.session.guard import GuardEffects, SessionGuard
from roomkey.realtime.session.limits import SessionLimits
from roomkey.realtime.transport import Handshake, Socket
from roomkey.security.injection import Suspicion
from roomkey.wire.close import CLOSE_CODES, CloseCode, CloseReason
from roomkey.wire.frame import Frame

_log = structlog.get_logger("roomkey.realtime")


ProtocolName = Literal["ws", "yjs", "hocuspocus"]
"""What protocols are called, by the address of their sockets."""


class ClientHost(Protocol):
    """What a client needs from the node: asynchronous work, and state that connections share."""

    hub: Hub
    decisions: AccessDecisions
    """What sessions may do in documents."""
    degraded: bool
    """Whether what clients say reaches others later than it should, because something that nodes share is away."""

    def now(self) -> datetime:
        """What time it is."""
        ...

    def participant(self, box: Outbox, session: Session) -> Participant:
        """The connection behind ``box`` as others see it."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` in the background. A failure is logged."""
        ...

    def ask(self, client: "RealtimeClient", question: Question) -> None:
        """Ask storage about a session; ``client.guard`` gets the answer later."""
        ...

    def touch(self, id: SessionId) -> None:
        """The user of the session was active."""
        ...

    def violated(self, id: SessionId, cause: str) -> None:
        """The session's holder has misbehaved."""
        ...

    def warning(self, id: SessionId, now: datetime) -> Mapping[str, Any] | None:
        """What clients of the session are warned of at this time."""
        ...

    def suspected(self, session: Session, what: Suspicion) -> None:
        """A client of the session sent text that looks like an attack."""
        ...

    def rebound(self, client: "RealtimeClient", former: Session) -> SessionLimits:
        """The client has changed from session ``former`` to its present one; returns the limits of that."""
        ...

    def watch(self, client: "RealtimeClient") -> None:
        """Check the client when its guard's next check is due."""
        ...

    def departed(self, client: "RealtimeClient") -> None:
        """The client is no more. Called once."""
        ...

    def joined(self, client: "RealtimeClient", document: str) -> None:
        """The client follows a document now."""
        ...

    def left(self, client: "RealtimeClient", document: str) -> None:
        """The client follows it no more."""
        ...

    def appeared(self, client: "RealtimeClient", document: str) -> None:
        """The client edits a document now."""
        ...

    def disappeared(self, client: "RealtimeClient", document: str) -> None:
        """The client edits it no more."""
        ...


class RealtimeClient(ABC):
    """The ``Conversation`` of one socket, as far as the session is concerned. ``guard`` decides, this carries out."""

    protocol: ClassVar[ProtocolName]
    """What the protocol is called."""

    codes: ClassVar[Mapping[CloseReason, CloseCode]] = CLOSE_CODES
    """The close codes of the protocol."""

    __slots__ = (
        "_gone",
        "_host",
        "_hub",
        "_parting",
        "box",
        "bytes_in",
        "device",
        "due_at",
        "entrance",
        "guard",
        "messages_in",
        "who",
    )

    def __init__(
        self, guard: SessionGuard, host: ClientHost, device: Client, *, backlog: Backlog | None = None
    ) -> None:
        self.guard = guard
        self.device = device
        self.due_at: datetime | None = None
        self.entrance: Handshake | None = None
        self.messages_in = 0
        self.bytes_in = 0
        self.box = Outbox(self._overflowed, backlog)
        self.who = host.participant(self.box, guard.session)
        self._host = host
        self._hub = host.hub
        self._parting: Close | None = None
        self._gone = False

    @property
    def is_open(self) -> bool:
        """Whether there is a socket."""
        return self.box.socket is not None

    # --- what the transport says ----------------------------------------------------------------------

    def opened(self, socket: Socket) -> None:
        """Greet the client; or close, if the session ended while the handshake was being answered."""
        now = self._host.now()
        if self._parting is not None:
            self._part(socket, self._parting, self._farewell(self._parting, now))
            return
        self.box.socket = socket
        self._begin(now)
        if not self.guard.is_over and (details := self._host.warning(self.guard.session.id, now)) is not None:
            self.warn(details, now)
        self._host.watch(self)

    @abstractmethod
    def text(self, message: bytes) -> None:
        """Take a text message."""

    @abstractmethod
    def binary(self, message: bytes) -> None:
        """Take a binary message."""

    def writable(self) -> None:
        """Go on with what waits."""
        self._hub.writable(self.box)

    def too_big(self) -> None:
        """Count it: clients are told how long messages may be."""
        self._host.violated(self.guard.session.id, OVERSIZED)

    def closed(self, code: int) -> None:  # noqa: ARG002  # why makes no difference
        """The socket is gone: leave every room and document."""
        self.guard.gone()
        self._hub.discard(self.box)
        self.box.socket = None
        self._depart(self._host.now())

    # --- what protocols say ---------------------------------------------------------------------------

    @abstractmethod
    def documents(self) -> Sequence[str]:
        """The documents that it is in."""

    @abstractmethod
    def put_out(self, document: str, reason: str | None) -> None:
        """Have the client leave a document because somebody wants that, and tell it so. It may come back."""

    @abstractmethod
    def warn(self, details: Mapping[str, Any], now: datetime) -> None:
        """Tell the client that violations of its session count, as far as the protocol can."""

    @abstractmethod
    def tell_service(self, now: datetime) -> None:
        """Tell the client whether the service is degraded, see ``ClientHost``, as far as the protocol can."""

    @abstractmethod
    def carry_out(self, effects: GuardEffects, now: datetime) -> None:
        """Do what the guard decided, in order."""

    @abstractmethod
    def _understand(self, message: bytes, now: datetime) -> None:
        """Process a message that had to wait."""

    @abstractmethod
    def _begin(self, now: datetime) -> None:
        """The socket is open."""

    @abstractmethod
    def _farewell(self, close: Close, now: datetime) -> Sequence[Frame]:
        """The last messages, which say why."""

    @abstractmethod
    def _leave(self, now: datetime) -> None:
        """Leave every room and document."""

    # --- what is decided ------------------------------------------------------------------------------

    def carry_out_safely(self, decide: Callable[[datetime], GuardEffects]) -> None:
        """
        Carry out what ``decide`` returns. If that fails, this client is disconnected, and no other is affected.

        For callers that loop over many clients; a transport does the same for the clients that it calls.
        """
        now = self._host.now()
        self._safely(lambda: self.carry_out(decide(now), now))

    def resume(self) -> None:
        """Process the messages that waited for storage, until one must wait again."""
        while self.guard.can_resume:
            now = self._host.now()
            self._safely(lambda now=now: self._understand(self.guard.resume(), now))

    def end(self, end: Close) -> None:
        """Close, for a reason that is not a message of the client."""
        self.carry_out_safely(lambda _: self.guard.close(end))

    def disconnect(self, reason: str | None) -> None:
        """Have the client leave everything because somebody wants that, and tell it so. It may come back."""
        self.end(closing(CloseReason.DISCONNECTED, cause=reason))

    def _safely(self, work: Callable[[], None]) -> None:
        socket = self.box.socket
        try:
            work()
        except Exception:  # noqa: BLE001  # whatever it is, the sockets behind this one must be closed
            self._fail(socket)

    def _fail(self, socket: Socket | None) -> None:
        _log.exception("client_failed", session=self.guard.session.id)
        self.closed(CloseCode.NO_CLOSE)
        if socket is not None:
            socket.abort()

    def _do(self, effect: Touch | Authenticate | Verify | Close, now: datetime) -> None:
        """Carry out an effect that all protocols share."""
        match effect:
            case Touch():
                self._host.touch(self.guard.session.id)
            case Authenticate() | Verify():
                self._host.ask(self, effect)
            case Close():
                self._close(effect, now)

    # --- the end --------------------------------------------------------------------------------------

    def _overflowed(self) -> None:
        self.end(closing(CloseReason.TOO_SLOW))

    def _close(self, close: Close, now: datetime) -> None:
        if close.is_violation:
            self._host.violated(self.guard.session.id, close.reason)
        if close.flush:
            self._hub.flush_box(self.box)
        frames = self._farewell(close, now)  # it may depend on where the client was
        self._depart(now)
        self._hub.discard(self.box)
        socket, self.box.socket = self.box.socket, None
        if socket is None:
            self._parting = close
        else:
            self._part(socket, close, frames)

    def _part(self, socket: Socket, close: Close, frames: Sequence[Frame]) -> None:
        if frames:
            socket.send(frames)
        socket.close(self.codes[close.reason], close.text)

    def _depart(self, now: datetime) -> None:
        if not self._gone:
            self._gone = True
            self._leave(now)
            self._host.departed(self)
            # Or each would keep the other until the collector comes.
            self.box.overflowed, self.box.backlog = _nothing, None


def _nothing() -> None:
    """Replaces the callback of an outbox so that no cycle of references is left."""
