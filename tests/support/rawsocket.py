"""A WebSocket client that can send anything, a server to send it to, and conversations that remember."""

import asyncio
import base64
import os
import struct
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple, cast

import uvicorn

from roomkey.realtime.transport import Accepted, Handshake, HandshakeHandler, Refused, Socket
from roomkey.testing.echo import PatientServer
from roomkey.transports import TransportSettings
from roomkey.transports.asgi import WebSocketEndpoint
from roomkey.transports.http import HttpProtocol
from roomkey.transports.picows import websocket_protocol
from roomkey.transports.proxies import TrustedProxies
from roomkey.wire.frame import Frame

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
TRANSPORTS = ("picows", "asgi")
DEFLATE = {"Sec-WebSocket-Extensions": "permessage-deflate; server_no_context_takeover; client_no_context_takeover"}


# --- frames ---------------------------------------------------------------------------------------------


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = b"\x12\x34\x56\x78",
    length: bytes | None = None,
) -> bytes:
    """A client's frame; ``length`` replaces the seven bits and what follows them."""
    size = len(payload)
    if length is None:
        if size < 126:
            length = bytes((size,))
        elif size < 65536:
            length = struct.pack("!BH", 126, size)
        else:
            length = struct.pack("!BQ", 127, size)
    head = bytes((fin << 7 | rsv << 4 | opcode, (mask is not None) << 7 | length[0])) + length[1:]
    if mask is None:
        return head + payload
    key = (mask * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
    return head + mask + masked.to_bytes(size, "big")


def close(code: int | None = None, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason)


def fragmented(opcode: int, *parts: bytes) -> bytes:
    """One message in as many frames as there are parts."""
    last = len(parts) - 1
    return b"".join(
        frame(CONTINUATION if index else opcode, part, fin=index == last) for index, part in enumerate(parts)
    )


def deflated(message: bytes) -> bytes:
    """The payload of a compressed frame."""
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def inflated(payload: bytes) -> bytes:
    return zlib.decompressobj(wbits=-15).decompress(payload + b"\x00\x00\xff\xff")


class Received(NamedTuple):
    opcode: int
    payload: bytes
    rsv: int = 0


# --- the client -----------------------------------------------------------------------------------------


class Response(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class RawClient:
    """A TCP connection on which one may speak HTTP and WebSocket, or anything else."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def read_nothing(self) -> None:
        """Let what the server sends pile up on its side, once the kernel's buffers are full."""
        cast("asyncio.Transport", self.writer.transport).pause_reading()

    def read_on(self) -> None:
        cast("asyncio.Transport", self.writer.transport).resume_reading()

    async def upgrade(
        self, path: str = "/", headers: Mapping[str, str | None] | None = None, *, body: bytes = b""
    ) -> Response:
        """Ask for a WebSocket; a header that is ``None`` is left out."""
        wanted: dict[str, str | None] = {
            "Host": "localhost",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            **(headers or {}),
        }
        lines = [f"{name}: {value}" for name, value in wanted.items() if value is not None]
        self.send("\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode("latin-1"), body)
        return await self.response()

    async def response(self) -> Response:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in head[1:-2]}
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Response(int(head[0].split(" ")[1]), headers, body)

    def send(self, *data: bytes) -> None:
        self.writer.write(b"".join(data))

    async def receive(self) -> Received | None:
        """The next frame, or ``None`` at the end of the connection."""
        try:
            first, second = await self.reader.readexactly(2)
            assert second < 0x80, "a server does not mask"
            assert first & 0x80, "a server does not fragment"
            if second == 126:
                second = int.from_bytes(await self.reader.readexactly(2), "big")
            elif second == 127:
                second = int.from_bytes(await self.reader.readexactly(8), "big")
            return Received(first & 0xF, await self.reader.readexactly(second), first >> 4 & 0x7)
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return None  # the connection ended between frames

    async def the_rest(self) -> list[Received]:
        """Everything up to the end of the connection."""
        frames: list[Received] = []
        while (received := await self.receive()) is not None:
            frames.append(received)
        return frames

    async def close_code(self) -> int | None:
        """
        The code of the close frame with which the connection ends, 1005 for an empty one, ``None`` for none.

        It is answered, as RFC 6455 (5.5.1) wants it: a server waits for that.
        """
        last: Received | None = None
        while (received := await self.receive()) is not None:
            last = received
            if received.opcode == CLOSE:
                self.send(frame(CLOSE, received.payload[:2]))
        if last is None or last.opcode != CLOSE:
            return None
        return int.from_bytes(last.payload[:2], "big") or 1005


@asynccontextmanager
async def connected(port: int) -> AsyncGenerator[RawClient, None]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=64 * 1024 * 1024)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def opened(port: int, headers: Mapping[str, str] | None = None) -> AsyncGenerator[RawClient, None]:
    async with connected(port) as client:
        response = await client.upgrade(headers=headers)
        assert response.status == 101, response
        yield client


# --- the server -----------------------------------------------------------------------------------------


class QuietServer(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@asynccontextmanager
async def serving(
    transport: str,
    handshakes: HandshakeHandler,
    settings: TransportSettings | None = None,
    proxies: TrustedProxies | None = None,
    **options: Any,
) -> AsyncGenerator[int, None]:
    """A server on a free port; leaving shuts it down in order, and fails if that takes long."""
    settings = settings or TransportSettings()
    own: dict[str, Any] = {
        "app": WebSocketEndpoint(handshakes, settings) if transport == "asgi" else hello,
        "ws": PatientServer if transport == "asgi" else websocket_protocol(handshakes, settings, proxies=proxies),
        "http": HttpProtocol,
        "port": 0,
        "lifespan": "off",
        "log_config": None,
        "access_log": False,  # as in production: what is logged goes uvicorn's way
    }
    config = uvicorn.Config(**{**own, **options})
    server = QuietServer(config)
    # Not in a group, which would cancel the server before it has shut down, and wrap what a test fails with.
    task = asyncio.get_running_loop().create_task(server.serve())
    try:
        await until(lambda: server.started or task.done())
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        async with asyncio.timeout(10):
            await task


async def hello(_scope: Any, receive: Any, send: Any) -> None:
    """An HTTP application that reads the body and says how long it was."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    body = str(size).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that happens on this loop."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # what is waited for does not know of us
            await asyncio.sleep(0.005)


# --- doors and conversations ----------------------------------------------------------------------------


class Conversation:
    """Remembers what it was told, and echoes unless asked not to."""

    def __init__(self, *, echo: bool = True) -> None:
        self.socket: Socket | None = None
        self.told: list[tuple[str, Any]] = []
        self._echo = echo

    @property
    def open_socket(self) -> Socket:
        assert self.socket is not None
        return self.socket

    @property
    def ended(self) -> list[int]:
        """The codes that ``closed`` was called with."""
        return [what for name, what in self.told if name == "closed"]

    def opened(self, socket: Socket) -> None:
        self.socket = socket
        self.told.append(("opened", None))

    def text(self, message: bytes) -> None:
        self.told.append(("text", message))
        if self._echo:
            self.open_socket.send([Frame(message)])

    def binary(self, message: bytes) -> None:
        self.told.append(("binary", message))
        if self._echo:
            self.open_socket.send([Frame(message, binary=True)])

    def writable(self) -> None:
        self.told.append(("writable", None))

    def too_big(self) -> None:
        self.told.append(("too big", None))

    def closed(self, code: int) -> None:
        self.told.append(("closed", code))


Answer = Accepted | Refused | Callable[[Handshake], Awaitable[Accepted | Refused]]


class Door:
    """
    A doorkeeper that lets everyone in to a conversation of its own, or answers as told.

    Of several answers each is given once, except the last one.
    """

    def __init__(
        self, *answers: Answer, limit: int = 1024 * 1024, conversation: Callable[[], Conversation] = Conversation
    ) -> None:
        self.handshakes: list[Handshake] = []
        self.conversations: list[Conversation] = []
        self._answers = list(answers)
        self._limit = limit
        self._conversation = conversation

    @property
    def conversation(self) -> Conversation:
        """The latest."""
        return self.conversations[-1]

    async def accept(self, handshake: Handshake) -> Accepted | Refused:
        self.handshakes.append(handshake)
        if self._answers:
            answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
            return answer if isinstance(answer, Accepted | Refused) else await answer(handshake)
        self.conversations.append(self._conversation())
        return Accepted(conversation=self.conversation, max_message_bytes=self._limit)
