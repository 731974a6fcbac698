"""A server of somebody else in a process that the test may kill, pause and start again."""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from tests.support.store_servers.watchdog import watchdog

START_SECONDS: Final = 30
STOP_SECONDS: Final = 20

PROGRAMS: Final = {
    "redis": ("redis-server",),
    "postgresql": ("postgres", "initdb", "psql"),
    "mariadb": ("mariadbd", "mariadb-install-db", "mariadb"),
    "nginx": ("nginx",),
    "haproxy": ("haproxy",),
    "caddy": ("caddy",),
}
"""The programs that each kind of server needs."""

FOLDERS: Final = ("/usr/sbin", "/usr/local/sbin", *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"))[::-1]))
"""Where Debian has programs that are not on PATH."""

PORTS: Final = range(10_300, 22_000)
"""
Where servers listen: below the ports that the system gives to connections, which might take that of a server that is
down, and low enough that the bus of a Redis Cluster, 10,000 higher, is below them, too.
"""

PORT_TRIES: Final = 5
"""How many ports are tried, for others look for free ones at the same time."""


def find(program: str) -> str | None:
    """The path of ``program``, or ``None``."""
    return shutil.which(program) or shutil.which(program, path=os.pathsep.join(FOLDERS))


def found(program: str) -> str:
    """The path of ``program``, which is there."""
    path = find(program)
    assert path is not None, f"there is no {program} on this machine"
    return path


def is_there(kind: str) -> bool:
    """Whether a server of this kind can be started on this machine."""
    return all(find(program) is not None for program in PROGRAMS[kind])


def missing(kind: str) -> str:
    """Why a test is skipped that needs one."""
    return f"there is no {PROGRAMS[kind][0]} on this machine; script/test installs it with apt when root"


def free_port() -> int:
    """A port that nobody listens on just now, nor on the one 10,000 higher."""
    while True:
        port = random.choice(PORTS)
        try:
            for each in (port, port + 10_000):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", each))
        except OSError:
            continue
        return port


def wait_until(condition: Callable[[], bool], *, seconds: float = START_SECONDS, what: str = "it") -> None:
    """Ask until ``condition`` holds, in a thread of the caller's own."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not come true within {seconds:g} s")
        time.sleep(0.02)


class ServerProcess:
    """
    A server and where it listens.

    ``command`` is given the port. ``url`` is one that ``open_storage`` takes, with ``{port}`` in its place. ``answers``
    says whether this very process is ready; it is asked until it is. All methods block.
    """

    def __init__(
        self,
        command: Callable[[int], Sequence[str]],
        *,
        url: str,
        log: Path,
        answers: Callable[[], bool],
        user: str | None = None,
        variables: Mapping[str, str] | None = None,
        stops_with: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.port = free_port()
        self._command = command
        self._url = url
        self._log = log
        self._answers = answers
        self._user = user
        self._variables = variables or {}
        self._stops_with = stops_with
        self._process: subprocess.Popen[bytes] | None = None
        self._has_run = False

    @property
    def url(self) -> str:
        """Where its storage is."""
        return self._url.replace("{port}", str(self.port))

    @property
    def log(self) -> str:
        """What it has written to its log so far."""
        return self._log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        """The process that runs now."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started, and has not ended since."""
        return self._process is not None and self._process.poll() is None

    def start(self, *options: str, wait: bool = True) -> None:
        """
        Start it, again after a ``stop`` or ``kill`` on the same port, and return when it answers.

        ``options`` are for this time.
        """
        for _ in range(PORT_TRIES):
            self._spawn(options)
            if not wait:
                return
            try:
                self.wait()
            except RuntimeError:
                if self._has_run or "Address already in use" not in self.log:
                    raise
                self.kill()
                self._log.write_text("")
                self.port = free_port()
            else:
                return
        raise RuntimeError("there is no free port")

    def wait(self) -> None:
        """Return when it answers."""
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self._process.args} does not start:\n{self.log[-4000:]}")
            time.sleep(0.02)
        self._has_run = True

    def pause(self) -> None:
        """Let it stand still, connections and all, and return when it does."""
        family = self._signal(signal.SIGSTOP)
        wait_until(lambda: all(each.status() == psutil.STATUS_STOPPED for each in family), what="the pause")

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without a word to anybody; what it has given to the system is kept."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in good order; nothing happens if it is not running."""
        self._end(self._stops_with)

    def _spawn(self, options: Sequence[str]) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command(self.port), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self._user,
                env={**os.environ, **self._variables},
                start_new_session=True,
            )
        watchdog().watch(self._process.pid)

    def _signal(self, number: signal.Signals) -> list[psutil.Process]:
        """Tell the server and its children, which in PostgreSQL are no process group."""
        told: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            server = psutil.Process(self.pid)
            for each in (server, *server.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    each.send_signal(number)
                    told.append(each)
        return told

    def _end(self, number: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            if number == signal.SIGKILL:
                self._signal(number)
            else:
                self.resume()  # one that is paused would not hear of it
                process.send_signal(number)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                process.wait()
        watchdog().forget(process.pid)
        self._process = None
