"""
WebSockets on the port of uvicorn's HTTP: authenticated before the 101, then framed by picows.

uvicorn hands the connection of an upgrade request to a ``HandshakeProtocol``. It reads nothing more until the
handshake handler has decided, and then either answers in plain HTTP or makes a ``WebSocketConnection`` the protocol of
the connection. Everything that we send takes one way, the transport's buffer, and so stays in order.
"""

import asyncio
import enum
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, cast

import structlog
from msgspec import structs
from picows import WSFrame, WSListener, WSTransport
from uvicorn.config import Config
from uvicorn.server import ServerState

from roomkey.realtime.transport import HIGH_WATER_BYTES, Accepted, Conversation, Handshake, HandshakeHandler, Refused
from roomkey.security.certificates import peer_certificate
from roomkey.transports import DEFAULTS, TransportSettings
from roomkey.transports.deflate import negotiate
from roomkey.transports.framing import FrameParser
from roomkey.transports.handshake import Unacceptable, UpgradeRequest, accepted, read_request, refused
from roomkey.transports.handshake_gate import UNAVAILABLE, HandshakeGate
from roomkey.transports.messages import MessageAssembler, close_code
from roomkey.transports.proxies import TrustedProxies
from roomkey.transports.timers import TimerWheel
from roomkey.wire.close import CloseCode, Violation, close_payload
from roomkey.wire.frame import CLOSE, CONTINUATION, PING, PONG, Frame, header

log = structlog.get_logger()

_PING_FRAME: Final = header(PING, 0)

MAX_IDLE_FRAMES: Final = 1_000
"""
Frames between two looks at a connection, ``ping_interval`` at most, that say next to nothing. One read has room for ten
thousand, and they are no messages, for which sessions have budgets.
"""

_LEAST_FRAGMENT_BYTES: Final = 64
"""What a part of a message is at least that says something. The Autobahn suite sends megabytes in parts of 64 bytes."""


def websocket_protocol(
    handler: HandshakeHandler, settings: TransportSettings = DEFAULTS, *, proxies: TrustedProxies | None = None
) -> type[asyncio.Protocol]:
    """The class for ``uvicorn.Config(ws=...)``; sockets of one class share their timers and bounds."""
    context = ServerContext(handler, settings)
    return type("HandshakeProtocol", (HandshakeProtocol,), {"context": context, "proxies": proxies})


class ServerContext:
    """What all sockets of a server share."""

    def __init__(self, handler: HandshakeHandler, settings: TransportSettings) -> None:
        self.gate = HandshakeGate(handler, settings)
        self.compression = settings.compression
        self.ping_interval = settings.ping_interval.total_seconds()
        self.pong_timeout = settings.pong_timeout.total_seconds()
        self.close_timeout = settings.close_timeout.total_seconds()
        self.timers = TimerWheel(
            tick=min(self.pong_timeout, self.close_timeout) / 10,
            horizon=max(self.ping_interval, self.pong_timeout, self.close_timeout),
        )
        self.discarded = memoryview(bytearray(64 * 1024))
        """Shared buffer for input that is discarded."""
        self._first_pings = 0.0
        self._joined: dict[int, bytes] = {}
        self._joined_frames: Sequence[Frame] = ()

    def joined(self, frames: Sequence[Frame], window_bits: int) -> bytes:
        """
        The bytes of ``frames`` for a peer that inflates with ``window_bits``, 0 for one that does not.

        Members of a room that only listen get the very same tuple, one after the other.
        """
        if not isinstance(frames, tuple):
            return _join(frames, window_bits)
        if frames is not self._joined_frames:
            self._joined_frames, self._joined = frames, {}
        data = self._joined.get(window_bits)
        if data is None:
            data = self._joined[window_bits] = _join(frames, window_bits)
        return data

    def first_ping(self) -> float:
        """In how many seconds a new socket is pinged first: spread, so that a crowd is not pinged in one tick."""
        self._first_pings = (self._first_pings + 0.618) % 1
        return self.ping_interval * (0.5 + self._first_pings / 2)


def _join(frames: Sequence[Frame], window_bits: int) -> bytes:
    if window_bits:
        return b"".join([frame.deflated(window_bits) for frame in frames])
    return b"".join([frame.plain for frame in frames])


class HandshakeProtocol(asyncio.Protocol):
    """A connection between its upgrade request and our answer."""

    context: ClassVar[ServerContext]
    proxies: ClassVar[TrustedProxies | None] = None

    def __init__(
        self,
        config: Config,  # noqa: ARG002  # uvicorn passes it
        server_state: ServerState,
        app_state: dict[str, Any],  # noqa: ARG002  # uvicorn passes it
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._server = server_state
        self._task: asyncio.Task[None] | None = None
        self._transport = cast("asyncio.Transport", None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read nothing that the client might send before it was answered."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.pause_reading()
        self._server.connections.add(cast("Any", self))

    def data_received(self, data: bytes) -> None:
        """Take the head of the request, which uvicorn hands over whole, and nothing else."""
        if self._task is not None:
            return
        # Not in a group: uvicorn waits for these tasks when it shuts down, as it does for its own.
        self._task = asyncio.get_running_loop().create_task(self._decide(data))
        self._server.tasks.add(self._task)
        self._task.add_done_callback(self._server.tasks.discard)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Stop asking the handshake handler."""
        self._leave()

    def shutdown(self) -> None:
        """Called by uvicorn when it stops."""
        self._refuse(UNAVAILABLE)
        self._leave()

    def _leave(self) -> None:
        self._server.connections.discard(cast("Any", self))
        if self._task is not None:
            self._task.cancel()

    async def _decide(self, head: bytes) -> None:
        try:
            await self._answer(head)
        except Unacceptable as error:
            self._refuse(error.refusal)
        except Exception:
            log.exception("handshake_failed")
            self._transport.abort()  # nothing else would close it: it is not even read from

    async def _answer(self, head: bytes) -> None:
        request = read_request(head, client_ip=self._peer_address(), secure=self._is_secure())
        answer = await self.context.gate.ask(self._with_client(request.handshake))
        if isinstance(answer, Refused):
            self._refuse(answer)
        else:
            self._open(request, answer)

    def _peer_address(self) -> str | None:
        peer: object = self._transport.get_extra_info("peername")  # a path, perhaps empty, on a Unix socket
        return str(cast("Sequence[object]", peer)[0]) if isinstance(peer, tuple) else None

    def _is_secure(self) -> bool:
        return self._transport.get_extra_info("sslcontext") is not None

    def _with_client(self, handshake: Handshake) -> Handshake:
        """The handshake as that of the client behind proxies, and with the certificate of the connection."""
        certificate = peer_certificate(self._transport.get_extra_info("ssl_object"))
        if certificate is not None:
            handshake = structs.replace(handshake, certificate=certificate)
        if self.proxies is None:
            return handshake
        # Values of a header that came several times are joined in their order.
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in handshake.headers.items()]
        scheme = "https" if handshake.secure else "http"
        client, scheme = self.proxies.client(handshake.client_ip, scheme, headers)
        return structs.replace(handshake, client_ip=client, secure=scheme == "https")

    def _refuse(self, answer: Refused) -> None:
        if self._transport.is_closing():
            return
        try:
            response = refused(answer)
        except ValueError:
            log.exception("refusal_unsendable")
            response = refused(UNAVAILABLE)
        self._transport.write(response)
        self._transport.close()

    def _open(self, request: UpgradeRequest, answer: Accepted) -> None:
        agreed = negotiate(request.extensions) if self.context.compression else None
        try:
            response = accepted(
                request,
                subprotocol=answer.subprotocol,
                extensions=agreed and agreed.response,
                headers=answer.headers,
            )
        except ValueError:
            log.exception("acceptance_unsendable")
            self._refuse(UNAVAILABLE)
            answer.conversation.closed(CloseCode.NO_CLOSE)
            return
        socket = WebSocketConnection(
            self._transport,
            self._server.connections,
            answer,
            context=self.context,
            window_bits=agreed.window_bits if agreed else 0,
        )
        self._server.connections.discard(cast("Any", self))
        socket.begin(response)


class _Phase(enum.Enum):
    OPEN = enum.auto()
    CLOSING = enum.auto()
    """Our close frame is sent, the peer's is awaited."""
    OVER = enum.auto()
    """Nothing more is said. What still comes is discarded."""


_OPEN, _CLOSING, _OVER = _Phase


class WebSocketConnection(WSListener, asyncio.BufferedProtocol):
    """A connection after its 101: the ``Socket`` of a conversation, and the protocol of a transport."""

    __slots__ = (
        "_assembler",
        "_awaiting_pong",
        "_connections",
        "_context",
        "_conversation",
        "_heard",
        "_idle_frames",
        "_parser",
        "_phase",
        "_pong",
        "_stuck",
        "_tail",
        "_transport",
        "_window_bits",
        "_write",
        "slot",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        connections: set[Any],
        accepted: Accepted,
        *,
        context: ServerContext,
        window_bits: int,
    ) -> None:
        """``window_bits`` is what was agreed on for permessage-deflate, or 0."""
        limit = accepted.max_message_bytes
        self._transport = transport
        self._write: Callable[[bytes], None] = transport.write
        self._connections = connections
        self._conversation: Conversation | None = accepted.conversation
        self._context = context
        self._window_bits = window_bits
        self._assembler = MessageAssembler(limit, compression=window_bits > 0)
        # What cannot be compressed grows by five bytes in 16 KiB when it is (RFC 7692, 8.1; RFC 1951, 3.2.4).
        self._parser = FrameParser(self, max_frame_bytes=limit + limit // 1000 + 64 if window_bits else limit)
        self._phase = _OPEN
        self._heard = False
        self._idle_frames = 0
        self._awaiting_pong = False
        self._stuck = False
        self._tail = 0
        self._pong: bytes | None = None
        self.slot = -1

    def begin(self, response: bytes) -> None:
        """Send the 101, take the connection over and start the conversation."""
        transport = self._transport
        transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        transport.set_protocol(self)
        self._connections.add(self)
        self._context.timers.start(self, self._context.first_ping())
        transport.write(response)
        self._tell(lambda conversation: conversation.opened(self))
        transport.resume_reading()

    # --- for the conversation -----------------------------------------------------------------------------

    def send(self, frames: Sequence[Frame]) -> None:
        """Write whole messages; they leave with everything else that is written in this turn of the loop."""
        if self._phase is _OPEN:
            self._write(self._context.joined(frames, self._window_bits))

    def buffered(self) -> int:
        """Bytes that the operating system has not taken yet."""
        return 0 if self._phase is _OVER else self._transport.get_write_buffer_size()

    def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake. The peer has ``close_timeout`` to answer."""
        if self._phase is not _OPEN:
            return
        self._write_close(close_payload(code, reason))
        self._phase = _CLOSING
        self._context.timers.start(self, self._context.close_timeout)

    def abort(self) -> None:
        """Drop the connection."""
        self._phase = _OVER
        self._transport.abort()

    # --- for the transport --------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # uvloop and asyncio have nothing to say with it
        """Where to put what is read next."""
        return self._context.discarded if self._phase is _OVER else self._parser.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Handle what was read."""
        self._heard = True
        if self._phase is _OVER:
            return
        self._tail = nbytes  # of an unfinished frame, unless one that is complete says otherwise
        violation = self._parser.parse(nbytes)
        if violation is not None:
            self._fail(violation)

    def eof_received(self) -> bool:
        """Let the transport close: a WebSocket is never half open."""
        return False

    def pause_writing(self) -> None:
        """Answer no more pings: a peer that does not read its pongs would fill our memory with them."""
        self._stuck = True

    def resume_writing(self) -> None:
        """Go on."""
        self._stuck = False
        if self._phase is not _OPEN:
            return
        if self._pong is not None:
            self._answer_ping(self._pong)
            self._pong = None
        self._tell(lambda conversation: conversation.writable())

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # why makes no difference
        """End."""
        self._phase = _OVER
        self._connections.discard(self)
        self._context.timers.stop(self)
        del self._parser  # it holds us as we hold it
        self._end(CloseCode.NO_CLOSE)

    def shutdown(self) -> None:
        """Called by uvicorn when it stops, for sockets that were not drained."""
        self.close(CloseCode.RESTART, "shutdown")

    def due(self) -> None:
        """A deadline in the timer wheel has passed."""
        self._idle_frames = 0
        if self._phase is not _OPEN:
            self.abort()
        elif not self._awaiting_pong:
            self._heard = False
            self._awaiting_pong = True
            self._write(_PING_FRAME)
            if self._parser.has_grown and not self._tail:
                self._parser = FrameParser(self, max_frame_bytes=self._parser.max_frame_bytes)
            self._context.timers.start(self, self._context.pong_timeout)
        elif self._heard:
            self._awaiting_pong = False
            self._context.timers.start(self, self._context.ping_interval - self._context.pong_timeout)
        else:
            self.abort()

    # --- for the parser -----------------------------------------------------------------------------------

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:  # noqa: ARG002  # not the transport it sends on
        """Handle a frame that is well formed in itself."""
        if self._phase is _OVER:
            return
        self._tail = frame.tail_size
        opcode = cast("int", frame.msg_type)
        try:
            if opcode >= CLOSE:
                self._control(opcode, frame)
            elif self._phase is _OPEN:
                self._data(opcode, frame)
        except Violation as violation:
            self._fail(violation)

    def _data(self, opcode: int, frame: WSFrame) -> None:
        if frame.rsv2 or frame.rsv3:
            raise Violation(CloseCode.PROTOCOL_ERROR, "RSV2 or RSV3 without an extension")
        payload = frame.get_payload_as_bytes()
        if len(payload) < _LEAST_FRAGMENT_BYTES and not (frame.fin and opcode != CONTINUATION):
            self._count_idle_frame()
        message = self._assembler.receive(opcode, payload, final=frame.fin, rsv1=frame.rsv1)
        conversation = self._conversation
        if message is None or conversation is None:
            return
        try:
            if self._assembler.binary:
                conversation.binary(message)
            else:
                conversation.text(message)
        except Exception:
            log.exception("conversation_failed")
            self.close(CloseCode.INTERNAL_ERROR)

    def _control(self, opcode: int, frame: WSFrame) -> None:
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            raise Violation(CloseCode.PROTOCOL_ERROR, "RSV bits on a control frame")  # RFC 7692, 6.1
        self._count_idle_frame()
        payload = frame.get_payload_as_bytes()
        if opcode == PING:
            self._answer_ping(payload)
        elif opcode == CLOSE:
            code = close_code(payload)
            if self._phase is _OPEN:
                self._write_close(b"" if code == CloseCode.NO_CODE else close_payload(code, ""))
            self._finish(code)
        # An unsolicited pong is a sign of life and nothing else (RFC 6455, 5.5.3).

    def _count_idle_frame(self) -> None:
        self._idle_frames += 1
        if self._idle_frames > MAX_IDLE_FRAMES:
            raise Violation(CloseCode.POLICY, "too many frames that say nothing")

    def _answer_ping(self, payload: bytes) -> None:
        if self._phase is not _OPEN:
            return
        if self._stuck:
            self._pong = payload  # RFC 6455, 5.5.3: it is enough to answer the latest
        else:
            self._write(header(PONG, len(payload)) + payload)

    def _tell(self, call: Callable[[Conversation], None]) -> None:
        conversation = self._conversation
        if conversation is None:
            return
        try:
            call(conversation)
        except Exception:
            log.exception("conversation_failed")
            self.close(CloseCode.INTERNAL_ERROR)

    # --- ends ---------------------------------------------------------------------------------------------

    def _write_close(self, payload: bytes) -> None:
        self._write(header(CLOSE, len(payload)) + payload)

    def _fail(self, violation: Violation) -> None:
        if self._phase is _OPEN:
            self._write_close(close_payload(violation.code, violation.reason))
        if self._phase is not _OVER:
            if violation.code == CloseCode.TOO_BIG:
                self._tell(lambda conversation: conversation.too_big())
            self._finish(CloseCode.NO_CLOSE)

    def _finish(self, code: int) -> None:
        """
        Hang up, and let the peer hang up too.

        Only our direction is closed at first: a connection that is closed with unread bytes in it is reset,
        and the reset would overtake the close frame.
        """
        self._phase = _OVER
        self._context.timers.start(self, self._context.close_timeout)
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()
        else:
            self._transport.close()
        self._end(code)

    def _end(self, code: int) -> None:
        conversation, self._conversation = self._conversation, None
        if conversation is None:
            return
        try:
            conversation.closed(code)
        except Exception:
            log.exception("conversation_failed")
