"""PostgreSQL: one server, and a database of its own for each test."""

import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.store_servers.process import ServerProcess, find, free_port

USER: Final = "roomkey"

OPTIONS: Final = ("fsync=off", "full_page_writes=off", "max_connections=60", "shared_buffers=64MB")
"""Quick, and as safe when the server is killed as ever: only a power failure would lose something."""


def nobody() -> str | None:
    """The user that the server runs as, because it refuses to run as root."""
    return "nobody" if os.geteuid() == 0 else None


@contextmanager
def postgresql(folder: Path, *options: str) -> Generator[ServerProcess]:
    """A server with its files in ``folder``; ``options`` such as ``max_connections=5`` come last."""
    program, initdb = find("postgres"), find("initdb")
    assert program is not None
    assert initdb is not None
    data = folder / "postgresql"
    data.mkdir()
    user = nobody()
    if user is not None:
        shutil.chown(data, user)
        _open_way(folder)
    initialise = (
        initdb,
        "--pgdata",
        str(data),
        "--username",
        USER,
        "--auth",
        "trust",
        "--no-sync",
        "--encoding",
        "UTF8",
    )
    subprocess.run(initialise, check=True, capture_output=True, user=user, cwd=data)
    port = free_port()
    settings = (*OPTIONS, f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", *options)
    command = (program, "-D", str(data), *(part for setting in settings for part in ("-c", setting)))
    ready = find("pg_isready")
    assert ready is not None
    server = ServerProcess(
        command,
        url=f"postgresql://{USER}@127.0.0.1:{port}/postgres",
        port=port,
        log=folder / "postgresql.log",
        answers=lambda: subprocess.run((ready, "-q", "-h", "127.0.0.1", "-p", str(port)), check=False).returncode == 0,
        user=user,
    )
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _open_way(folder: Path) -> None:
    """Let other users through to ``folder``: pytest's directories are for their owner alone."""
    for each in (folder, *folder.parents):
        if each.stat().st_uid == os.geteuid() and each != Path(each.anchor):
            each.chmod(each.stat().st_mode | 0o011)
