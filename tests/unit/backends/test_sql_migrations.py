"""The schema is made step by step, once, whoever asks and however often."""

import asyncio
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from roomkey.backends.sql import Database, DatabaseSessionStorage, DatabaseSettings, migrations
from roomkey.backends.sql.dialects import Dialect
from roomkey.backends.sql.statements import execute
from roomkey.errors import ConfigurationError
from roomkey.testing.storage import disagreements
from roomkey.testing.storage.suite import store
from tests.support.databases import empty_database

SERVERS = ["postgresql", "mariadb"]
EVERYWHERE = ["sqlite", *SERVERS]


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    return lambda dialect: empty_database(dialect, tmp_path, request)


def steps(database: Database) -> list[str]:
    return [each.name for each in migrations.all_migrations(database.dialect)]


def folder_with(path: Path, dialect: Dialect, extra: str) -> Path:
    """The steps that are shipped, and one more."""
    for file in files("roomkey.backends.sql").joinpath("schema", dialect.value).iterdir():
        (path / file.name).write_text(file.read_text())
    (path / "0900_later.sql").write_text(extra)
    return path


@pytest.mark.parametrize("dialect", EVERYWHERE)
async def test_a_second_run_finds_nothing_to_do(url: Callable[[str], str], dialect: str) -> None:
    async with Database(url(dialect)).unchecked() as database:
        before = await database.pending_migrations()
        first = await database.migrate()
        second = await database.migrate()

        assert before == first == steps(database)
        assert second == await database.pending_migrations() == []


@pytest.mark.parametrize("dialect", EVERYWHERE)
async def test_two_at_once_make_each_step_once(url: Callable[[str], str], dialect: str) -> None:
    place = url(dialect)

    async with Database(place).unchecked() as one, Database(place).unchecked() as other:
        done = await asyncio.gather(one.migrate(), other.migrate())

        assert sorted(sum(done, [])) == steps(one)
        assert await one.pending_migrations() == []
        ((partitions,),) = await one.read(
            lambda connection: execute(connection, one.dialect, "SELECT count(*) FROM roomkey_partitions", ())
        )
        assert partitions == 256


@pytest.mark.parametrize("dialect", SERVERS)
async def test_a_server_refuses_a_schema_that_is_too_old_and_says_what_to_run(
    url: Callable[[str], str], dialect: str
) -> None:
    storage = DatabaseSessionStorage(url(dialect))

    with pytest.raises(ConfigurationError, match="run `roomkey migrate`") as caught:
        await storage.__aenter__()

    assert "0001_sessions" in str(caught.value)


@pytest.mark.parametrize("dialect", EVERYWHERE)
async def test_nodes_of_the_version_before_work_beside_a_schema_that_is_ahead(
    url: Callable[[str], str], dialect: str, tmp_path: Path
) -> None:
    async with DatabaseSessionStorage(url(dialect), DatabaseSettings(migrate=True)) as storage:
        session = await store(storage, "before", active=True)
        database = storage._database
        later = folder_with(
            tmp_path,
            database.dialect,
            "ALTER TABLE roomkey_sessions ADD COLUMN colour integer NOT NULL DEFAULT 0;\n"
            "ALTER TABLE roomkey_events ADD COLUMN colour integer;\n"
            "ALTER TABLE roomkey_partitions ADD COLUMN colour integer;\n"
            "CREATE TABLE roomkey_colours (id integer PRIMARY KEY);\n",
        )

        async with database._connection(database._writers) as connection:
            made = await migrations.apply(connection, database.dialect, later)
        after = await store(storage, "after", active=True)

        assert made == ["0900_later"]
        assert await storage.get_many([session.id, after.id]) == [session, after]
        assert await disagreements(storage) == []


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
async def test_a_step_that_fails_leaves_nothing(url: Callable[[str], str], dialect: str, tmp_path: Path) -> None:
    async with Database(url(dialect), DatabaseSettings(migrate=True)) as database:
        broken = folder_with(tmp_path, database.dialect, "CREATE TABLE roomkey_half (id integer);\nCREATE NONSENSE;\n")

        with pytest.raises(Exception, match="syntax error"):
            async with database._connection(database._writers) as connection:
                await migrations.apply(connection, database.dialect, broken)

        count = "SELECT count(*) FROM roomkey_half"
        with pytest.raises(Exception, match="roomkey_half"):
            async with database._connection(database._readers) as connection:
                await execute(connection, database.dialect, count, ())
        assert await database.pending_migrations() == []
