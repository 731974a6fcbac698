"""
How a handshake is refused: in plain HTTP, or by a socket that is closed as soon as it is open.

Browsers hide the HTTP answer from their pages: all that these see is 1006, and their providers knock for ever. So a
page whose session or rights are not good enough is told so by the close code and the reason that an open socket would
have got. Nothing that it sends is read.
"""

from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Final

from roomkey import errors, problems
from roomkey.errors import RoomkeyError
from roomkey.ports import Clock, Counters, Rate
from roomkey.realtime.settings import RealtimeSettings, RefusalMode
from roomkey.realtime.transport import Accepted, Handshake, Refused, Socket
from roomkey.security.credentials import origin_allowed, select_subprotocol
from roomkey.security.networks import network_of
from roomkey.wire.close import CLOSE_CODES, STOCK_CLOSE_CODES, CloseCode, CloseReason, close_text
from roomkey.wire.frame import Frame

AT_ONCE: Final = Rate(per_second=1.0, burst=10)
"""
Sockets of one address that are closed at once. Further ones are held before: y-websocket before 3.1 comes back
after 100 ms whatever it is told.
"""


class Refusal(Exception):
    """
    A handshake is not welcome: what the client is told (RFC 9457), and the headers beside it.

    ``reason`` is set if it is because of its session or rights: then a page is told, too.
    """

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        detail: str,
        *headers: tuple[str, str],
        reason: CloseReason | None = None,
        cause: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.reason = reason
        self.text = close_text(reason or code, cause)
        self._problem = problems.plain_problem(status, code, detail)
        self._headers = headers

    @property
    def is_for_now(self) -> bool:
        """Whether the session may become usable again, so that the client should come back by itself."""
        return self.reason is not None and STOCK_CLOSE_CODES[self.reason] is CloseCode.ON_HOLD

    def answer(self) -> Refused:
        """The problem as the transport sends it."""
        headers = (("content-type", problems.MEDIA_TYPE), *self._headers)
        return Refused(status=self._problem.status, body=problems.encode(self._problem), headers=headers)


def refusal_of(error: RoomkeyError) -> Refusal:
    """The refusal that ``error`` amounts to."""
    problem, headers, reason = problems.at_handshake(error)
    cause = error.reason if isinstance(error, errors.SessionStopped) else None
    return Refusal(HTTPStatus(problem.status), problem.code, problem.detail, *headers, reason=reason, cause=cause)


def too_many(code: str, detail: str, *, wait: float = 1.0) -> Refusal:
    """A limit is exhausted; it has room again in ``wait`` seconds."""
    return Refusal(HTTPStatus.TOO_MANY_REQUESTS, code, detail, problems.retry_after(wait))


def unavailable(code: str, detail: str, *, reason: CloseReason | None = None) -> Refusal:
    """The node cannot admit a client now."""
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, code, detail, ("retry-after", "1"), reason=reason)


class RefusedConnection:
    """The ``Conversation`` of a socket that is told why it is closed: at once, or when ``part`` is called."""

    __slots__ = ("_code", "_greeting", "_is_held", "_refusals", "_socket", "_text")

    def __init__(
        self, refusals: "Refusals", code: CloseCode, text: str, *, is_held: bool, greeting: Sequence[Frame] = ()
    ) -> None:
        self._refusals = refusals
        self._code = code
        self._text = text
        self._greeting = greeting
        self._is_held = is_held
        self._socket: Socket | None = None

    def opened(self, socket: Socket) -> None:
        """Close, unless it is held."""
        self._socket = socket
        if self._is_held:
            socket.send(self._greeting)
        else:
            self.part()

    def part(self) -> bool:
        """Close; whether there was a socket."""
        socket = self._socket
        if socket is not None:
            socket.close(self._code, self._text)
        return socket is not None

    def text(self, message: bytes) -> None:
        """Read nothing."""

    def binary(self, message: bytes) -> None:
        """Read nothing."""

    def writable(self) -> None:
        """Nothing waits."""

    def too_big(self) -> None:
        """Read nothing."""

    def closed(self, code: int) -> None:  # noqa: ARG002  # why makes no difference
        """The socket is gone."""
        self._socket = None
        self._refusals.forget(self)


class Refusals:
    """The answers to refused handshakes of this node. ``tick`` must be called as long as there are sockets."""

    def __init__(self, settings: RealtimeSettings, clock: Clock, counters: Counters) -> None:
        self._settings = settings
        self._clock = clock
        self._counters = counters
        self._due: dict[RefusedConnection, datetime | None] = {}

    def __len__(self) -> int:
        """How many sockets are only there to be told why they are closed."""
        return len(self._due)

    async def answer(
        self, refusal: Refusal, handshake: Handshake, *, is_stock: bool, greeting: Sequence[Frame] = ()
    ) -> Accepted | Refused:
        """
        The answer to a handshake that is refused.

        Args:
            is_stock: Whether its client is one of those that go by the close code alone.
            greeting: What a client is sent that is held until it may come back.
        """
        reason = refusal.reason
        if reason is None or not self._is_told(handshake):
            return refusal.answer()
        comes_back = is_stock and refusal.is_for_now
        is_held = comes_back or await self._is_hasty(handshake)
        connection = RefusedConnection(
            self,
            (STOCK_CLOSE_CODES if is_stock else CLOSE_CODES)[reason],
            refusal.text,
            is_held=is_held,
            greeting=greeting if comes_back else (),
        )
        wait = self._settings.refusal_hold if is_held else self._settings.opening_timeout
        self._due[connection] = self._clock.now() + wait
        return Accepted(
            conversation=connection,
            subprotocol=select_subprotocol(handshake.subprotocols),
            # What is held may say something, which is discarded.
            max_message_bytes=self._settings.max_frame_bytes,
        )

    def _is_told(self, handshake: Handshake) -> bool:
        settings, origin = self._settings, handshake.headers.get("origin")
        if settings.refuse is RefusalMode.HTTP or len(self._due) >= settings.max_refused_sockets:
            return False
        if origin is None:
            return settings.refuse is RefusalMode.CLOSE
        allowed = settings.allowed_origins
        return not allowed or origin_allowed(origin, handshake.headers.get("host"), allowed)

    async def _is_hasty(self, handshake: Handshake) -> bool:
        """Whether the address was refused too often lately."""
        try:
            return await self._counters.take(f"refused {network_of(handshake.client_ip or '')}", AT_ONCE) > 0
        except RoomkeyError:
            return True

    def forget(self, connection: RefusedConnection) -> None:
        """The socket is gone."""
        self._due.pop(connection, None)

    def tick(self, now: datetime) -> None:
        """Close the sockets that were held for long enough, and forget those that never opened."""
        for connection in [connection for connection, due in self._due.items() if due is not None and now >= due]:
            if connection.part():
                self._due[connection] = None
            else:
                self.forget(connection)

    def drain(self) -> None:
        """Close every socket."""
        for connection in tuple(self._due):
            connection.part()
