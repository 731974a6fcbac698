"""
The schema, step by step: numbered files, applied once each, in their order.

A step only adds: tables, columns with a default or that may be NULL, indexes. So nodes of the version before go on
working while and after it is made; they name the columns that they read and write, and do not see what is new. What
nobody uses any more is removed by a step of a later release. A schema that is ahead of this Roomkey is therefore fine.

A lock of the server lets one node at a time apply them. PostgreSQL and SQLite make each step whole or not at all; with
MariaDB and MySQL every statement ends a transaction, so each can be run again (IF NOT EXISTS).
"""

import re
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final, NamedTuple

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.sql.dialects import Dialect
from roomkey.backends.sql.statements import execute
from roomkey.errors import Storage

_log = structlog.get_logger("roomkey.storage")

LOCK_SECONDS: Final = 60
"""Maximum time to wait for another node that is applying migrations, on MariaDB and MySQL."""

_LOCK_NUMBER: Final = 0x726F_6F6D_6B65_79  # "roomkey"

_TABLE: Final[Mapping[Dialect, str]] = {
    Dialect.POSTGRESQL: (
        "CREATE TABLE IF NOT EXISTS roomkey_schema_migrations (number integer PRIMARY KEY, name text NOT NULL, "
        "applied_at timestamptz NOT NULL DEFAULT now())"
    ),
    Dialect.MYSQL: (
        "CREATE TABLE IF NOT EXISTS roomkey_schema_migrations (number integer NOT NULL PRIMARY KEY, "
        "name varchar(200) NOT NULL, applied_at timestamp NOT NULL DEFAULT current_timestamp) ENGINE = InnoDB"
    ),
    Dialect.SQLITE: (
        "CREATE TABLE IF NOT EXISTS roomkey_schema_migrations (number integer NOT NULL PRIMARY KEY, "
        "name text NOT NULL, applied_at text NOT NULL DEFAULT current_timestamp)"
    ),
}

_HAS_TABLE: Final[Mapping[Dialect, str]] = {
    Dialect.POSTGRESQL: "SELECT 1 WHERE to_regclass('roomkey_schema_migrations') IS NOT NULL",
    Dialect.MYSQL: (
        "SELECT 1 FROM information_schema.tables "
        "WHERE table_schema = database() AND table_name = 'roomkey_schema_migrations'"
    ),
    Dialect.SQLITE: "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'roomkey_schema_migrations'",
}

_STATEMENT: Final = re.compile(r"(?:\$\$.*?\$\$|.)+?(?:;\s*$|\Z)", re.MULTILINE | re.DOTALL)
"""Up to a semicolon at the end of a line; those of a function stand between dollars."""

_COMMENT: Final = re.compile(r"^\s*--.*$", re.MULTILINE)


class Migration(NamedTuple):
    """One step: the file ``NNNN_name.sql``."""

    number: int
    name: str
    statements: list[str]


def all_migrations(dialect: Dialect, folder: Traversable | None = None) -> list[Migration]:
    """Every step of a dialect in order, from ``folder`` or the one that is shipped."""
    place = folder or files("roomkey.backends.sql").joinpath("schema", dialect.value)
    names = sorted(each.name for each in place.iterdir() if each.name.endswith(".sql"))
    return [_migration(place, name) for name in names]


def _migration(folder: Traversable, name: str) -> Migration:
    text = _COMMENT.sub("", folder.joinpath(name).read_text(encoding="utf-8"))
    statements = [part.strip().removesuffix(";") for part in _STATEMENT.findall(text)]
    number, _, _ = name.partition("_")
    return Migration(int(number), name.removesuffix(".sql"), [each for each in statements if each])


async def pending(connection: AsyncConnection, dialect: Dialect, folder: Traversable | None = None) -> list[str]:
    """The names of the steps that were not made yet."""
    made = await _made(connection, dialect)
    return [each.name for each in all_migrations(dialect, folder) if each.number not in made]


async def apply(connection: AsyncConnection, dialect: Dialect, folder: Traversable | None = None) -> list[str]:
    """Make the steps that were not made yet; their names. The connection is good for nothing else afterwards."""
    if not await pending(connection, dialect, folder):
        return []
    steps = all_migrations(dialect, folder)
    match dialect:
        case Dialect.POSTGRESQL:
            return await _apply_postgresql(connection, steps)
        case Dialect.MYSQL:
            return await _apply_mysql(connection, steps)
        case Dialect.SQLITE:
            return await _apply_sqlite(connection, steps)


async def _made(connection: AsyncConnection, dialect: Dialect) -> set[int]:
    if not await execute(connection, dialect, _HAS_TABLE[dialect], ()):
        return set()
    rows = await execute(connection, dialect, "SELECT number FROM roomkey_schema_migrations", ())
    return {number for (number,) in rows}


async def _apply_postgresql(connection: AsyncConnection, steps: list[Migration]) -> list[str]:
    dialect = Dialect.POSTGRESQL

    async def say(statement: str) -> None:
        await execute(connection, dialect, statement, ())

    # A step may take longer than what is asked otherwise, and so may another node that is at it.
    await say("SET statement_timeout = 0")
    await say("SET lock_timeout = 0")
    await say(f"SELECT pg_advisory_lock({_LOCK_NUMBER})")
    try:
        await _make_schema(connection)
        await say(_TABLE[dialect])
        done: list[str] = []
        for step in await _missing(connection, dialect, steps):
            await say("BEGIN")
            for statement in step.statements:
                await say(statement)
            await _note(connection, dialect, step)
            await say("COMMIT")
            done.append(step.name)
    except BaseException:
        await say("ROLLBACK")
        raise
    else:
        return done
    finally:
        await say(f"SELECT pg_advisory_unlock({_LOCK_NUMBER})")
        await say("RESET statement_timeout")
        await say("RESET lock_timeout")


async def _make_schema(connection: AsyncConnection) -> None:
    """Make the schema that the URL names, if it names one: then there is none as long as it does not exist."""
    dialect = Dialect.POSTGRESQL
    text = "SELECT current_schema(), current_setting('search_path')"
    ((schema, path),) = await execute(connection, dialect, text, ())
    if schema is None and "," not in path:
        await execute(connection, dialect, f"CREATE SCHEMA IF NOT EXISTS {path}", ())


async def _apply_mysql(connection: AsyncConnection, steps: list[Migration]) -> list[str]:
    dialect = Dialect.MYSQL
    lock = "concat('roomkey.', left(sha2(database(), 256), 40))"  # names of locks are the whole server's
    ((got,),) = await execute(connection, dialect, f"SELECT get_lock({lock}, {LOCK_SECONDS})", ())
    if got != 1:
        raise Storage("another node has been applying migrations for a minute; try again when it is done")
    try:
        await execute(connection, dialect, _TABLE[dialect], ())
        done: list[str] = []
        for step in await _missing(connection, dialect, steps):
            for statement in step.statements:
                await execute(connection, dialect, statement, ())
            await _note(connection, dialect, step)
            done.append(step.name)
        return done
    finally:
        await execute(connection, dialect, f"DO release_lock({lock})", ())


async def _apply_sqlite(connection: AsyncConnection, steps: list[Migration]) -> list[str]:
    dialect = Dialect.SQLITE
    await execute(connection, dialect, "BEGIN IMMEDIATE", ())
    try:
        await execute(connection, dialect, _TABLE[dialect], ())
        missing = await _missing(connection, dialect, steps)
        for step in missing:
            for statement in step.statements:
                await execute(connection, dialect, statement, ())
            await _note(connection, dialect, step)
        await execute(connection, dialect, "COMMIT", ())
    except BaseException:
        await execute(connection, dialect, "ROLLBACK", ())
        raise
    return [step.name for step in missing]


async def _missing(connection: AsyncConnection, dialect: Dialect, steps: list[Migration]) -> list[Migration]:
    """What is still to be done, looked at under the lock."""
    made = await _made(connection, dialect)
    return [step for step in steps if step.number not in made]


async def _note(connection: AsyncConnection, dialect: Dialect, step: Migration) -> None:
    text = f"INSERT INTO roomkey_schema_migrations (number, name) VALUES ({step.number}, '{step.name}')"  # noqa: S608
    await execute(connection, dialect, text, ())
    _log.info("storage_migrated", migration=step.name)
