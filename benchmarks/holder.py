"""
Opens sockets and holds them, in a process of its own because a process may open only so many.

From standard input it reads one line of JSON, an ``Order``, and prints how many sockets it opened. For each
further line it prints how many are still open. It answers pings, and leaves when standard input ends.
"""

import os
import selectors
import socket
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import msgspec
from msgspec import Struct

from benchmarks import websocket
from benchmarks.processes import LOAD_CORE, STOP_SECONDS, Started, run_on


class Order(Struct, frozen=True):
    """One socket for each token, from the address ``source``."""

    port: int
    path: str
    source: str
    tokens: Sequence[str | None]


class Holding:
    """The other end of a holder: sockets that somebody else keeps open."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.opened = self._count()

    def still_open(self) -> int:
        """How many have not been closed by the server."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return self._count()

    def _count(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline() or 0)


@contextmanager
def holding(server: Started, path: str, tokens: Sequence[str | None], *, source: str = "") -> Generator[Holding]:
    """Open a socket for each token and keep it until the block is left."""
    command = [sys.executable, "-m", "benchmarks.holder"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(msgspec.json.encode(Order(server.port, path, source, tokens)) + b"\n")
        process.stdin.flush()
        yield Holding(process)
    finally:
        process.stdin.close()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


class _Holder:
    """The sockets, and what of a frame each has received so far."""

    def __init__(self, connections: Sequence[socket.socket]) -> None:
        self._rest = dict.fromkeys(connections, b"")
        self._selector = selectors.DefaultSelector()
        for connection in connections:
            connection.setblocking(False)
            self._selector.register(connection, selectors.EVENT_READ, connection)

    def hold(self) -> None:
        """Until standard input ends."""
        self._selector.register(sys.stdin, selectors.EVENT_READ, None)
        print(len(self._rest), flush=True)
        while True:
            for key, _ in self._selector.select():
                if key.data is not None:
                    self._receive(key.data)
                elif os.read(sys.stdin.fileno(), 1):
                    print(len(self._rest), flush=True)
                else:
                    return

    def _receive(self, connection: socket.socket) -> None:
        try:
            received = connection.recv(65536)
        except ConnectionError:
            received = b""
        if not received:
            self._selector.unregister(connection)
            del self._rest[connection]
            connection.close()
            return
        received, end = self._rest[connection] + received, 0
        for opcode, payload, after in websocket.frames(received):
            end = after
            if opcode == websocket.PING:
                connection.send(websocket.frame(payload, websocket.PONG))
        self._rest[connection] = received[end:]


def _main() -> None:
    run_on(LOAD_CORE)
    # Not through sys.stdin, which would read ahead.
    line = bytearray()
    while not line.endswith(b"\n"):
        chunk = os.read(sys.stdin.fileno(), 65536)
        if not chunk:
            return
        line += chunk
    order = msgspec.json.decode(line, type=Order)
    _Holder(websocket.connect(order.port, order.path, order.tokens, source=order.source)).hold()


if __name__ == "__main__":
    _main()
