"""MariaDB: one server, and a database of its own for each test."""

import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.store_servers.process import ServerProcess, find, free_port

DATABASE: Final = "roomkey"

OPTIONS: Final = (
    *("--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=32M"),
    *("--max-connections=60", "--performance-schema=OFF", "--skip-name-resolve", "--skip-log-bin"),
)
"""Quick, and as safe when the server is killed as ever: only a power failure would lose something."""


@contextmanager
def mariadb(folder: Path, *options: str) -> Generator[ServerProcess]:
    """A server with its files in ``folder``, and the database ``roomkey``; ``options`` come last."""
    program, install, client = find("mariadbd"), find("mariadb-install-db"), find("mariadb")
    assert program is not None
    assert install is not None
    assert client is not None
    data = folder / "mariadb"
    user = ("--user=root",) if os.geteuid() == 0 else ()
    initialise = (install, "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal", *user)
    subprocess.run((*initialise, "--skip-test-db"), check=True, capture_output=True)
    port = free_port()
    command = (
        *(program, "--no-defaults", f"--datadir={data}", *user, f"--port={port}", "--bind-address=127.0.0.1"),
        *(f"--socket={data}/socket", f"--pid-file={data}/pid", *OPTIONS, *options),
    )
    ask = (client, "--no-defaults", "-h", "127.0.0.1", "-P", str(port), "-u", "root", "-e")
    make = f"CREATE DATABASE IF NOT EXISTS {DATABASE}"
    server = ServerProcess(
        command,
        url=f"mysql://root@127.0.0.1:{port}/{DATABASE}",
        port=port,
        log=folder / "mariadb.log",
        answers=lambda: subprocess.run((*ask, make), check=False, capture_output=True).returncode == 0,
        user=None,
    )
    server.start()
    try:
        yield server
    finally:
        server.stop()
