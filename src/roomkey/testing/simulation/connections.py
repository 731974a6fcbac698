"""A socket between a simulated client and a node: frames take their time, in order, until one side is gone."""

from collections.abc import Sequence
from typing import Protocol

from roomkey.realtime.transport import HIGH_WATER_BYTES, Conversation
from roomkey.testing.simulation.network import TINY_SECONDS, Way
from roomkey.testing.simulation.nodes import Services
from roomkey.wire.close import CloseCode
from roomkey.wire.frame import Frame


class Reader(Protocol):
    """The client's end."""

    def hear(self, connection: "Connection", message: bytes) -> None:
        """A message has come."""
        ...

    def closed(self, connection: "Connection", code: int) -> None:
        """The server has closed the connection, or it broke."""
        ...


class Watch(Protocol):
    """Who writes down what happens to connections."""

    def ended(self, connection: "Connection", code: int) -> None:
        """Nothing that the client says is heard any more."""
        ...

    def broke(self, connection: "Connection", error: Exception) -> None:
        """The conversation has raised what it must not."""
        ...


class Connection:
    """One WebSocket: for the server a ``Socket``, and its transport; for the client what it speaks into."""

    def __init__(self, name: str, services: Services, way: Way, reader: Reader, watch: Watch) -> None:
        self.name = name
        self.services = services
        self._way = way
        self._loop = way.loop
        self._reader = reader
        self._watch = watch
        self._conversation: Conversation | None = None
        self._last_up = 0.0
        self._last_down = 0.0
        self._unread: list[bytes] = []
        self._unread_bytes = 0
        self.is_stalled = False
        """Whether the client reads nothing."""
        self.is_heard = False
        """Whether the server listens."""
        self.is_open = True
        """Whether the client believes so."""

    def open(self, conversation: Conversation) -> None:
        """The handshake was accepted."""
        self._conversation = conversation
        self.is_heard = True
        self._tell(lambda: conversation.opened(self))

    # --- the server's end -----------------------------------------------------------------------------

    def send(self, frames: Sequence[Frame]) -> None:
        """As ``Socket.send``."""
        if not self.is_heard or self.services.store_link.is_dead:
            return
        for frame in frames:
            if self.is_stalled:
                self._unread_bytes += frame.size
                self._unread.append(frame.payload)
            else:
                self._down(frame.payload)

    def _down(self, message: bytes) -> None:
        self._last_down = max(self._loop.time() + self._way.delay(), self._last_down + TINY_SECONDS)
        self._loop.ring(self._last_down, self._arrived, message)

    def _arrived(self, message: bytes) -> None:
        if self.is_open:
            self._reader.hear(self, message)

    def buffered(self) -> int:
        """As ``Socket.buffered``."""
        return self._unread_bytes

    def close(self, code: int, reason: str = "") -> None:
        """As ``Socket.close``."""
        del reason
        if not self.is_heard:
            return
        self._ended(code)
        self._loop.ring(max(self._loop.time() + self._way.delay(), self._last_down + TINY_SECONDS), self._hang_up, code)
        self._loop.call_soon(self._gone, CloseCode.NO_CODE)

    def abort(self) -> None:
        """As ``Socket.abort``."""
        self.close(CloseCode.NO_CLOSE)

    def _ended(self, code: int) -> None:
        if self.is_heard:
            self.is_heard = False
            self._watch.ended(self, int(code))

    def _gone(self, code: int) -> None:
        conversation, self._conversation = self._conversation, None
        if conversation is not None and not self.services.store_link.is_dead:
            self._tell(lambda: conversation.closed(code))

    def _hang_up(self, code: int) -> None:
        if self.is_open:
            self.is_open = False
            self._reader.closed(self, int(code))

    # --- the client's end -----------------------------------------------------------------------------

    def say(self, message: bytes, *, binary: bool) -> None:
        """Send a message."""
        self._last_up = max(self._loop.time() + self._way.delay(), self._last_up + TINY_SECONDS)
        self._loop.ring(self._last_up, self._heard, message, binary)

    def _heard(self, message: bytes, binary: bool) -> None:  # noqa: FBT001  # called by the loop
        conversation = self._conversation
        if conversation is not None and self.is_heard and not self.services.store_link.is_dead:
            self._tell(lambda: conversation.binary(message) if binary else conversation.text(message))

    def stall(self) -> None:
        """Read nothing more."""
        self.is_stalled = True

    def go_on_reading(self) -> None:
        """Read what has come meanwhile, and go on."""
        self.is_stalled = False
        was_full = self._unread_bytes > HIGH_WATER_BYTES
        unread, self._unread, self._unread_bytes = self._unread, [], 0
        for message in unread:
            self._down(message)
        if was_full and self._conversation is not None and self.is_heard:
            self._tell(self._conversation.writable)

    def leave(self) -> None:
        """Close as a client does that is done; what it has said arrives before."""
        self.is_open = False
        self._last_up = max(self._loop.time() + self._way.delay(), self._last_up + TINY_SECONDS)
        self._loop.ring(self._last_up, self._lost, CloseCode.NORMAL)

    def cut(self, *, noticed_after: float) -> None:
        """Lose the connection with everything that is on its way; the server notices later."""
        self.is_open = False
        self._last_up = self._loop.time() + noticed_after
        conversation = self._conversation
        self._ended(CloseCode.NO_CLOSE)  # nothing more comes from there
        self._conversation = conversation
        self._loop.ring(self._last_up, self._gone, CloseCode.NO_CLOSE)

    def _lost(self, code: int) -> None:
        self._ended(code)
        self._gone(code)

    def node_died(self) -> None:
        """The process at the other end was killed."""
        self._ended(CloseCode.NO_CLOSE)
        self._conversation = None
        self._loop.ring(self._loop.time() + self._way.delay(), self._hang_up, CloseCode.NO_CLOSE)

    def _tell(self, tell: "Tell") -> None:
        try:
            tell()
        except Exception as error:  # noqa: BLE001  # as a transport does: this socket closes, and no other
            self._watch.broke(self, error)
            self.close(CloseCode.INTERNAL_ERROR)


class Tell(Protocol):
    """Something that is said to a conversation."""

    def __call__(self) -> None:
        """Say it."""
        ...
