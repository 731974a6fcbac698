"""
WebSockets inside any ASGI application: the server below does the framing, this gives it to a conversation.

What RFC 6455 demands of frames, and pings, are the server's business here.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import structlog

from roomkey.realtime.transport import HIGH_WATER_BYTES, Accepted, Conversation, Handshake, HandshakeHandler, Refused
from roomkey.security.certificates import EXTENSION
from roomkey.transports import COUNTED, DEFAULTS, TransportSettings
from roomkey.transports.handshake import Unacceptable, describe
from roomkey.transports.handshake_gate import HandshakeGate
from roomkey.wire.close import CloseCode, close_payload
from roomkey.wire.frame import Frame

log = structlog.get_logger()

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_LOW_WATER_BYTES: Final = HIGH_WATER_BYTES // 4


class WebSocketEndpoint:
    """An ASGI application for ``scope["type"] == "websocket"``."""

    def __init__(self, handler: HandshakeHandler, settings: TransportSettings = DEFAULTS) -> None:
        self._gate = HandshakeGate(handler, settings)
        self._close_timeout = settings.close_timeout.total_seconds()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection to its end."""
        if (waive := scope.get(COUNTED)) is not None:
            waive()
        await receive()  # websocket.connect
        try:
            handshake = _describe(scope)
        except Unacceptable as error:
            await _refuse(scope, send, error.refusal)
            return
        answer = await self._gate.ask(handshake)
        if isinstance(answer, Refused):
            await _refuse(scope, send, answer)
            return
        socket = AsgiSocket(answer, close_timeout=self._close_timeout)
        await socket.run(receive, send)


def _describe(scope: Message) -> Handshake:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    # The path below the place where we are mounted, like a route of the application sees it.
    root: str = scope.get("root_path", "")
    raw_path = (scope.get("raw_path") or quote(scope["path"]).encode()).decode("latin-1")
    client = scope.get("client")
    extensions: MutableMapping[str, Any] = scope.get("extensions") or {}
    return describe(
        (raw_path.removeprefix(quote(root)) or "/") + "?" + scope.get("query_string", b"").decode("latin-1"),
        headers,
        subprotocols=scope.get("subprotocols", ()),
        client_ip=client[0] if client else None,
        secure=scope.get("scheme") == "wss",
        certificate=extensions.get(EXTENSION),
    )


async def _refuse(scope: Message, send: Send, answer: Refused) -> None:
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close"})  # The server makes a 403 of it, without a body.
        return
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "websocket.http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": answer.body})


class AsgiSocket:
    """An accepted connection: the ``Socket`` of a conversation, between the server's ``receive`` and ``send``."""

    def __init__(self, accepted: Accepted, *, close_timeout: float) -> None:
        self._accepted = accepted
        self._conversation: Conversation = accepted.conversation
        self._limit = accepted.max_message_bytes
        self._close_timeout = close_timeout
        self._outbox: deque[Frame] = deque()
        self._buffered = 0
        self._full = False
        self._wake = asyncio.Event()
        self._open = True
        self._closing: tuple[int, str] | None = None
        self._deadline = asyncio.timeout(None)

    async def run(self, receive: Receive, send: Send) -> None:
        """Carry the conversation until the connection is gone."""
        code = CloseCode.NO_CLOSE
        try:
            async with asyncio.TaskGroup() as tasks, self._deadline:
                await send(_acceptance(self._accepted))
                writer = tasks.create_task(self._write_all(send))
                self._tell(lambda conversation: conversation.opened(self))
                code = await self._read_all(receive)
                writer.cancel()
        except* OSError:
            # A TimeoutError, which is one too, comes from the deadline that close and abort set; any other one
            # from a server whose peer is gone.
            pass
        finally:
            self._open = False
            self._tell(lambda conversation: conversation.closed(code))

    # --- for the conversation -----------------------------------------------------------------------------

    def send(self, frames: Sequence[Frame]) -> None:
        """Queue whole messages; the conversation is the one who bounds the queue, by ``buffered``."""
        if not self._open:
            return
        self._outbox.extend(frames)
        self._buffered += sum(frame.size for frame in frames)
        self._full = self._full or self._buffered > HIGH_WATER_BYTES
        self._wake.set()

    def buffered(self) -> int:
        """Bytes that the server has not taken yet. What it keeps itself is not known."""
        return self._buffered

    def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake behind what was sent."""
        if not self._open:
            return
        self._open = False
        self._closing = code, close_payload(code, reason)[2:].decode()
        self._wake.set()
        self._leave_within(self._close_timeout)

    def abort(self) -> None:
        """Return from the application, which makes the server drop the connection."""
        self._open = False
        self._closing = None
        self._outbox.clear()
        self._buffered = 0
        self._leave_within(0)

    def _leave_within(self, delay: float) -> None:
        if not self._deadline.expired():
            self._deadline.reschedule(asyncio.get_running_loop().time() + delay)

    # --- for the server -----------------------------------------------------------------------------------

    async def _read_all(self, receive: Receive) -> int:
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return message.get("code") or CloseCode.NO_CODE
            if not self._open:
                continue  # nothing is delivered after close
            text: str | None = message.get("text")
            data: bytes = message["bytes"] if text is None else text.encode()
            if len(data) > self._limit:
                self._tell(lambda conversation: conversation.too_big())
                self.close(CloseCode.TOO_BIG, "message too big")
            elif text is None:
                self._tell(lambda conversation, data=data: conversation.binary(data))
            else:
                self._tell(lambda conversation, data=data: conversation.text(data))

    async def _write_all(self, send: Send) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._outbox:
                    frame = self._outbox.popleft()
                    await send(_sent(frame))
                    self._taken(frame.size)
                if self._closing is not None:
                    code, reason = self._closing
                    await send({"type": "websocket.close", "code": code, "reason": reason})
                    return
        except (OSError, RuntimeError):
            # The first is what ASGI demands of a server whose peer is gone, the second what some raise once they
            # have closed by themselves. Either way the reader learns of the end.
            return

    def _taken(self, size: int) -> None:
        self._buffered = max(0, self._buffered - size)
        if self._full and self._buffered <= _LOW_WATER_BYTES:
            self._full = False
            if self._open:
                self._tell(lambda conversation: conversation.writable())

    def _tell(self, call: Callable[[Conversation], None]) -> None:
        try:
            call(self._conversation)
        except Exception:
            log.exception("conversation_failed")
            self.close(CloseCode.INTERNAL_ERROR)


def _acceptance(accepted: Accepted) -> Message:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in accepted.headers]
    return {"type": "websocket.accept", "subprotocol": accepted.subprotocol, "headers": headers}


def _sent(frame: Frame) -> Message:
    if frame.binary:
        return {"type": "websocket.send", "bytes": frame.payload}
    return {"type": "websocket.send", "text": frame.payload.decode()}
