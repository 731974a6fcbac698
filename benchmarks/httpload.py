"""A load of HTTP requests over keep-alive connections, as cheap as Python can make it."""

import re
import selectors
import socket
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from benchmarks.processes import HOST, Started

STALLED_SECONDS: Final = 10.0

_LENGTH: Final = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)


class Unexpected(RuntimeError):
    """The server did not answer as it must; what was measured would mean nothing."""


class HttpLoad:
    """
    So many connections, each of which sends its next request when the last one has been answered.

    Requests are bytes that were made before. Of a response the status and the length are read, and the
    status is checked; that costs a tenth of what the server spends.
    """

    def __init__(self, server: Started, connections: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._sockets = [socket.create_connection((HOST, server.port)) for _ in range(connections)]
        for each in self._sockets:
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(each, selectors.EVENT_READ, _Exchange(each))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._selector.close()
        for each in self._sockets:
            each.close()

    def run(self, requests: Iterator[bytes], *, status: int, seconds: float) -> list[float]:
        """
        Send requests for so long and wait for the last answers; returns how long each took, in seconds.

        Raises:
            Unexpected: If a response has another status, or none comes.
        """
        clock, expected, select = time.perf_counter, str(status).encode(), self._selector.select
        durations: list[float] = []
        for key in self._selector.get_map().values():
            key.data.send(next(requests))
        waiting, end = len(self._sockets), clock() + seconds
        while waiting:
            ready = select(STALLED_SECONDS)
            if not ready:
                raise Unexpected(f"{waiting} requests were not answered within {STALLED_SECONDS:.0f} s")
            for key, _ in ready:
                exchange: _Exchange = key.data
                if not exchange.receive(expected):
                    continue
                now = clock()
                durations.append(now - exchange.sent_at)
                if now < end:
                    exchange.send(next(requests))
                else:
                    waiting -= 1
        return durations


def receive_status(connection: socket.socket) -> int:
    """
    Read a whole response from a blocking socket; returns its status.

    Raises:
        Unexpected: If there is none.
    """
    received = b""
    while not _is_whole(received):
        chunk = connection.recv(65536)
        if not chunk:
            raise Unexpected("the server closed the connection")
        received += chunk
    return int(received[9:12])


def _is_whole(received: bytes) -> bool:
    head = received.find(b"\r\n\r\n")
    length = _LENGTH.search(received, 0, head) if head >= 0 else None
    return length is not None and len(received) >= head + 4 + int(length[1])


class _Exchange:
    """One connection: the request that is out, and as much of its response as has arrived."""

    __slots__ = ("_received", "_socket", "sent_at")

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._received = b""
        self.sent_at = 0.0

    def send(self, request: bytes) -> None:
        self.sent_at = time.perf_counter()
        self._socket.send(request)  # a request is smaller than any send buffer

    def receive(self, status: bytes) -> bool:
        """Read what is there; whether the response is complete."""
        chunk = self._socket.recv(65536)
        if not chunk:
            raise Unexpected("the server closed the connection")
        received = self._received + chunk if self._received else chunk
        if not _is_whole(received):
            self._received = received
            return False
        self._received = b""
        if received[9:12] != status:
            raise Unexpected(f"the server answered {received[:500]!r}")
        return True


def request(method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes = b"") -> bytes:
    """A request as bytes."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {HOST}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Api:
    """The REST interface of a running Roomkey, for what has to be there before the measurement."""

    def __init__(self, server: Started) -> None:
        self._connection = HTTPConnection(HOST, server.port, timeout=60)
        self.authorization = {"authorization": f"Bearer {server.key}"}

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """
        The body of a successful response.

        Raises:
            Unexpected: If it was not successful.
        """
        headers = {**self.authorization, "content-type": "application/json"}
        self._connection.request(method, path, None if body is None else msgspec.json.encode(body), headers)
        response = self._connection.getresponse()
        content = response.read()
        if response.status >= 400:
            raise Unexpected(f"{method} {path}: {response.status} {content[:500]!r}")
        return msgspec.json.decode(content) if content else None

    def sessions(self, count: int, prefix: str = "user") -> list[tuple[str, str]]:
        """So many active sessions of as many users: their ids and tokens."""
        issued: list[tuple[str, str]] = []
        for first in range(0, count, 100):
            numbers = range(first, min(first + 100, count))
            wanted = [{"user_id": f"{prefix}-{number}", "activate": True} for number in numbers]
            created = self.call("POST", "/sessions/batch", {"create": wanted})["created"]
            issued.extend((each["session"]["id"], each["token"]) for each in created)
        self.close()  # it would not outlive a long measurement, and opens again by itself
        return issued

    def close(self) -> None:
        """Hang up."""
        self._connection.close()
