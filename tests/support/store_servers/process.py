"""A server of somebody else in a process that the test may kill, pause and start again."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

START_SECONDS: Final = 30
STOP_SECONDS: Final = 20

PROGRAMS: Final = {"redis": "redis-server", "postgresql": "postgres", "mariadb": "mariadbd"}
"""The program of each kind of server."""

FOLDERS: Final = ("/usr/sbin", "/usr/local/sbin", *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"))[::-1]))
"""Where Debian has programs that are not on PATH."""


def find(program: str) -> str | None:
    """The path of ``program``, or ``None``."""
    return shutil.which(program) or shutil.which(program, path=os.pathsep.join(FOLDERS))


def is_there(kind: str) -> bool:
    """Whether a server of this kind can be started on this machine."""
    return find(PROGRAMS[kind]) is not None


def missing(kind: str) -> str:
    """Why a test is skipped that needs one."""
    return f"there is no {PROGRAMS[kind]} on this machine; script/test installs it with apt when root"


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ServerProcess:
    """
    A server and where it listens.

    ``url`` is one that ``open_storage`` takes. ``answers`` says whether it is ready; it is asked until it is.
    """

    def __init__(
        self, command: Sequence[str], *, url: str, port: int, log: Path, answers: Callable[[], bool], user: str | None
    ) -> None:
        self.url = url
        self.port = port
        self._command = command
        self._log = log
        self._answers = answers
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process that runs now."""
        assert self._process is not None
        return self._process.pid

    def start(self, *, wait: bool = True) -> None:
        """Start it, again after a ``stop`` or ``kill``, and return when it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=self._user, start_new_session=True
            )
        if wait:
            self.wait()

    def wait(self) -> None:
        """Return when it answers."""
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"{self._command[0]} does not start:\n{self._log.read_text(errors='replace')[-4000:]}"
                )
            time.sleep(0.02)

    def pause(self) -> None:
        """Let it stand still, connections and all."""
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.killpg(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it as a power failure would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in good order; nothing happens if it is not running."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        self._process = None
        for each in (number, signal.SIGCONT):  # one that is paused would not hear a SIGTERM
            try:
                os.killpg(process.pid, each)
            except ProcessLookupError:
                break
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
