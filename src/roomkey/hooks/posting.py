"""
Posting messages to one address over HTTP/1.1, on connections that are kept.

As little as a webhook needs, because it is done thousands of times a second: one request at a time on a connection, no
redirects, no proxies, no cookies, and of an answer only its status and when to come back. The name is resolved and the
address looked at for every connection, so that a name cannot say something else than when it was checked.
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Final, NamedTuple, cast
from urllib.parse import urlsplit

import httptools

from roomkey.hooks.addresses import is_public

MAX_ANSWER_BYTES: Final = 64 * 1024
"""Of a longer answer the connection is closed; its status counts all the same."""

MAX_HEAD_BYTES: Final = 32 * 1024

IDLE_SECONDS: Final = 30.0
"""Time after which a connection that is not used is closed."""

_REDIRECTS: Final = range(300, 400)


class Answer(NamedTuple):
    """What an endpoint said: a status, and, if it said so, in how many seconds it wants to be asked again."""

    status: int
    retry_after: float | None = None


class NoAnswer(Exception):
    """There was no answer, or none of HTTP; the message says why and has nothing in it that the endpoint said."""


class Poster:
    """Posts to one URL. At most as many connections are open as there are posts at a time."""

    def __init__(self, url: str, *, timeout: float, allow_private: bool, tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None  # noqa: S101  # settings were checked
        is_secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if is_secure else 80)
        self._tls = (tls or ssl.create_default_context()) if is_secure else None
        self._timeout = timeout
        self._allow_private = allow_private
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._head = (
            f"POST {target} HTTP/1.1\r\nhost: {_authority(self._host, parts.port)}\r\n"
            "user-agent: Roomkey\r\naccept: */*\r\ncontent-type: application/json\r\n"
        ).encode()
        self._idle: list[_Connection] = []

    async def post(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """
        Post a message.

        Raises:
            NoAnswer: If there is no answer in time.
        """
        fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        request = b"%b%bcontent-length: %d\r\n\r\n%b" % (self._head, fields.encode(), len(body), body)
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchange(request)
        except TimeoutError:
            raise NoAnswer(f"it did not answer within {self._timeout:g} s") from None

    async def _exchange(self, request: bytes) -> Answer:
        while (connection := self._kept()) is not None:
            # It may have been closed at this moment: then it has answered nothing, and another one is as good.
            with suppress(_Closed):
                return await self._ask(connection, request)
        try:
            return await self._ask(await self._connect(), request)
        except _Closed:
            raise NoAnswer("it closed the connection without an answer") from None

    async def _ask(self, connection: "_Connection", request: bytes) -> Answer:
        try:
            answer = await connection.ask(request)
        except BaseException:
            connection.close()
            raise
        if connection.is_open:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        return answer

    def _kept(self) -> "_Connection | None":
        time = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and time - connection.idle_since < IDLE_SECONDS:
                return connection
            connection.close()
        return None

    async def _connect(self) -> "_Connection":
        failure = NoAnswer(f"the name {self._host} leads nowhere")
        for address in await self._addresses():
            try:
                _, connection = await asyncio.get_running_loop().create_connection(
                    _Connection,
                    address,
                    self._port,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls is not None else None,
                )
            except ssl.SSLError as error:
                failure = NoAnswer(f"TLS failed: {error.reason or 'the handshake was not completed'}")
            except OSError as error:
                failure = NoAnswer(f"it cannot be reached: {type(error).__name__}")
            else:
                return connection
        raise failure

    async def _addresses(self) -> Sequence[str]:
        """The addresses of the host that may be connected to."""
        try:
            ip_address(self._host)
            found = [self._host]
        except ValueError:
            loop = asyncio.get_running_loop()
            try:
                infos = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError):
                raise NoAnswer(f"the name {self._host} cannot be resolved") from None
            found = [str(info[4][0]) for info in infos]
        allowed = [address for address in dict.fromkeys(found) if self._allow_private or is_public(address)]
        if found and not allowed:
            raise NoAnswer("its address is not public: set allow_private if that is meant")
        return allowed

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop().close()


class _Closed(Exception):
    """The connection was closed before anything came back."""


class _Connection(asyncio.Protocol):
    """One connection, on which one request at a time is answered."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._retry_after: float | None = None
        self._received = self._of_body = 0
        self.idle_since = 0.0

    @property
    def is_open(self) -> bool:
        """Whether another request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes) -> Answer:
        if self._transport is None or self._transport.is_closing():
            raise _Closed
        self._answer = asyncio.get_running_loop().create_future()
        self._retry_after, self._received, self._of_body = None, 0, 0
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            self._answer = None

    def close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    # --- what the loop calls --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # that of uvloop is none by its class

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._transport = None
        self._fail(NoAnswer("it closed the connection within its answer") if self._received else _Closed())

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._answer is None:  # it says something although it was asked nothing
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._finish(Answer(101), keep=False)
        except httptools.HttpParserError:
            self._fail(NoAnswer("its answer is not HTTP"))
            self.close()
            return
        if self._received > MAX_HEAD_BYTES and not self._of_body and self._is_waiting:
            self._fail(NoAnswer("the head of its answer is too long"))
            self.close()

    # --- what the parser calls ------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if not self._is_waiting:  # a second answer: whose would the third be?
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            with suppress(ValueError):  # a date is as good as nothing: we come back soon
                self._retry_after = max(0.0, float(value))

    def on_body(self, body: bytes) -> None:
        self._of_body += len(body)
        if self._of_body > MAX_ANSWER_BYTES:
            self._finish(Answer(self._parser.get_status_code(), self._retry_after), keep=False)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:  # before that come answers that are none yet
            self._finish(Answer(status, self._retry_after), keep=self._parser.should_keep_alive())

    @property
    def _is_waiting(self) -> bool:
        return self._answer is not None and not self._answer.done()

    def _finish(self, answer: Answer, *, keep: bool) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)
        if not keep:
            self.close()

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


def _authority(host: str, port: int | None) -> str:
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"
