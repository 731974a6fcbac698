"""An echo on each transport, for WebSocket conformance suites: ``python -m roomkey.testing.echo --help``."""

import argparse
import contextlib
import signal
import socket
from collections.abc import Generator, Sequence
from typing import Any

import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame as WebSocketsFrame
from websockets.frames import Opcode
from websockets.server import ServerProtocol

from roomkey.realtime.transport import Accepted, Handshake
from roomkey.realtime.transport import Socket as Connection
from roomkey.transports.asgi import WebSocketEndpoint
from roomkey.transports.http import HttpProtocol
from roomkey.transports.picows import websocket_protocol
from roomkey.wire.frame import Frame

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
MAX_BUFFERED_BYTES = 4 * MAX_MESSAGE_BYTES
"""A client that sends and never reads is dropped here; conversations have to bound what they send."""


class Echo:
    """A conversation that says what it hears."""

    def opened(self, socket: Connection) -> None:
        """Keep the socket."""
        self._socket = socket

    def text(self, message: bytes) -> None:
        """Say it as text."""
        self._say(Frame(message))

    def binary(self, message: bytes) -> None:
        """Say it as bytes."""
        self._say(Frame(message, binary=True))

    def _say(self, frame: Frame) -> None:
        if self._socket.buffered() > MAX_BUFFERED_BYTES:
            self._socket.abort()
        else:
            self._socket.send([frame])

    def writable(self) -> None:
        """Nothing waits for it."""

    def too_big(self) -> None:
        """Nobody minds."""

    def closed(self, code: int) -> None:
        """Nothing is left."""


class OpenHouse:
    """A handshake handler that lets everyone in, on any path."""

    async def accept(self, handshake: Handshake) -> Accepted:  # noqa: ARG002  # whoever it is
        """Start an echo."""
        return Accepted(conversation=Echo(), max_message_bytes=MAX_MESSAGE_BYTES)


class PatientProtocol(ServerProtocol):
    """
    ``websockets`` where a client may close in the middle of a fragmented message, echoing its code.

    Control frames may be injected there (RFC 6455, 5.4), and the conformance suites expect no 1002 for it.
    """

    def recv_frame(self, frame: WebSocketsFrame) -> None:
        """Forget the unfinished message: nothing of it will come."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)


class PatientServer(WebSocketsSansIOProtocol):
    """uvicorn's default WebSockets around a ``PatientProtocol``."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.conn = PatientProtocol(
            extensions=self.conn.available_extensions, max_size=self.config.ws_max_size, logger=self.conn.logger
        )


def configuration(transport: str, host: str, port: int) -> uvicorn.Config:
    """A uvicorn that serves the echo on ``transport``."""
    return uvicorn.Config(
        WebSocketEndpoint(OpenHouse()) if transport == "asgi" else _nothing_here,
        host=host,
        port=port,
        http=HttpProtocol,
        ws=PatientServer if transport == "asgi" else websocket_protocol(OpenHouse()),
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=True,
        ws_ping_interval=25,
        ws_ping_timeout=10,
        lifespan="off",
        log_level="warning",
        timeout_graceful_shutdown=5,
    )


async def _nothing_here(scope: Any, _receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


class EchoServer(uvicorn.Server):
    """A uvicorn that says where it listens, and whose end by a signal is a success."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        if self.started:
            host, port, *_ = self.servers[0].sockets[0].getsockname()
            print(f"listening on ws://{host}:{port}", flush=True)  # noqa: T201  # the whole output of the command

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Stop on signals, and do not raise them again at the end as uvicorn does."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m roomkey.testing.echo", description="A WebSocket echo.")
    parser.add_argument("--transport", choices=["picows", "asgi"], default="picows")
    parser.add_argument("--port", type=int, required=True, help="0 for any free port")
    parser.add_argument("--host", default="127.0.0.1")
    chosen = parser.parse_args(arguments)
    EchoServer(configuration(chosen.transport, chosen.host, chosen.port)).run()


if __name__ == "__main__":
    main()
