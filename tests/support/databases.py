"""Databases for tests: a server of each kind for the whole run, whose tables are empty when a test begins."""

import asyncio
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.sql.database import Database, DatabaseSettings
from roomkey.backends.sql.dialects import Dialect
from roomkey.backends.sql.statements import execute
from tests.support.store_servers import ServerProcess, is_there, mariadb, missing, postgresql

SERVERS: Final[dict[str, Callable[[Path], AbstractContextManager[ServerProcess]]]] = {
    "postgresql": postgresql,
    "mariadb": mariadb,
}

KEPT: Final = frozenset({"roomkey_schema_migrations", "roomkey_partitions"})

_TABLES: Final = {
    Dialect.POSTGRESQL: (
        "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema() "
        "AND table_name LIKE 'roomkey%'"
    ),
    Dialect.MYSQL: (
        "SELECT table_name FROM information_schema.tables WHERE table_schema = database() "
        "AND table_name LIKE 'roomkey%'"
    ),
}


def started(kind: str, folder: Path) -> Generator[ServerProcess]:
    """A server of this kind, or a skipped test."""
    if not is_there(kind):
        pytest.skip(missing(kind))
    with SERVERS[kind](folder) as server:
        yield server


async def empty(url: str) -> None:
    """Make the tables of Roomkey, if they are missing, and empty them."""
    database = Database(url, DatabaseSettings(migrate=True, pool_size=1))
    async with database:

        async def work(connection: AsyncConnection) -> None:
            for (table,) in await execute(connection, database.dialect, _TABLES[database.dialect], ()):
                if table not in KEPT:
                    await execute(connection, database.dialect, f"DELETE FROM {table}", ())

        await database.write(work, may_repeat=True)


def emptied(url: str) -> str:
    """``url``, whose tables are empty now."""
    asyncio.run(empty(url))
    return url
