"""picows as what it is best at: cutting frames out of a stream of bytes, in C and in place."""

import http
from collections.abc import Callable
from typing import Final, Protocol, cast

import structlog
from picows import WSAutoPingStrategy, WSListener
from picows.common import WSUpgradeResponseWithListener
from picows.picows import WSProtocol  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]  # not in its stubs

from roomkey.wire.close import Violation

log = structlog.get_logger()

_FIRST_BUFFER_BYTES: Final = 2048  # the least that picows takes; it doubles whenever a read fills it
_LARGE_BUFFER_BYTES: Final = 8 * 1024
_MAX_READ_BYTES: Final = 64 * 1024  # bounds that doubling, which would otherwise follow the kernel's buffer

# What picows wants to see before it reads frames. The client's own request was checked and answered elsewhere.
_REQUEST: Final = (
    b"GET / HTTP/1.1\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"\r\n"
)


class FrameParser:
    """
    The frames of one client, each given to ``listener.on_ws_frame`` when its last byte has come.

    Used as the buffer of an ``asyncio.BufferedProtocol``. Found out here: reserved opcodes, missing masks,
    lengths that are not minimal, control frames that are fragmented or too long, close codes out of range,
    data frames above ``max_frame_bytes`` (before they are buffered).

    Its buffer grows with what comes at once, and does not shrink: once it ``has_grown`` much, a new parser takes
    less. Between frames one is as good as the other.
    """

    __slots__ = ("_desk", "_get_buffer", "_update", "has_grown", "max_frame_bytes")

    def __init__(self, listener: WSListener, *, max_frame_bytes: int) -> None:
        self.max_frame_bytes = max_frame_bytes
        self.has_grown = False
        self._desk = _NullTransport()
        unsent = WSUpgradeResponseWithListener(_UNSENT, listener)  # pyright: ignore[reportArgumentType]
        protocol = cast("Callable[..., _Protocol]", WSProtocol)(
            host_port=None,
            ws_path=None,
            is_client_side=False,
            ws_listener_factory=lambda _request: unsent,  # pyright: ignore[reportUnknownLambdaType]
            logger=_SILENCE,
            disconnect_on_exception=True,
            websocket_handshake_timeout=None,
            enable_auto_ping=False,
            auto_ping_idle_timeout=None,
            auto_ping_reply_timeout=None,
            auto_ping_strategy=WSAutoPingStrategy.PING_WHEN_IDLE,
            enable_auto_pong=False,
            max_frame_size=max_frame_bytes,
            extra_headers=None,
            read_buffer_init_size=_FIRST_BUFFER_BYTES,
        )
        protocol.connection_made(self._desk)
        self._get_buffer = protocol.get_buffer
        self._update = protocol.buffer_updated
        self._get_buffer(-1)[: len(_REQUEST)] = _REQUEST
        self._update(len(_REQUEST))

    def get_buffer(self) -> memoryview:
        """Where the next bytes go. Not to be kept: parsing moves the memory."""
        buffer = self._get_buffer(-1)
        size = len(buffer)
        if size <= _LARGE_BUFFER_BYTES:
            return buffer
        self.has_grown = True
        return buffer if size <= _MAX_READ_BYTES else buffer[:_MAX_READ_BYTES]

    def parse(self, received: int) -> Violation | None:
        """
        Deliver the frames that are complete now that so many bytes were put into the buffer.

        Returns what was wrong behind the last of them. Nothing may be parsed after that.
        """
        self._update(received)
        return self._desk.violation


class _Protocol(Protocol):
    """What we use of picows' protocol object."""

    def connection_made(self, transport: object) -> None: ...
    def get_buffer(self, size_hint: int) -> memoryview: ...
    def buffer_updated(self, nbytes: int) -> None: ...


class _NullTransport:
    """
    What picows takes for the transport. It reads nothing and its writes end here.

    All that it ever writes is a 101 without a byte and, on a violation, a close frame. It sends that one before
    it delivers the frame that came before, and drops the connection after 10 ms; we do neither.
    """

    __slots__ = ("violation",)

    def __init__(self) -> None:
        self.violation: Violation | None = None

    def write(self, data: bytes) -> None:
        if data:
            self.violation = Violation(int.from_bytes(data[2:4], "big"), data[4:].decode())

    def get_write_buffer_size(self) -> int:
        return 1  # Not empty, or picows would write to the file descriptor, past everyone.

    def close(self) -> None:
        pass

    def get_extra_info(self, name: str) -> "_NullTransport | None":
        return self if name == "socket" else None

    def fileno(self) -> int:
        return -1

    def setsockopt(self, *_option: int) -> None:
        pass

    def getsockopt(self, *_option: int) -> int:
        return 0


class _Unsent:
    """The 101 that picows believes to send."""

    status = http.HTTPStatus.SWITCHING_PROTOCOLS

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}

    def to_bytes(self) -> bytearray:
        return bytearray()


class _Silence:
    """The logger that picows gets: of a real one it makes another for each connection, to say what we say ourselves."""

    def isEnabledFor(self, _level: int) -> bool:  # noqa: N802  # the name in the standard library
        return False

    def _ignore(self, *_arguments: object) -> None:
        pass

    debug = info = warning = error = _ignore

    def exception(self, *_arguments: object) -> None:
        """Not expected: what is caught here is a fault of ours or of picows."""
        log.exception("frame_parser_failed")  # noqa: LOG004  # picows calls it from its handlers


_UNSENT: Final = _Unsent()
_SILENCE: Final = _Silence()
