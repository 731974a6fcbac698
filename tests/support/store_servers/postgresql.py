"""PostgreSQL: one server, and a database of its own for each test."""

import os
import shutil
import signal
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

from tests.support.certificates import Certificates
from tests.support.store_servers.folders import copy_template
from tests.support.store_servers.process import ServerProcess, found

USER: Final = "roomkey"

OPTIONS: Final = ("fsync=off", "full_page_writes=off", "max_connections=60", "shared_buffers=64MB")
"""Quick, and as safe when the server is killed as ever: only a power failure would lose something."""

RULES: Final = f"""\
local all all trust
host all {USER} 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
"""
"""Who comes in how: the user of the tests without a password, those that a test makes with one."""


def nobody() -> str | None:
    """The user that the server runs as, because it refuses to run as root."""
    return "nobody" if os.geteuid() == 0 else None


class PostgreSQLProcess(ServerProcess):
    """A PostgreSQL server, with a socket in its folder through which an operator may do anything."""

    def __init__(self, folder: Path, *options: str, url: str, variables: Mapping[str, str] | None = None) -> None:
        """``options`` are settings as ``name=value``."""
        self.data = folder / "postgresql"
        self._numbers = count(1)
        settings = (
            *OPTIONS,
            *("port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self.data}", *options),
        )
        arguments = [part for setting in settings for part in ("-c", setting)]
        command = (found("postgres"), "-D", str(self.data), *arguments)
        super().__init__(
            lambda port: [part.replace("{port}", str(port)) for part in command],
            url=url,
            log=folder / "postgresql.log",
            answers=self._says_it_is_ready,
            user=nobody(),
            variables=variables,
            stops_with=signal.SIGINT,  # without waiting until everybody has hung up
        )

    def ask(self, *statements: str, database: str = "postgres") -> str:
        """What the server answers to an operator's statements, each a transaction of its own."""
        commands = [part for statement in statements for part in ("-c", statement)]
        where = ("-h", str(self.data), "-p", str(self.port), "-U", USER, "-d", database)
        command = (found("psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *where, *commands)
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    @contextmanager
    def database(self) -> Generator[str]:
        """An empty database of its own; gives its name."""
        name = f"test_{next(self._numbers)}"
        self.ask(f"CREATE DATABASE {name}")
        yield name
        self.ask(f"DROP DATABASE {name} WITH (FORCE)")

    def url_of(self, database: str) -> str:
        """Where the storage in this database is."""
        place, _, query = self.url.partition("?")
        return f"{place.removesuffix('/postgres')}/{database}{'?' if query else ''}{query}"

    def _says_it_is_ready(self) -> bool:
        """By the file that only the process itself writes, so that no other server is taken for it."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"


@contextmanager
def postgresql(
    folder: Path, *options: str, tls: Certificates | None = None, variables: Mapping[str, str] | None = None
) -> Generator[PostgreSQLProcess]:
    """A server with its files in ``folder``; ``options`` such as ``max_connections=5`` come last."""
    data = folder / "postgresql"
    copy_template("postgresql", data, _initialise)
    (data / "pg_hba.conf").write_text(RULES.replace("host ", "hostssl ") if tls else RULES)
    _open_way(folder)
    url = f"postgresql://{USER}@127.0.0.1:{{port}}/postgres"
    if tls is not None:
        options = (*_tls_settings(data, tls), *options)
        url += f"?sslmode=verify-full&sslrootcert={tls.authority}"
    server = PostgreSQLProcess(folder, *options, url=url, variables=variables)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _initialise(data: Path) -> None:
    user = nobody()
    if user is not None:
        shutil.chown(data, user)
        _open_way(data.parent)
    data.chmod(0o700)
    how = ("--auth", "trust", "--no-sync", "--encoding", "UTF8", "--locale", "C")
    command = (found("initdb"), "--pgdata", str(data), "--username", USER, *how)
    subprocess.run(command, check=True, capture_output=True, user=user, cwd=data)


def _tls_settings(data: Path, tls: Certificates) -> tuple[str, ...]:
    """The server insists that its key is its own."""
    for path, name in ((tls.certificate, "server.crt"), (tls.key, "server.key"), (tls.authority, "root.crt")):
        copy = data / name
        shutil.copyfile(path, copy)
        copy.chmod(0o600)
        shutil.chown(copy, nobody() or os.geteuid())
    return ("ssl=on", "ssl_cert_file=server.crt", "ssl_key_file=server.key", "ssl_ca_file=root.crt")


def _open_way(folder: Path) -> None:
    """Let other users through to ``folder``: pytest's directories are for their owner alone."""
    for each in (folder, *folder.parents):
        if each.stat().st_uid == os.geteuid() and each != Path(each.anchor):
            each.chmod(each.stat().st_mode | 0o011)
