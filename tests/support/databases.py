"""A database of its own for each test: a file of SQLite, a schema of PostgreSQL, a database of MariaDB."""

from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.recovery import RecoverySettings
from roomkey.backends.sql import DatabaseSettings
from roomkey.backends.sql.database import Database
from roomkey.backends.sql.shared_queries import MICROSECOND
from roomkey.backends.sql.statements import Query, run
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


async def let_time_pass(database: Database, by: timedelta, *tables: str) -> None:
    """
    Let everything in these tables end so much earlier.

    The clock is that of the server, which nobody can set; for what is stored there is no difference, and nobody has to
    wait, nor to be quick.
    """

    async def work(connection: AsyncConnection) -> None:
        for table in tables:
            await run(connection, Query(f"UPDATE {table} SET ends = ends - ?", database.dialect), by // MICROSECOND)

    await database.write(work, may_repeat=False)
