"""A Hocuspocus socket before its first valid token."""

from collections.abc import Callable
from datetime import datetime
from typing import Final

from roomkey.documents.settings import DocumentSettings
from roomkey.realtime.clients.hocuspocus_client import HocuspocusClient
from roomkey.realtime.clients.pending import PendingMessages
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.realtime.transport import HIGH_WATER_BYTES, Socket
from roomkey.wire import lib0
from roomkey.wire.close import STOCK_CLOSE_CODES, CloseCode, CloseReason
from roomkey.wire.frame import Frame

MAX_REJECTIONS: Final = 10
"""Failed tokens allowed on an unauthenticated socket."""


class UnauthenticatedConnection:
    """
    The ``Conversation`` of a Hocuspocus client until a token has said whose it is; from then on it passes on
    what the transport says. ``ask`` has a token looked at, one at a time.
    """

    __slots__ = ("_ask", "_asking", "_client", "_closed", "_pending", "_rejections", "_socket")

    def __init__(
        self,
        settings: DocumentSettings,
        ask: Callable[["UnauthenticatedConnection", str, str], None],
        closed: Callable[["UnauthenticatedConnection"], None],
    ) -> None:
        self._ask = ask
        self._closed = closed
        self._pending = PendingMessages(settings)
        self._asking = False
        self._rejections = 0
        self._socket: Socket | None = None
        self._client: HocuspocusClient | None = None

    # --- what the transport says ----------------------------------------------------------------------

    def opened(self, socket: Socket) -> None:
        """Wait for a token."""
        self._socket = socket

    def text(self, message: bytes) -> None:
        """Close: this protocol is binary."""
        if self._client is not None:
            self._client.text(message)
        else:
            self.part(CloseReason.BINARY_ONLY)

    def binary(self, message: bytes) -> None:
        """Take a token from the message; every other message waits."""
        if self._client is not None:
            self._client.binary(message)
        elif self._socket is not None:
            self._take(message)

    def writable(self) -> None:
        """Go on."""
        if self._client is not None:
            self._client.writable()

    def too_big(self) -> None:
        """Pass it on to whoever it is."""
        if self._client is not None:
            self._client.too_big()

    def closed(self, code: int) -> None:
        """The socket is gone; pass that on."""
        self._socket = None
        self._closed(self)
        if self._client is not None:
            self._client.closed(code)

    # --- tokens ---------------------------------------------------------------------------------------

    def admitted(self, client: HocuspocusClient, address: str, now: datetime) -> None:
        """The token for ``address`` opened a session, to which everything that waits is handed on."""
        if self._socket is None:
            client.closed(CloseCode.NO_CLOSE)
            return
        self._client = client
        self._closed(self)
        client.opened(self._socket)
        client.admit(address, now)
        for frame in self._pending.take_all():
            client.binary(frame)

    def rejected(self, address: str, reason: str, *, is_for_now: bool = False) -> None:
        """
        The token for ``address`` opened nothing. The socket stays open; what waited for it is forgotten.

        ``is_for_now`` says that it may open something later, so that it was no failed attempt.
        """
        self._asking = False
        self._pending.drop(address)
        self._say(yjs.address(address) + yjs.permission_denied(reason))
        self._rejections += not is_for_now
        if self._rejections >= MAX_REJECTIONS:
            self.part(CloseReason.BAD_TOKENS)
            return
        for frame in self._pending.take_all():
            self._take(frame)

    def part(self, reason: CloseReason, text: str | None = None) -> None:
        """End the connection; ``text`` is what it is told, by default the reason."""
        socket, self._socket = self._socket, None
        self._pending.take_all()
        if socket is not None:
            socket.close(STOCK_CLOSE_CODES[reason], text or reason)

    def _take(self, frame: bytes) -> None:
        try:
            addressed = yjs.decode_addressed(frame)
        except lib0.Malformed:
            self.part(CloseReason.MALFORMED)
            return
        message = addressed.message
        if isinstance(message, yjs.Sign):
            if message.is_ping:
                self._say(yjs.PONG)
        elif isinstance(message, yjs.Token) and not self._asking:
            self._asking = True
            self._ask(self, addressed.address, message.token)
        elif not self._pending.put(addressed.address, frame):
            self.part(CloseReason.QUEUE_FULL)

    def _say(self, message: bytes) -> None:
        if self._socket is None:
            return
        self._socket.send([Frame(message, binary=True)])
        if self._socket.buffered() > HIGH_WATER_BYTES:
            self.part(CloseReason.TOO_SLOW)  # it is told next to nothing, and does not even read that
