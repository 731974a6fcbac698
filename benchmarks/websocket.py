"""WebSocket clients that cost next to nothing: a socket each, masked frames made by hand, replies looked at in bulk."""

import base64
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Final

from benchmarks.httpload import Unexpected
from benchmarks.processes import HOST

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA  # RFC 6455, 11.8

PATIENCE_SECONDS: Final = 20.0

BATCH: Final = 100
"""So many handshakes are under way at a time."""

_KEY: Final = base64.b64encode(os.urandom(16)).decode()
_MASK: Final = os.urandom(4)


def frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """A masked frame, as clients send them (RFC 6455, 5.2)."""
    size = len(payload)
    mask = (_MASK * (size // 4 + 1))[:size]
    # One operation on a long number instead of one for each byte.
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")
    return bytes((0x80 | opcode,)) + _length(size) + _MASK + masked.to_bytes(size, "big")


def _length(size: int) -> bytes:
    if size < 126:
        return bytes((0x80 | size,))
    return b"\xfe" + size.to_bytes(2, "big") if size < 65_536 else b"\xff" + size.to_bytes(8, "big")


def frames(received: bytes | bytearray) -> Iterator[tuple[int, bytes, int]]:
    """The whole frames of a server at the start of ``received``: opcode, payload, and where each one ends."""
    end = 0
    while (span := _payload(received, end)) and span[1] <= len(received):
        opcode, (start, end) = received[end] & 0x0F, span
        yield opcode, bytes(received[start:end]), end


def _payload(received: bytes | bytearray, position: int) -> tuple[int, int] | None:
    """Where the payload of the frame at ``position`` begins and ends, as soon as its head is there."""
    if position + 2 > len(received):
        return None
    size = received[position + 1]
    head = {126: 4, 127: 10}.get(size, 2)
    start = position + head
    if start > len(received):
        return None
    if head > 2:
        size = int.from_bytes(received[position + 2 : start], "big")
    return start, start + size


class MessageAssembler:
    """The messages of a server, however they are cut, and however long they are."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._parts: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """
        Take what was read; returns the messages that are complete now. Pings are left out.

        Raises:
            Unexpected: If the server says that it closes the connection.
        """
        self._received += chunk
        messages: list[bytes] = []
        begin = 0
        for opcode, payload, end in frames(self._received):
            is_final = self._received[begin] & 0x80
            begin = end
            if opcode == CLOSE:
                raise closed(payload)
            if opcode in (CONTINUATION, TEXT, BINARY):
                self._parts.append(payload)
                if is_final:
                    messages.append(b"".join(self._parts))
                    self._parts.clear()
        del self._received[:begin]
        return messages


def closed(payload: bytes) -> Unexpected:
    """What a close frame says."""
    code, reason = int.from_bytes(payload[:2], "big"), payload[2:].decode(errors="replace")
    return Unexpected(f"the server closes the connection: {code} {reason}")


def connect(port: int, path: str, tokens: Sequence[str | None], *, source: str = "") -> list[socket.socket]:
    """One open WebSocket for each token, as ``connect_each``."""
    return connect_each(port, [(path, token) for token in tokens], source=source)


def connect_each(port: int, who: Sequence[tuple[str, str | None]], *, source: str = "") -> list[socket.socket]:
    """
    One open WebSocket for each path and token, blocking, with a timeout. What follows the handshake is left unread.

    Raises:
        Unexpected: If the server refuses one. Those that were opened are closed then.
    """
    opened: list[socket.socket] = []
    try:
        for first in range(0, len(who), BATCH):
            batch = who[first : first + BATCH]
            fresh = [_dial(port, source) for _ in batch]
            opened.extend(fresh)
            for connection, (path, token) in zip(fresh, batch, strict=True):
                connection.sendall(_upgrade(path, token))
            for connection in fresh:
                _read_answer(connection)
    except BaseException:
        close(opened)
        raise
    return opened


def close(connections: Sequence[socket.socket]) -> None:
    """Hang up on all of them, without ceremony."""
    for connection in connections:
        connection.close()


def receive_until(connection: socket.socket, wanted: bytes) -> bytes:
    """
    Read from a blocking socket until ``wanted`` has been seen; returns all that was read.

    Raises:
        Unexpected: If the connection ends before.
    """
    received = b""
    while wanted not in received:
        chunk = connection.recv(65536)
        if not chunk:
            raise Unexpected(f"the server closed the connection after {received[-300:]!r}")
        received += chunk
    return received


def _dial(port: int, source: str) -> socket.socket:
    address = (source, 0) if source else None
    connection = socket.create_connection((HOST, port), PATIENCE_SECONDS, source_address=address)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _upgrade(path: str, token: str | None) -> bytes:
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {HOST}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {_KEY}",
    ]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    return "\r\n".join([*lines, "", ""]).encode()


def _read_answer(connection: socket.socket) -> None:
    # Byte by byte would be exact and slow; peeking leaves the frames behind the head where they are.
    while True:
        seen = connection.recv(4096, socket.MSG_PEEK)
        head = seen.find(b"\r\n\r\n")
        if head >= 0:
            break
        if not seen:
            raise Unexpected("the server closed the connection instead of answering the handshake")
    if not seen.startswith(b"HTTP/1.1 101 "):
        raise Unexpected(f"the handshake was refused: {seen[:500]!r}")
    connection.recv(head + 4)
