"""A database of its own for each test: a file of SQLite, a schema of PostgreSQL, a database of MariaDB."""

from itertools import count
from pathlib import Path
from typing import Final

import pytest

from roomkey.backends.recovery import RecoverySettings
from roomkey.backends.sql import DatabaseSettings
from tests.support.store_servers import MariaDBProcess

PATIENT: Final = DatabaseSettings(
    migrate=True, pool_timeout=30, connect_timeout=30, lock_timeout=30, recovery=RecoverySettings(timeout=60)
)
"""The machine may be busy with other tests, and its disk with other servers."""

_NUMBERS: Final = count(1)


def empty_database(dialect: str, folder: Path, request: pytest.FixtureRequest) -> str:
    """The URL of one with nothing in it, not even the schema."""
    match dialect:
        case "sqlite":
            return f"sqlite:///{folder}/roomkey.db"
        case "mariadb":
            server: MariaDBProcess = request.getfixturevalue("mariadb_server")
            name = f"empty_{next(_NUMBERS)}"
            server.ask(f"CREATE DATABASE {name}")
            return server.url_of(name)
        case _:
            # The migrations make it. That is quicker than a database of its own.
            # Nothing has to be removed: the server goes with the run.
            return f"{request.getfixturevalue('postgresql_server').url}?schema=test_{next(_NUMBERS)}"
