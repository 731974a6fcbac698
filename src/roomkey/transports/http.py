"""uvicorn's HTTP with bounds on what a client may make it wait for and hold before a request is whole."""

import asyncio
import enum
from collections.abc import Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import Any, ClassVar, Final, cast

from msgspec import Struct
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from roomkey.transports import BODY_DEADLINE
from roomkey.transports.handshake import refused
from roomkey.transports.handshake_gate import refusal
from roomkey.transports.hosts import AllowedHosts
from roomkey.transports.timers import TimerWheel


class HttpSettings(Struct, frozen=True, kw_only=True):
    """Timeouts and limits of requests that are not whole yet."""

    head_timeout: timedelta = timedelta(seconds=10)
    """Time from connecting, or from the first byte of a further request, to the end of its head."""
    body_timeout: timedelta = timedelta(seconds=30)
    """Time from the end of the head to the end of the body."""
    max_head_bytes: int = 64 * 1024
    """Maximum size of the request line and headers together."""
    max_waiting: int = 1000
    """Maximum number of connections without a whole request head; beyond it the one that waits longest is dropped."""


# A chunked body in chunks of one byte is six times its size on the wire, and 64 KiB are the largest body anyone may
# send by default. What comes on top of that is chunk extensions and trailers, which llhttp does not bound.
_MAX_FRAMING_BYTES: Final = 512 * 1024
_MAX_PIPELINED: Final = (
    64  # uvicorn would make a task's worth of objects for each of the thousands that fit into a read
)
_LARGEST_READ_BYTES: Final = 256 * 1024  # of uvloop and asyncio

_HEAD_TOO_LARGE: Final = refused(
    refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", "The request line and headers are too long.")
)
_TOO_SLOW: Final = refused(refusal(HTTPStatus.REQUEST_TIMEOUT, "too_slow", "The request did not arrive in time."))
_MALFORMED: Final = refused(refusal(HTTPStatus.BAD_REQUEST, "malformed", "There is more around the body than in it."))
_MISDIRECTED: Final = refused(
    refusal(
        HTTPStatus.MISDIRECTED_REQUEST,
        "misdirected",
        "This server does not answer to the host that the request names; server.allowed_hosts says to which it does.",
    )
)


class _Part(enum.Enum):
    """What of a request a connection owes us."""

    HEAD = enum.auto()
    BODY = enum.auto()
    NOTHING = enum.auto()


class WholeResponses:
    """
    An application whose responses are written at once, head and body together.

    uvicorn writes them apart, which costs a system call each here and a wake-up each at the client. Whatever is
    not a plain response in two messages goes uvicorn's way.
    """

    def __init__(self, app: ASGI3Application, cycle: RequestResponseCycle) -> None:
        self._app = app
        self._cycle = cycle
        self._start: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        del send  # the cycle's, which we are in front of
        await self._app(scope, receive, self._send)

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        start, self._start = self._start, None
        if start is not None:
            response = _whole(self._cycle, start, message)
            if response is not None:
                self._finish(response)
                return
            await self._cycle.send(start)
        await self._cycle.send(message)

    def _finish(self, response: bytes) -> None:
        """What uvicorn does at the end of a response."""
        cycle = self._cycle
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.transport.write(response)
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()


def _whole(cycle: RequestResponseCycle, start: Any, body: Any) -> bytes | None:
    """The bytes of a response that is complete with ``body``; ``None`` if there is anything uncommon about it."""
    content: bytes = body.get("body", b"")
    status_line = _STATUS_LINES.get(start["status"])
    headers = [*cycle.default_headers, *start["headers"]]
    common = (
        not body.get("more_body", False)
        and cycle.scope["method"] != "HEAD"
        and not (cycle.disconnected or cycle.access_log or cycle.flow.write_paused or cycle.response_started)
        and (b"content-length", str(len(content)).encode()) in headers
        and not any(name.lower() in _FRAMING for name, _ in headers)
    )
    if status_line is None or not common:
        return None
    lines = [status_line, *(b"%b: %b\r\n" % header for header in headers)]
    head = b"".join(lines)
    # A line break within a header would begin one of its own; uvicorn's way refuses it.
    if len(head) - len(head.translate(None, _CONTROLS)) != 2 * len(lines):
        return None
    return head + (b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n") + content


_FRAMING: Final = frozenset({b"connection", b"transfer-encoding"})
"""Headers that decide where a response ends, which uvicorn has to see."""

_CONTROLS: Final = bytes((*range(9), *range(10, 32), 127))  # RFC 9110, 5.5: a tab may stand in a value
_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii")
    for status in HTTPStatus
    if status not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED) and status.value >= 200
}
"""Status codes of responses that have a body."""


class BoundedHttp(HttpToolsProtocol):
    """
    One connection.

    A request that is not whole in time is answered with 408, a head that is too long with 431, and the
    connection closes. A connection on which nothing was said is dropped in silence.
    """

    settings: ClassVar[HttpSettings]
    timers: ClassVar[TimerWheel]
    hosts: ClassVar[AllowedHosts | None]
    waiting: ClassVar[dict["BoundedHttp", None]]
    """Connections that owe a head, the one that waits longest first."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.slot = -1
        self._owed = _Part.NOTHING
        self._turns = 0
        self._chunk = 0
        self._received = 0
        self._of_the_body = 0
        self._refused = False

    # --- for the transport --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # as uvicorn has it
        """Wait for a request, but not for ever and not for any number of them."""
        super().connection_made(transport)
        self._now_owed(_Part.HEAD)
        self._watch()
        if len(self.waiting) > self.settings.max_waiting:
            next(iter(self.waiting)).drop()

    def data_received(self, data: bytes) -> None:
        """Parse, and keep the deadline of what is still missing."""
        if self._refused:
            return
        turns = self._turns
        self._received += len(data)
        self._chunk = len(data)
        super().data_received(data)
        if self._turns != turns:
            self._watch()
        if self._owed is _Part.HEAD and self._received > self.settings.max_head_bytes + _LARGEST_READ_BYTES:
            self._refuse(_HEAD_TOO_LARGE)
        elif self._owed is _Part.BODY and self._received - self._of_the_body > _MAX_FRAMING_BYTES:
            self._refuse(_MALFORMED)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._now_owed(_Part.NOTHING)
        self._watch()
        super().connection_lost(exc)

    def due(self) -> None:
        """The deadline in the timer wheel has passed."""
        silent = self._owed is _Part.HEAD and not self._received
        answering = self._owed is _Part.BODY and self.cycle.response_started
        if silent or answering:
            self.drop()
        else:
            self._refuse(_TOO_SLOW)

    def drop(self) -> None:
        """Close the connection without a word."""
        self._refused = True
        self._now_owed(_Part.NOTHING)
        self._watch()
        self.transport.abort()

    # --- for the parser -----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self.scope["extensions"] = {BODY_DEADLINE: {}}
        if self._owed is not _Part.HEAD:  # A connection owes its first head from the beginning.
            self._received = self._chunk
            self._now_owed(_Part.HEAD)

    def on_headers_complete(self) -> None:
        """The end of a head."""
        if self._refused:
            return
        if len(self.pipeline) >= _MAX_PIPELINED:
            self.drop()
            return
        if self._received > self.settings.max_head_bytes and self._head_bytes() > self.settings.max_head_bytes:
            self._refuse(_HEAD_TOO_LARGE)
            return
        if self.hosts is not None and not self._is_meant_for(self.hosts):
            self._refuse(_MISDIRECTED)
            return
        self._received = self._of_the_body = 0
        self._now_owed(_Part.BODY)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._of_the_body += len(body)
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The end of a request."""
        self._now_owed(_Part.NOTHING)
        if not self._refused:
            super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        super()._start_asgi_task(cycle, cast("ASGI3Application", WholeResponses(app, cycle)))

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over, and let go of the parser, which holds us as we hold it."""
        if self._refused:  # the parser reports the upgrade all the same
            return
        super().handle_websocket_upgrade()
        self.parser = cast("Any", None)

    def _should_upgrade(self) -> bool:
        # RFC 6455, 4.1. The head that uvicorn passes on does not tell the version any more.
        return self.scope["http_version"] == "1.1" and super()._should_upgrade()

    # --- what is owed -------------------------------------------------------------------------------------

    def _now_owed(self, part: _Part) -> None:
        self._owed = part
        self._turns += 1

    def _watch(self) -> None:
        """Let deadline and waiting list agree with what is owed now. Most requests come whole and need neither."""
        if self._owed is _Part.HEAD:
            self.waiting[self] = None
            self.timers.start(self, self.settings.head_timeout.total_seconds())
            return
        self.waiting.pop(self, None)
        if self._owed is _Part.BODY:
            self.timers.start(self, self.settings.body_timeout.total_seconds())
        else:
            self.timers.stop(self)

    def _is_meant_for(self, hosts: AllowedHosts) -> bool:
        named = [value for name, value in self.headers if name == b"host"]
        return len(named) == 1 and hosts.allows(named[0])

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _refuse(self, response: bytes) -> None:
        self._refused = True
        self._now_owed(_Part.NOTHING)
        self._watch()
        self.transport.write(response)
        self.transport.close()


def http_protocol(settings: HttpSettings, *, hosts: Sequence[str] | None = None) -> type[BoundedHttp]:
    """
    The class for ``uvicorn.Config(http=...)``; connections of one class share their timers and bounds.

    ``hosts`` are those that requests and handshakes may name, if not any.
    """
    allowed = None if hosts is None else AllowedHosts(hosts)
    head, body = settings.head_timeout.total_seconds(), settings.body_timeout.total_seconds()
    timers = TimerWheel(tick=min(head, body) / 10, horizon=max(head, body))
    shared: dict[str, Any] = {"settings": settings, "timers": timers, "waiting": {}, "hosts": allowed}
    return type("HttpProtocol", (BoundedHttp,), shared)


HttpProtocol: Final = http_protocol(HttpSettings())
"""The class with the default settings."""
