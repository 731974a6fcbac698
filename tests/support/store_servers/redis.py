"""Redis: one server."""

import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.support.store_servers.process import ServerProcess, find, free_port


def answers(port: int) -> bool:
    """Whether a server on this port answers, and has loaded its data."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False


@contextmanager
def redis(folder: Path, *options: str) -> Generator[ServerProcess]:
    """A server with its files in ``folder``, which keeps every write when it is killed; ``options`` come last."""
    program = find("redis-server")
    assert program is not None
    port = free_port()
    command = (
        *(program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""),
        *("--appendonly", "yes", "--appendfsync", "no", "--enable-debug-command", "local", *options),
    )
    server = ServerProcess(
        command,
        url=f"redis://127.0.0.1:{port}/0",
        port=port,
        log=folder / "redis.log",
        answers=lambda: answers(port),
        user=None,
    )
    server.start()
    try:
        yield server
    finally:
        server.stop()
