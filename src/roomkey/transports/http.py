"""uvicorn's HTTP with bounds on what a client may make it wait for and hold before a request is whole."""

import asyncio
import enum
from collections.abc import Callable, Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import Any, ClassVar, Final, NamedTuple, cast

from httptools import HttpParserError, HttpParserUpgrade
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from roomkey.security.certificates import EXTENSION, PeerCertificate, peer_certificate
from roomkey.security.networks import network_of
from roomkey.transports import BODY_DEADLINE, HttpSettings
from roomkey.transports.handshake import refused
from roomkey.transports.handshake_gate import UNAVAILABLE, refusal
from roomkey.transports.heads import flaw_in_head
from roomkey.transports.hosts import AllowedHosts
from roomkey.transports.timers import TimerWheel
from roomkey.transports.waiting import Droppable, Waiting

# A chunked body in chunks of one byte is six times its size on the wire, and 64 KiB are the largest body anyone may
# send by default. What comes on top of that is chunk extensions and trailers, which llhttp does not bound.
_MAX_FRAMING_BYTES: Final = 512 * 1024
_MAX_PIPELINED: Final = (
    64  # uvicorn would make a task's worth of objects for each of the thousands that fit into a read
)
_LARGEST_READ_BYTES: Final = 256 * 1024  # of uvloop and asyncio


class _Fault(NamedTuple):
    """Why a connection is closed: the code that is reported, and what the client is told."""

    code: str
    response: bytes


def _fault(status: HTTPStatus, code: str, detail: str) -> _Fault:
    return _Fault(code, refused(refusal(status, code, detail)))


def _malformed(detail: str) -> _Fault:
    return _fault(HTTPStatus.BAD_REQUEST, "malformed", detail)


_HEAD_TOO_LARGE: Final = _fault(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", "The request line and headers are too long."
)
_TOO_SLOW: Final = _fault(HTTPStatus.REQUEST_TIMEOUT, "too_slow", "The request did not arrive in time.")
_NO_HTTP: Final = _malformed("This is not HTTP/1.1 (RFC 9112).")
_TOO_MUCH_FRAMING: Final = _malformed("There is more around the body than in it.")
_HASTY_UPGRADE: Final = _malformed("A WebSocket is opened when what came before has been answered.")
_MISDIRECTED: Final = _fault(
    HTTPStatus.MISDIRECTED_REQUEST,
    "misdirected",
    "This server does not answer to the host that the request names; server.allowed_hosts says to which it does.",
)
_OVERLOADED: Final = _Fault("too_many_connections", refused(UNAVAILABLE))


class _Part(enum.Enum):
    """What of a request a connection owes us."""

    HEAD = enum.auto()
    BODY = enum.auto()
    NOTHING = enum.auto()


Report = Callable[[str, str | None], object]
"""Told of what was refused: a code, and the address that it came from."""


def _tell_nobody(_code: str, _address: str | None) -> None:
    pass


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
    )
    if status_line is None or not common:
        return None
    head = status_line + b"\r\n".join([b": ".join(header) for header in headers]) + b"\r\n"
    # A line break within a header would begin one of its own; uvicorn's way refuses it.
    if len(head) - len(head.translate(None, _CONTROLS)) != 2 * len(headers) + 2:
        return None
    lower = head.lower()
    if b"\r\ncontent-length: %d\r\n" % len(content) not in head or _CONNECTION in lower or _CODING in lower:
        return None
    return head + (b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n") + content


# How headers begin that decide where a response ends, which uvicorn has to see.
_CONNECTION: Final = b"\r\nconnection: "
_CODING: Final = b"\r\ntransfer-encoding: "

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

    A request that is not whole in time is answered with 408, a head that is too long with 431, one that may be
    understood in two ways with 400, and the connection closes. A connection on which nothing was said is dropped in
    silence, and so is one whose client does not take what it asked for.
    """

    settings: ClassVar[HttpSettings]
    timers: ClassVar[TimerWheel]
    hosts: ClassVar[AllowedHosts | None]
    waiting: ClassVar[Waiting[Droppable]]
    """Connections that owe a head, or do not take what they are sent."""
    report: ClassVar["staticmethod[[str, str | None], object]"]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.slot = -1
        self._owed = _Part.NOTHING
        self._turns = 0
        self._chunk = 0
        self._received = 0
        self._of_the_body = 0
        self._unsent = 0
        self._refused = False
        self._answering: RequestResponseCycle | None = None
        self._last_words = b""
        self._certificate: PeerCertificate | None = None

    # --- for the transport --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # as uvicorn has it
        """Wait for a request, but not for ever and not for any number of them."""
        super().connection_made(transport)
        self._certificate = peer_certificate(transport.get_extra_info("ssl_object"))
        self._now_owed(_Part.HEAD)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Parse, and keep the deadline of what is still missing."""
        if self._refused:
            return
        turns = self._turns
        self._received += len(data)
        self._chunk = len(data)
        self._unset_keepalive_if_required()
        self._parse(data)
        if self._turns != turns:
            self._watch()
        if self._owed is _Part.HEAD and self._received > self.settings.max_head_bytes + _LARGEST_READ_BYTES:
            self._refuse(_HEAD_TOO_LARGE)
        elif self._owed is _Part.BODY and self._received - self._of_the_body > _MAX_FRAMING_BYTES:
            self._refuse(_TOO_MUCH_FRAMING)

    def _parse(self, data: bytes) -> None:
        while data and not self._refused:
            try:
                self.parser.feed_data(data)
            except HttpParserUpgrade as upgrade:
                if self._should_upgrade():
                    self.handle_websocket_upgrade()
                    return
                data = data[upgrade.args[0] :]  # RFC 9110, 7.8: what one does not know is ignored
            except HttpParserError:
                self._refuse(_NO_HTTP)
            else:
                return

    def pause_writing(self) -> None:
        """The client does not take what it is sent; it may not wait for ever with that."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """It has."""
        super().resume_writing()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._owed = _Part.NOTHING
        self.waiting.leave(self)
        self.timers.stop(self)
        self._give_up_answering()
        super().connection_lost(exc)

    def due(self) -> None:
        """The deadline in the timer wheel has passed."""
        silent = self._owed is _Part.HEAD and not self._received
        answering = self._owed is _Part.BODY and self.cycle.response_started
        if self._owed is _Part.NOTHING:
            self._look_for_a_reader()
        elif silent or answering:
            self.drop()
        else:
            self._refuse(_TOO_SLOW)

    def _look_for_a_reader(self) -> None:
        """Drop the connection, unless its client has taken something since the last look."""
        unsent = self.transport.get_write_buffer_size()
        if unsent < self._unsent:
            self._watch()
            return
        self._tell("unread")
        self.drop()

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection between two requests; one that waits for its client to read never would."""
        super().timeout_keep_alive_handler()
        self._watch()

    def on_response_complete(self) -> None:
        """A response was written, and perhaps was the last one."""
        if self._last_words and not self.pipeline:
            self.transport.write(self._last_words)
            self.transport.close()
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch()

    def crowded_out(self) -> None:
        """There are too many that wait for their clients."""
        self._tell("crowded_out")
        self.drop()

    def drop(self) -> None:
        """Close the connection without a word."""
        self._refused = True
        self._now_owed(_Part.NOTHING)
        self._watch()
        self._give_up_answering()
        self.transport.abort()

    def _give_up_answering(self) -> None:
        """Of several requests at once uvicorn tells only the last one that its client has gone."""
        if self._answering is not None:
            self._answering.disconnected = True
            self._answering.message_event.set()

    # --- for the parser -----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self._refused:
            return
        super().on_message_begin()
        self.scope["extensions"] = {BODY_DEADLINE: {}}
        if self._certificate is not None:
            self.scope["extensions"][EXTENSION] = cast("Any", self._certificate)
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
        fault = self._fault_of_head()
        if fault is not None:
            self._refuse(fault)
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
        self._answering = cycle
        super()._start_asgi_task(cycle, cast("ASGI3Application", WholeResponses(app, cycle)))

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over, and let go of the parser, which holds us as we hold it."""
        if self._refused:  # the parser reports the upgrade all the same
            return
        if self._is_answering():  # into the socket, or it would be mistaken for its answer
            self._refuse(_HASTY_UPGRADE)
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
        settings = self.settings
        if self._owed is _Part.HEAD:
            self._wait(settings.head_timeout)
        elif self._owed is _Part.NOTHING and (self.flow.write_paused or self.transport.is_closing()):
            self._unsent = self.transport.get_write_buffer_size()
            self._wait(settings.response_timeout)
        else:
            self.waiting.leave(self)
            if self._owed is _Part.BODY:
                self.timers.start(self, settings.body_timeout.total_seconds())
            else:
                self.timers.stop(self)

    def _wait(self, most: timedelta) -> None:
        """For the client, with others, of whom there may be only so many."""
        self.timers.start(self, most.total_seconds())
        if self not in self.waiting:
            surplus = self.waiting.enter(self, network_of(self._address() or ""))
            if surplus is not None:
                surplus.crowded_out()

    def _fault_of_head(self) -> _Fault | None:
        parser = self.parser
        version, is_upgrade = parser.get_http_version(), parser.should_upgrade()
        flaw = flaw_in_head(parser.get_method(), self.url, version, self.headers, is_upgrade=is_upgrade)
        if flaw is not None:
            return _malformed(flaw)
        if self.hosts is not None and not self._is_meant_for(self.hosts):
            return _MISDIRECTED
        most = self.limit_concurrency
        is_full = most is not None and (len(self.connections) >= most or len(self.tasks) >= most)
        return _OVERLOADED if is_full else None

    def _is_meant_for(self, hosts: AllowedHosts) -> bool:
        return any(name == b"host" and hosts.allows(value) for name, value in self.headers)

    def _is_answering(self) -> bool:
        return self._answering is not None and not self._answering.response_complete

    def _address(self) -> str | None:
        return self.client[0] if self.client else None

    def _tell(self, code: str) -> None:
        self.report(code, self._address())

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _refuse(self, fault: _Fault) -> None:
        self._refused = True
        is_of_another = self._owed is not _Part.BODY or self._answering is not self.cycle
        self._now_owed(_Part.NOTHING)
        self._tell(fault.code)
        if self._answering is not None and self._is_answering() and is_of_another:
            self._last_words = fault.response  # behind what was asked for before
        else:
            self.transport.write(fault.response)
            self.transport.close()
        self._watch()


def http_protocol(
    settings: HttpSettings, *, hosts: Sequence[str] | None = None, report: Report = _tell_nobody
) -> type[BoundedHttp]:
    """
    The class for ``uvicorn.Config(http=...)``; connections of one class share their timers and bounds.

    ``hosts`` are those that requests and handshakes may name, if not any. ``report`` is told of each connection that
    is refused or dropped: a code, and the address of the peer.
    """
    allowed = None if hosts is None else AllowedHosts(hosts)
    times = (settings.head_timeout, settings.body_timeout, settings.response_timeout)
    seconds = [time.total_seconds() for time in times]
    timers = TimerWheel(tick=min(seconds) / 10, horizon=max(seconds))
    shared: dict[str, Any] = {
        "settings": settings,
        "timers": timers,
        "waiting": Waiting(settings.max_waiting),
        "hosts": allowed,
        "report": staticmethod(report),
    }
    return type("HttpProtocol", (BoundedHttp,), shared)


HttpProtocol: Final = http_protocol(HttpSettings())
"""The class with the default settings."""
