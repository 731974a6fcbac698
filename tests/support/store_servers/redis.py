"""Redis: one server."""

import socket
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import redis as driver

from tests.support.certificates import Certificates
from tests.support.store_servers.process import ServerProcess, found

OPERATOR: Final = "operator"
"""A user of every server, without a password, for what a test does to it from outside of the stores."""

APPLICATION: Final = ("app", "s3cret")
"""Another user, and the password: for tests that give a user and may change it until the server is started anew."""

REPLICATION: Final = (
    *("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"),
    *("--replica-announce-ip", "127.0.0.1"),
)
"""For servers that have replicas or are ones: so that these are there soon."""


class RedisProcess(ServerProcess):
    """A Redis server, with a socket in its folder through which an operator may do anything."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        url: str,
        configuration: Path | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """``options`` say nothing of where it listens, unless they contain ``{port}``."""
        self.folder = folder
        self._socket = folder / "socket"
        file = () if configuration is None else (str(configuration),)
        where = () if "{port}" in options else ("--port", "{port}")
        command = (
            *(found("redis-server"), *file, *where, "--bind", "127.0.0.1", "--dir", str(folder)),
            *("--unixsocket", str(self._socket), "--enable-debug-command", "local", *options),
        )
        super().__init__(
            lambda port: [str(port) if part == "{port}" else part for part in command],
            url=url,
            log=folder / "redis.log",
            answers=self._pongs,
            variables=variables,
        )

    def ask(self, *words: str | bytes | int) -> Any:
        """What the server answers to a command of an operator, who comes in by the socket."""
        with closing(self.operator()) as ask:
            return ask.execute_command(*words)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]

    def operator(self) -> driver.Redis:
        """A client of the operator's; it stays connected until it is closed."""
        return driver.Redis(unix_socket_path=str(self._socket), username=OPERATOR, password="any")

    def start_slowly(self) -> None:
        """Start it again so that it says for a while that it is loading, and return before that."""
        command = self._command
        slow = ("--key-load-delay", "300", "--loading-process-events-interval-bytes", "1024")
        self._command = lambda port: [*command(port), *slow]
        self.start(wait=False)
        self._command = command

    def _pongs(self) -> bool:
        """Whether it answers, and has loaded its data."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(5)
                connection.connect(str(self._socket))
                connection.sendall(b"AUTH %s any\r\nPING\r\n" % OPERATOR.encode())
                answer = b""
                while answer.count(b"\r\n") < 2 and (part := connection.recv(1024)):
                    answer += part
        except OSError:
            return False
        return answer == b"+OK\r\n+PONG\r\n"


def redis_process(
    folder: Path,
    *options: str,
    tls: Certificates | None = None,
    url: str | None = None,
    variables: Mapping[str, str] | None = None,
) -> RedisProcess:
    """A server that is not started yet, and keeps every write when it is killed."""
    if tls is not None:
        options = (
            *("--port", "0", "--tls-port", "{port}", "--tls-auth-clients", "optional"),
            *("--tls-cert-file", str(tls.certificate), "--tls-key-file", str(tls.key)),
            *("--tls-ca-cert-file", str(tls.authority), *options),
        )
    address = f"rediss://127.0.0.1:{{port}}/0?ca={tls.authority}" if tls else "redis://127.0.0.1:{port}/0"
    durable = ("--save", "", "--appendonly", "yes", "--appendfsync", "no")
    rights = ("~*", "&*", "+@all")
    name, password = APPLICATION
    users = ("--user", OPERATOR, "on", "nopass", *rights, "--user", name, "on", f">{password}", *rights)
    return RedisProcess(folder, *durable, *users, *options, url=url or address, variables=variables)


@contextmanager
def redis(
    folder: Path, *options: str, tls: Certificates | None = None, variables: Mapping[str, str] | None = None
) -> Generator[RedisProcess]:
    """
    A server with its files in ``folder``, which keeps every write when it is killed; ``options`` come last.

    With ``tls`` it speaks nothing else, and asks for certificates of clients but does not insist.
    """
    with running(redis_process(folder, *options, tls=tls, variables=variables)) as server:
        yield server


@contextmanager
def running(*servers: RedisProcess) -> Generator[RedisProcess]:
    """The servers from their start, in this order, to their end; gives the first one."""
    try:
        for server in servers:
            server.start()
        yield servers[0]
    finally:
        for server in servers:
            server.kill()


def info(server: RedisProcess, section: str) -> Mapping[str, Any]:
    """What the server says of itself; empty while it says nothing."""
    with suppress(driver.RedisError, OSError):
        return server.ask("INFO", section)
    return {}
