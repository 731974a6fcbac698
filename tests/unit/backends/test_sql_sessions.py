"""What the suite of storages cannot ask for: two nodes, rows that come back, searches of many pages."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.recovery import RecoverySettings
from roomkey.backends.sql import Database, DatabaseSessionStorage, DatabaseSettings, reads
from roomkey.backends.sql.rows import SessionQueries
from roomkey.backends.sql.statements import Query, Row, load, run
from roomkey.domain.policy import OnCap, SessionPolicy
from roomkey.domain.session import Expired, SessionFilter, SessionState, Suspended, ViolationRecorded
from roomkey.errors import ConfigurationError, Conflict
from roomkey.ports import Page
from roomkey.testing.storage import disagreements
from roomkey.testing.storage.races import at_once
from roomkey.testing.storage.suite import MINUTE, NOON, SECOND, change, everything, found, issue, store
from tests.support.databases import empty_database

SETTINGS = DatabaseSettings(migrate=True, pool_size=3)
AT_ONCE = DatabaseSettings(migrate=True, pool_size=3, recovery=RecoverySettings(tries=1))
"""Nothing may fail, not even once: whoever has to wait for others waits for their locks."""
EVERYWHERE = pytest.mark.parametrize("dialect", ["sqlite", "postgresql", "mariadb"])


@asynccontextmanager
async def one_node(
    dialect: str, folder: Path, request: pytest.FixtureRequest, settings: DatabaseSettings = SETTINGS
) -> AsyncGenerator[tuple[DatabaseSessionStorage, Database]]:
    database = Database(empty_database(dialect, folder, request), settings)
    async with DatabaseSessionStorage(database) as storage:
        yield storage, database


async def ask(database: Database, text: str, *parameters: object) -> list[Row]:
    query = Query(text, database.dialect)
    return await database.write(lambda connection: run(connection, query, *parameters), may_repeat=True)


@EVERYWHERE
async def test_two_nodes_agree_on_the_cap_and_on_the_log(
    dialect: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = empty_database(dialect, tmp_path, request)
    policy = SessionPolicy(cap=5, on_cap=OnCap.REFUSE)
    async with DatabaseSessionStorage(url, AT_ONCE) as one, DatabaseSessionStorage(url, AT_ONCE) as other:

        async def create(storage: DatabaseSessionStorage, user: str) -> None:
            await storage.create([issue(user)], policy, NOON)

        won = await at_once(
            *(
                lambda storage=storage, number=number: create(storage, f"user-{number % 4}")
                for number in range(40)
                for storage in (one, other)
            )
        )

        assert won == 4 * 5
        assert one.degradations() == other.degradations() == {}
        assert await disagreements(one) == await disagreements(other) == []


@EVERYWHERE
async def test_a_version_has_one_winner_among_two_nodes(
    dialect: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = empty_database(dialect, tmp_path, request)
    async with DatabaseSessionStorage(url, AT_ONCE) as one, DatabaseSessionStorage(url, AT_ONCE) as other:
        session = await store(one, active=True)

        for _ in range(10):
            now = await found(one, session.id)
            racers = [partial(change, storage, now, ViolationRecorded, NOON) for storage in (one, other) * 3]
            assert await at_once(*racers) == 1

        assert one.degradations() == other.degradations() == {}
        assert (await found(other, session.id)).version == session.version + 10
        assert await disagreements(one) == []


@EVERYWHERE
async def test_a_row_that_comes_back_from_before_a_revocation_is_dead(
    dialect: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    async with one_node(dialect, tmp_path, request) as (storage, database):
        session = await store(storage, active=True)
        columns = "state, version, epoch, deadline, ended, record"
        ((*row,),) = await ask(database, f"SELECT {columns} FROM roomkey_sessions")
        await storage.revoke_user("alice", NOON, actor="system", reason=None, except_session=None)
        await ask(
            database,
            "UPDATE roomkey_sessions SET state = ?, version = ?, epoch = ?, deadline = ?, ended = ?, record = ?",
            *row,
        )

        with pytest.raises(Conflict):
            await change(storage, session, Suspended, NOON)
        secret = await storage.get_with_secret(session.id)
        await storage.touch(session.id, NOON + MINUTE)

        assert secret is not None
        assert (await found(storage, session.id)).state is secret[0].state is SessionState.INVALIDATED
        assert [each.state for each in await everything(storage)] == [SessionState.INVALIDATED]
        assert list(await storage.overdue(session.expires_at, 10)) == []


@EVERYWHERE
async def test_searches_and_lists_go_on_where_they_were(
    dialect: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "SCAN_LIMIT", 6)
    monkeypatch.setattr(reads, "SEARCH_ROWS", 4)
    async with one_node(dialect, tmp_path, request) as (storage, _):
        live = [await store(storage, f"user-{number}", NOON + number * SECOND) for number in range(23)]
        over = [await store(storage, "over", NOON, active=number % 2 == 0) for number in range(9)]
        ended = [await change(storage, each, Expired, NOON + number * SECOND) for number, each in enumerate(over)]

        listed = await everything(storage, SessionFilter(state=SessionState.EXPIRED), limit=2)
        none = await everything(storage, SessionFilter(created_after=NOON + timedelta(days=1)))
        overdue = await storage.overdue(NOON + timedelta(days=1), 100)
        first = await storage.overdue(NOON + timedelta(days=1), 6)
        purgeable = await storage.ended_before(NOON + timedelta(days=1), 100)

        assert sorted(each.id for each in listed) == sorted(each.id for each in ended)
        assert none == []
        assert list(overdue) == live
        assert list(first) == live[:6]
        assert list(purgeable) == ended


async def test_a_page_is_read_in_the_order_of_the_index_before_there_are_statistics(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    async with one_node("postgresql", tmp_path, request) as (storage, database):
        for number in range(50):
            await storage.create([issue(f"user-{number}-{each}") for each in range(100)], SessionPolicy(), NOON)
        page = load("sessions", database.dialect, SessionQueries).list_all

        plan = await ask(database, f"EXPLAIN {page.text}", b"", b"\xff" * 20, *reads.Bounds.of(SessionFilter()), 51)

        assert "Limit" in plan[0][0]
        assert not any("Sort" in line for (line,) in plan)


@EVERYWHERE
async def test_activity_becomes_durable_in_time_and_other_nodes_see_it(
    dialect: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = empty_database(dialect, tmp_path, request)
    quick = DatabaseSettings(migrate=True, flush_interval=0.01)
    async with DatabaseSessionStorage(url, quick) as one, DatabaseSessionStorage(url, quick) as other:
        sessions = [await store(one, f"user-{number}", active=True) for number in range(30)]

        for number, session in enumerate(sessions):
            await one.touch(session.id, NOON + number * SECOND)
        while (await found(other, sessions[-1].id)).last_seen_at == NOON:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.01)

        seen = [each and each.last_seen_at for each in await other.get_many([session.id for session in sessions])]
        assert seen == [NOON + number * SECOND for number in range(30)]


@EVERYWHERE
async def test_an_earlier_activity_that_is_written_later_moves_nothing_back(
    dialect: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = empty_database(dialect, tmp_path, request)
    async with DatabaseSessionStorage(url, SETTINGS) as one:
        session = await store(one, active=True)

        async with DatabaseSessionStorage(url, SETTINGS) as slow:
            await slow.touch(session.id, NOON + SECOND)
            async with DatabaseSessionStorage(url, SETTINGS) as quick:
                await quick.touch(session.id, NOON + MINUTE)

        assert (await found(one, session.id)).last_seen_at == NOON + MINUTE


@EVERYWHERE
async def test_a_damaged_record_is_named_once(dialect: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    async with one_node(dialect, tmp_path, request) as (storage, database):
        broken, sound = await store(storage), await store(storage)
        await ask(database, "UPDATE roomkey_sessions SET record = ? WHERE id = ?", b"\x01half", broken.id.encode())

        with structlog.testing.capture_logs() as logged:
            listed = [await everything(storage) for _ in range(3)]

        assert listed == [[sound]] * 3
        assert [each["key"] for each in logged if each["event"] == "storage_record_damaged"] == [broken.id]


@EVERYWHERE
async def test_a_hundred_callers_share_one_connection(
    dialect: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    settings = DatabaseSettings(migrate=True, pool_size=1)
    async with one_node(dialect, tmp_path, request, settings) as (storage, _):

        async def live(user: str) -> None:
            session = await store(storage, user, active=True)
            await storage.list(SessionFilter(user_id=user), Page())
            await storage.touch(session.id, NOON + SECOND)
            await change(storage, await found(storage, session.id), Suspended, NOON + SECOND)
            await storage.statistics(NOON)

        await asyncio.gather(*(live(f"user-{number}") for number in range(100)))

        assert await disagreements(storage) == []


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("postgresql://ada@db/rooms", "asyncpg", "postgresql"),
        ("mariadb://ada@db/rooms", "asyncmy", "mysql"),
        ("sqlite:///rooms.db", "aiosqlite", "sqlite"),
    ],
)
async def test_a_driver_that_is_missing_is_named_with_its_extra(
    url: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(ConfigurationError, match=rf"pip install 'roomkey\[{extra}\]'"):
        await DatabaseSessionStorage(url).__aenter__()


@EVERYWHERE
async def test_all_statements_of_a_snapshot_see_one_moment_and_the_next_ones_a_later_one(
    dialect: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    async with one_node(dialect, tmp_path, request) as (storage, database):
        count = Query("SELECT count(*) FROM roomkey_sessions", database.dialect)

        async def before_and_after_a_write(connection: AsyncConnection) -> list[int]:
            ((before,),) = await run(connection, count)
            await store(storage, "alice")
            ((after,),) = await run(connection, count)
            return [before, after]

        in_a_snapshot = await database.read(before_and_after_a_write, snapshot=True)
        outside = await database.read(before_and_after_a_write)

        assert in_a_snapshot == [0, 0]
        assert outside == [1, 2]
