"""MariaDB: one server, and a database of its own for each test."""

import os
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

from tests.support.certificates import Certificates
from tests.support.store_servers.folders import copy_template
from tests.support.store_servers.process import ServerProcess, found

DATABASE: Final = "roomkey"

FILES: Final = ("--innodb-log-file-size=32M", "--innodb-undo-tablespaces=0")
"""What the files were made with is what they are used with."""

OPTIONS: Final = (
    *("--innodb-flush-log-at-trx-commit=2", "--innodb-flush-method=nosync", "--innodb-buffer-pool-size=64M"),
    *("--max-connections=60", "--performance-schema=OFF", "--skip-name-resolve", "--skip-log-bin", *FILES),
)
"""Quick, and as safe when the server is killed as ever: only a power failure would lose something."""


class MariaDBProcess(ServerProcess):
    """A MariaDB server, with a socket in its folder through which an operator may do anything."""

    def __init__(self, folder: Path, *options: str, url: str, variables: Mapping[str, str] | None = None) -> None:
        """``options`` are those of ``mariadbd``."""
        self.data = folder / "mariadb"
        self._numbers = count(1)
        command = (
            *(found("mariadbd"), "--no-defaults", f"--datadir={self.data}", *_user(), "--bind-address=127.0.0.1"),
            *(f"--socket={self.data}/socket", f"--pid-file={self.data}/pid", *OPTIONS, *options),
        )
        super().__init__(
            lambda port: [*command, f"--port={port}"],
            url=url,
            log=folder / "mariadb.log",
            answers=self._has_its_database,
            variables=variables,
        )

    def ask(self, *statements: str, database: str = "") -> str:
        """What the server answers to an operator's statements."""
        return self._run(*statements, database=database).stdout.strip()

    @contextmanager
    def database(self) -> Generator[str]:
        """An empty database of its own; gives its name."""
        name = f"test_{next(self._numbers)}"
        self.ask(f"CREATE DATABASE {name}")
        yield name
        self.ask(f"DROP DATABASE {name}")

    def url_of(self, database: str) -> str:
        """Where the storage in this database is."""
        place, _, query = self.url.partition("?")
        return f"{place.removesuffix(f'/{DATABASE}')}/{database}{'?' if query else ''}{query}"

    def _run(self, *statements: str, database: str = "", check: bool = True) -> "subprocess.CompletedProcess[str]":
        where = ("--no-defaults", f"--socket={self.data}/socket", "-u", "root", "-N", "-B")
        command = (found("mariadb"), *where, "-e", "; ".join(statements), *([database] if database else []))
        return subprocess.run(command, check=check, capture_output=True, text=True)

    def _has_its_database(self) -> bool:
        """By the socket in its folder, so that no other server is taken for it."""
        is_there = (self.data / "socket").exists()
        return is_there and self._run(f"CREATE DATABASE IF NOT EXISTS {DATABASE}", check=False).returncode == 0


@contextmanager
def mariadb(
    folder: Path, *options: str, tls: Certificates | None = None, variables: Mapping[str, str] | None = None
) -> Generator[MariaDBProcess]:
    """A server with its files in ``folder``, and the database ``roomkey``; ``options`` come last."""
    copy_template("mariadb", folder / "mariadb", _initialise)
    url = f"mysql://root@127.0.0.1:{{port}}/{DATABASE}"
    if tls is not None:
        files = (f"--ssl-cert={tls.certificate}", f"--ssl-key={tls.key}", f"--ssl-ca={tls.authority}")
        options = (*files, "--require-secure-transport=ON", *options)
        url += f"?sslmode=verify-full&sslrootcert={tls.authority}"
    server = MariaDBProcess(folder, *options, url=url, variables=variables)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _user() -> tuple[str, ...]:
    return ("--user=root",) if os.geteuid() == 0 else ()


def _initialise(data: Path) -> None:
    how = ("--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve", *FILES, *_user())
    command = (found("mariadb-install-db"), "--no-defaults", f"--datadir={data}", *how)
    subprocess.run(command, check=True, capture_output=True)
