"""Redis, PostgreSQL and MariaDB for benchmarks: on free ports, on the servers' core, as durable as in production."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil
from msgspec import Struct

from benchmarks.node import Missing
from benchmarks.processes import HOST, SERVER_CORE, START_SECONDS, STOP_SECONDS, Usage, starting_on

FOLDERS: Final = ("/usr/sbin", "/usr/local/sbin", *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"))[::-1]))
"""Where Debian has programs that are not on PATH."""

DATABASE: Final = "roomkey"

DURABILITY: Final = {
    "Redis": "appendonly yes, appendfsync everysec",
    "PostgreSQL": "fsync = on, synchronous_commit = on",
    "MariaDB": "innodb_flush_log_at_trx_commit = 1, no binary log",
}
"""What each does before it says that something is stored."""


class Database(Struct, frozen=True):
    """A server that stores: where it is, as ``open_storage`` takes it, and its process."""

    url: str
    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """What it has used so far with everything that it has started, such as a process for each connection."""
        main = psutil.Process(self.pid)
        used = main.cpu_times()
        total = used.user + used.system + used.children_user + used.children_system
        for child in main.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                own = child.cpu_times()
                total += own.user + own.system
        return total

    def usage(self) -> Usage:
        """The same with its memory; what its processes share counts once for each that has touched it."""
        main = psutil.Process(self.pid)
        resident = 0
        for process in (main, *main.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                resident += process.memory_info().rss
        return Usage(self.cpu_seconds(), resident, resident)


def find(program: str) -> str | None:
    """The path of a program of this machine."""
    return shutil.which(program) or shutil.which(program, path=os.pathsep.join(FOLDERS))


@contextmanager
def redis(folder: Path) -> Generator[Database | Missing]:
    """A Redis that puts its log on the disk once a second, as most are run."""
    program = find("redis-server")
    if program is None:
        yield Missing("there is no redis-server")
        return
    port = _free_port()
    command = (
        *(program, "--port", str(port), "--bind", HOST, "--dir", str(folder), "--save", ""),
        *("--appendonly", "yes", "--appendfsync", "everysec"),
    )
    with _running(command, lambda: _answers_ping(port), folder / "redis.log") as pid:
        yield Database(f"redis://{HOST}:{port}/0", port, pid)


@contextmanager
def postgresql(folder: Path) -> Generator[Database | Missing]:
    """A PostgreSQL with its defaults, which keep what was acknowledged, and more memory than those have."""
    program, initdb, ready = find("postgres"), find("initdb"), find("pg_isready")
    if program is None or initdb is None or ready is None:
        yield Missing("there is no PostgreSQL")
        return
    data = folder / "postgresql"
    data.mkdir()
    user = None
    if os.geteuid() == 0:  # it refuses to run as root
        user = "nobody"
        shutil.chown(data, user)
        for each in (folder, folder.parent):
            each.chmod(0o755)
    initialise = (initdb, "--pgdata", str(data), "--username", DATABASE, "--auth", "trust", "--encoding", "UTF8")
    _make(initialise, data, user)
    port = _free_port()
    settings = (
        *(
            "fsync=on",
            "synchronous_commit=on",
            "full_page_writes=on",
            "shared_buffers=256MB",
            "max_wal_size=2GB",
            "max_connections=300",
        ),
        *(f"port={port}", f"listen_addresses={HOST}", "unix_socket_directories="),
    )
    command = (program, "-D", str(data), *(part for setting in settings for part in ("-c", setting)))
    asking = (ready, "-q", "-h", HOST, "-p", str(port))
    with _running(command, lambda: _succeeds(asking), folder / "postgresql.log", user=user) as pid:
        yield Database(f"postgresql://{DATABASE}@{HOST}:{port}/postgres", port, pid)


@contextmanager
def mariadb(folder: Path) -> Generator[Database | Missing]:
    """A MariaDB that has its log on the disk before it acknowledges."""
    program, install, client = find("mariadbd"), find("mariadb-install-db"), find("mariadb")
    if program is None or install is None or client is None:
        yield Missing("there is no MariaDB")
        return
    data = folder / "mariadb"
    user = ("--user=root",) if os.geteuid() == 0 else ()
    initialise = (install, "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal", *user)
    _make((*initialise, "--skip-test-db"), folder, None)
    port = _free_port()
    command = (
        *(program, "--no-defaults", f"--datadir={data}", *user, f"--port={port}", f"--bind-address={HOST}"),
        *(f"--socket={data}/socket", f"--pid-file={data}/pid", "--skip-name-resolve", "--skip-log-bin"),
        *("--innodb-flush-log-at-trx-commit=1", "--innodb-buffer-pool-size=256M", "--innodb-log-file-size=256M"),
    )
    asking = (client, "--no-defaults", "-h", HOST, "-P", str(port), "-u", "root", "-e")
    make = f"CREATE DATABASE IF NOT EXISTS {DATABASE}"
    with _running(command, lambda: _succeeds((*asking, make)), folder / "mariadb.log") as pid:
        yield Database(f"mysql://root@{HOST}:{port}/{DATABASE}", port, pid)


def _make(command: Sequence[str], folder: Path, user: str | None) -> None:
    """Let a program make the files of a server."""
    done = subprocess.run(command, check=False, capture_output=True, user=user, cwd=folder)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} fails: {(done.stderr or done.stdout).decode(errors='replace')[-4000:]}")


@contextmanager
def _running(
    command: Sequence[str], answers: Callable[[], bool], log: Path, *, user: str | None = None
) -> Generator[int]:
    """
    The process of a server that answers; ended when the block is left.

    Raises:
        RuntimeError: If it does not start, with the end of its log.
    """
    with log.open("ab") as output, starting_on(SERVER_CORE):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, user=user)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} does not start: {log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _answers_ping(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]
