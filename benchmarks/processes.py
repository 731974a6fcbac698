"""The processes that are measured: started on a core of their own, watched, and ended without exception."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final, Protocol

import psutil
from msgspec import Struct

from roomkey.security import apikeys, masterkey

SERVER_CORE: Final = 0
LOAD_CORE: Final = 1

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 15.0

HOST: Final = "127.0.0.1"

HALF_A_TICK_SECONDS: Final = 0.005


class Usage(Struct, frozen=True):
    """What a process has used since it was started. Memory in bytes; the peak is that of its whole life."""

    cpu_seconds: float
    resident: int
    peak: int

    def since(self, before: "Usage") -> float:
        """Seconds of processor time between two looks; at least half a tick of the clock that counts them."""
        return max(self.cpu_seconds - before.cpu_seconds, HALF_A_TICK_SECONDS)


class Used(Protocol):
    """One process or several, whose use of the machine is known."""

    def usage(self) -> Usage:
        """What it has used so far, in all."""
        ...


class Started:
    """A server that listens on ``port``."""

    def __init__(
        self, process: subprocess.Popen[bytes], port: int, key: str = "", *, errors: IO[bytes] | None = None
    ) -> None:
        self.process = process
        self._errors = errors
        self.port = port
        self.key = key
        """An API key that it accepts, if it is Roomkey."""

    def usage(self) -> Usage:
        """What it has used so far."""
        return usage_of(self.process.pid)

    def log_lines(self) -> int:
        """How many lines it has written to standard error so far."""
        if self._errors is None:
            return 0
        size = os.fstat(self._errors.fileno()).st_size
        return os.pread(self._errors.fileno(), size, 0).count(b"\n")


def usage_of(pid: int) -> Usage:
    """What the process has used so far, in all its threads."""
    process = psutil.Process(pid)
    times, resident = process.cpu_times(), process.memory_info().rss
    return Usage(times.user + times.system, resident, _peak(pid) or resident)


def _peak(pid: int) -> int | None:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    kilobytes = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")), None)
    return None if kilobytes is None else int(kilobytes) * 1024


def run_on(core: int) -> None:
    """Keep this process, and what it starts from now on, on one core, where there are several and that is possible."""
    if _can_pin():
        os.sched_setaffinity(0, {core})


@contextmanager
def starting_on(core: int) -> Generator[None]:
    """Children inherit where their parent runs at the moment when they are started."""
    if not _can_pin():
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _can_pin() -> bool:
    return hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > LOAD_CORE


@contextmanager
def running(command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> Generator[Started]:
    """
    A server that prints a line ending in ``:PORT`` or `` PORT`` when it listens; ended when the block is left.

    Raises:
        RuntimeError: If it does not start, or is found to have ended when something fails, with what it wrote to
            standard error.
    """
    with tempfile.TemporaryFile() as errors:
        with starting_on(SERVER_CORE):
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**_environment(), **(environment or {})},
            )
        try:
            yield Started(process, _port(process), errors=errors)
        except Exception as error:
            if process.poll() is None:
                raise
            raise RuntimeError(f"{' '.join(command)[:200]} has ended: {_said(errors)}") from error
        finally:
            _end(process)


def _environment() -> dict[str, str]:
    """Ours without what configures Roomkey."""
    return {name: text for name, text in os.environ.items() if not name.startswith(("ROOMKEY_", "SESSION_"))}


def _port(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    # The clock that reading a pipe does not have: a silent server is killed, and the line is empty then.
    patience = threading.Timer(START_SECONDS, process.kill)
    patience.start()
    try:
        line = process.stdout.readline().decode().strip()
    finally:
        patience.cancel()
    port = line.replace(":", " ").rpartition(" ")[2]
    if not port.isdecimal():
        process.wait(STOP_SECONDS)
        raise RuntimeError(f"it did not start: {line}")
    return int(port)


def _said(errors: IO[bytes]) -> str:
    """The end of what it wrote to standard error."""
    errors.seek(0)
    return errors.read().decode(errors="replace").strip()[-4000:]


def end_children() -> None:
    """End every process that this one has started."""
    children = psutil.Process().children(recursive=True)
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.terminate()
    _, stubborn = psutil.wait_procs(children, STOP_SECONDS)
    for child in stubborn:
        with suppress(psutil.NoSuchProcess):
            child.kill()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


UNTHROTTLED: Final[Mapping[str, str]] = {
    # Limits stay switched on, and are checked for every message, but benchmarks shall not run into them.
    "realtime.messages_per_second": "1000000",
    "realtime.message_burst": "1000000",
    "realtime.traffic_per_second_bytes": "1GB",
    "realtime.traffic_burst_bytes": "1GB",
    "realtime.handshakes_per_second": "1000000",
    "realtime.handshake_burst": "1000000",
    "limits.session_requests_per_second": "1000000",
    "limits.session_request_burst": "1000000",
    "limits.key_requests_per_second": "1000000",
    "limits.key_request_burst": "1000000",
    "limits.address_requests_per_second": "1000000",
    "limits.address_request_burst": "1000000",
    "limits.max_sockets_per_address": "1000000",
    "documents.messages_per_second": "1000000",
    "documents.message_burst": "1000000",
    "documents.traffic_per_second_bytes": "1GB",
    "documents.traffic_burst_bytes": "1GB",
}


class Secrets(Struct, frozen=True):
    """What all nodes on one storage have: an API key, and what their tokens are signed with."""

    key: str
    digest: str
    master: str


def new_secrets() -> Secrets:
    """Secrets that nobody else has."""
    key, digest = apikeys.mint()
    return Secrets(key, digest, masterkey.generate())


@contextmanager
def roomkey(
    *, storage: str = "memory", settings: Mapping[str, str] | None = None, secrets: Secrets | None = None
) -> Generator[Started]:
    """
    ``roomkey serve`` as in production: sessions need an API key to be made and a token to be used.

    ``storage`` is ``memory``, ``file`` for LMDB in a new directory, or the URL of a server; nodes on one server are
    given the same ``secrets``. Every session may write everywhere.
    """
    secrets = secrets or new_secrets()
    chosen = {"access.default_grants": '[{"documents": "**", "access": "write"}]', **UNTHROTTLED, **(settings or {})}
    flags = [flag for name, text in chosen.items() for flag in ("--set", f"{name}={text}")]
    command = [sys.executable, "-m", "roomkey", "serve", "--port", "0", "--storage", storage]
    with (
        tempfile.TemporaryDirectory(prefix="roomkey-benchmark-") as folder,
        running(
            [*command, "--data", folder, *flags],
            environment={
                "ROOMKEY_API_KEYS": f"benchmark:admin:{secrets.digest}",
                **({"ROOMKEY_MASTER_KEY": secrets.master} if "://" in storage else {}),
            },
        ) as started,
    ):
        started.key = secrets.key
        yield started


class Meter:
    """Measures a stretch of work: seconds on the clock, and of the processor on both sides."""

    def __init__(self, server: Used) -> None:
        self._server = server
        self._before = server.usage()
        self._own = time.process_time()
        self._begun = time.perf_counter()

    def measures(self, count: int, thing: str, things: str) -> dict[str, tuple[float, str]]:
        """``count`` things were done since: how many per second, what each cost both sides, and how busy they were."""
        seconds = time.perf_counter() - self._begun
        own = time.process_time() - self._own
        after = self._server.usage()
        cpu = after.since(self._before)
        return {
            things: (count / seconds, "/s"),
            f"CPU per {thing}": (cpu / max(count, 1) * 1e6, "µs"),
            f"load CPU per {thing}": (own / max(count, 1) * 1e6, "µs"),
            "server CPU": (cpu / seconds * 100, "%"),
            "load CPU": (own / seconds * 100, "%"),
            "peak memory": (after.peak / 1e6, "MB"),
        }
