"""What was written is written once, whatever breaks between the question and the answer."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.recovery import RecoverySettings
from roomkey.backends.sql import Database, DatabaseSessionStorage, DatabaseSettings
from roomkey.backends.sql.grouping import Grouped
from roomkey.backends.sql.statements import Row, execute, say
from roomkey.domain.lifecycle import apply
from roomkey.domain.session import Deleted, Invalidated, SessionState, ViolationRecorded
from roomkey.errors import Conflict, OutcomeUnknown, Storage
from roomkey.testing.storage import disagreements
from roomkey.testing.storage.suite import NOON, ROOMY, change, fact, found, history, issue, store, whole_log
from tests.support.cutting_proxy import Cut, CuttingProxy, cutting_proxy
from tests.support.databases import empty_database

SERVERS = pytest.mark.parametrize("dialect", ["postgresql", "mariadb"])
QUICK = RecoverySettings(timeout=2, first_pause=0.01, longest_pause=0.02)


@asynccontextmanager
async def behind_a_proxy(
    url: str, dialect: str, request: pytest.FixtureRequest, settings: DatabaseSettings | None = None
) -> AsyncGenerator[tuple[DatabaseSessionStorage, CuttingProxy]]:
    server = request.getfixturevalue(f"{dialect}_server")
    async with (
        cutting_proxy(server.port) as proxy,
        DatabaseSessionStorage(
            proxy.through(url), settings or DatabaseSettings(migrate=True, recovery=QUICK, pool_size=2)
        ) as storage,
    ):
        yield storage, proxy


@SERVERS
@pytest.mark.parametrize("where", Cut)
async def test_a_change_whose_answer_is_lost_is_made_once(
    dialect: str, where: Cut, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = empty_database(dialect, tmp_path, request)
    async with behind_a_proxy(url, dialect, request) as (storage, proxy):
        session = await store(storage, active=True)

        proxy.cut(where, containing=b"COMMIT")
        after = await change(storage, session, ViolationRecorded, NOON)
        proxy.cut(where, containing=b"COMMIT")
        revoked = await storage.revoke_user("bob", NOON, actor="system", reason=None, except_session=None)
        proxy.cut(where, containing=b"COMMIT")
        new = issue("carol")
        await storage.create([new], ROOMY, NOON)
        proxy.cut(where, containing=b"COMMIT")
        deleted = await storage.delete(fact(after, Deleted, NOON))

        assert proxy.cuts == 4
        assert revoked.epoch == 1
        assert await storage.get(new.session.id) == new.session
        assert deleted
        assert [event.tag() for event in await history(storage, session.id)] == [
            "created",
            "activated",
            "violation_recorded",
            "deleted",
        ]
        assert len(await whole_log(storage)) == 6
        assert await disagreements(storage) == []


@SERVERS
async def test_a_change_that_others_followed_up_is_found_in_the_log(
    dialect: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    slow = RecoverySettings(timeout=2, first_pause=0.3, longest_pause=0.3)
    settings = DatabaseSettings(migrate=True, recovery=slow, pool_size=2)
    url = empty_database(dialect, tmp_path, request)
    async with behind_a_proxy(url, dialect, request, settings) as (storage, proxy):
        session = await store(storage, active=True)
        event = fact(session, ViolationRecorded, NOON)
        proxy.cut(Cut.BEFORE_ANSWER, containing=b"COMMIT")
        async with DatabaseSessionStorage(url) as other, asyncio.TaskGroup() as group:
            mine = group.create_task(storage.update(apply(session, event), event))
            await proxy.wait_cut()
            await change(other, await found(other, session.id), Invalidated, NOON)

            await mine

        assert (await found(storage, session.id)).state is SessionState.INVALIDATED
        assert len(await history(storage, session.id)) == 4
        assert await disagreements(storage) == []


@SERVERS
async def test_a_change_is_reported_as_unknown_when_the_server_stays_away(
    dialect: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = empty_database(dialect, tmp_path, request)
    async with behind_a_proxy(url, dialect, request) as (storage, proxy):
        session = await store(storage, active=True)
        proxy.cut(Cut.BEFORE_ANSWER, containing=b"COMMIT")
        proxy.refuses = True

        with pytest.raises(OutcomeUnknown):
            await change(storage, session, ViolationRecorded, NOON)

        proxy.refuses = False
        await until_it_answers(storage)
        assert (await found(storage, session.id)).version == session.version + 1


@SERVERS
async def test_a_change_is_refused_when_nothing_was_committed_and_the_server_stays_away(
    dialect: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = empty_database(dialect, tmp_path, request)
    async with behind_a_proxy(url, dialect, request) as (storage, proxy):
        session = await store(storage, active=True)
        proxy.refuses = True
        proxy.cut_all()

        with pytest.raises(Storage) as caught:
            await change(storage, session, ViolationRecorded, NOON)

        assert not isinstance(caught.value, OutcomeUnknown)
        assert storage.degradations()
        proxy.refuses = False
        await until_it_answers(storage)
        assert (await found(storage, session.id)).version == session.version
        assert storage.degradations() == {}


@SERVERS
async def test_connections_that_the_server_has_closed_are_not_noticed_by_callers(
    dialect: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = empty_database(dialect, tmp_path, request)
    async with behind_a_proxy(url, dialect, request) as (storage, proxy):
        session = await store(storage, active=True)

        for _ in range(3):
            proxy.cut_all()
            assert await storage.get(session.id) == session
            proxy.cut_all()
            await store(storage, "bob")

        assert await disagreements(storage) == []


@SERVERS
async def test_deadlocks_are_tried_again(dialect: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = empty_database(dialect, tmp_path, request)
    async with Database(url, DatabaseSettings(migrate=True)) as database:
        tries: list[int] = []
        both_hold = asyncio.Barrier(2)

        async def lock(first: int, second: int) -> None:
            async def work(connection: AsyncConnection) -> None:
                tries.append(first)
                text = "UPDATE roomkey_partitions SET tail = tail + 1 WHERE id = {}"
                await execute(connection, database.dialect, text.format(first), ())
                if len(tries) <= 2:
                    await both_hold.wait()
                await execute(connection, database.dialect, text.format(second), ())

            await database.write(work, may_repeat=False)

        async with asyncio.TaskGroup() as group:
            group.create_task(lock(1, 2))
            group.create_task(lock(2, 1))

        assert len(tries) == 3
        rows = await database.read(
            lambda connection: execute(
                connection, database.dialect, "SELECT tail FROM roomkey_partitions WHERE id IN (1, 2)", ()
            )
        )
        assert [row[0] for row in rows] == [2, 2]


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql", "mariadb"])
async def test_a_refused_id_is_refused_alone(dialect: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    settings = DatabaseSettings(migrate=True)
    async with DatabaseSessionStorage(empty_database(dialect, tmp_path, request), settings) as storage:
        taken = issue("taken")
        await storage.create([taken], ROOMY, NOON)
        good = [issue(f"user-{number}") for number in range(20)]

        async with asyncio.TaskGroup() as group:
            done = [group.create_task(storage.create([new], ROOMY, NOON)) for new in good[:10]]
            refused = asyncio.ensure_future(storage.create([taken], ROOMY, NOON))
            done += [group.create_task(storage.create([new], ROOMY, NOON)) for new in good[10:]]

        with pytest.raises(Conflict):
            await refused
        assert [task.result() for task in done] == [[]] * 20
        assert storage.degradations() == {}
        assert await disagreements(storage) == []


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql", "mariadb"])
async def test_a_transaction_that_raises_leaves_nothing_and_no_transaction(
    dialect: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    settings = DatabaseSettings(migrate=True, pool_size=1)
    async with Database(empty_database(dialect, tmp_path, request), settings) as database:

        async def raising(connection: AsyncConnection) -> None:
            await say(connection, database.dialect, "UPDATE roomkey_partitions SET head = 7")
            raise error

        for error in (Conflict("no"), KeyError("a mistake")):
            with pytest.raises(type(error)):
                await database.write(raising, may_repeat=False)

        async def heads(connection: AsyncConnection) -> list[Row]:
            return await execute(connection, database.dialect, "SELECT max(head) FROM roomkey_partitions", ())

        ((highest,),) = await database.write(heads, may_repeat=True)
        assert highest == 0


async def test_what_is_asked_for_in_one_turn_is_done_together() -> None:
    batches: list[list[int]] = []

    async def double(items: list[int]) -> list[int | Exception]:
        batches.append(items)
        await asyncio.sleep(0)
        return [2 * item if item else KeyError("nought") for item in items]

    grouped = Grouped(double, max_batch=3, max_waiting=100)
    outcomes = await asyncio.gather(*(grouped.submit(item) for item in range(7)), return_exceptions=True)
    await grouped.close()

    assert batches == [[0, 1, 2], [3, 4, 5], [6]]
    assert isinstance(outcomes[0], KeyError)
    assert outcomes[1:] == [2, 4, 6, 8, 10, 12]


async def test_whoever_gives_up_does_not_stop_the_others() -> None:
    going = asyncio.Event()

    async def slowly(items: list[int]) -> list[int]:
        await going.wait()
        return items

    grouped = Grouped(slowly, max_batch=10, max_waiting=100)
    tasks = [asyncio.ensure_future(grouped.submit(item)) for item in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tasks[0].cancel()
    going.set()

    assert await asyncio.gather(*tasks[1:]) == [1, 2]
    await grouped.close()


async def until_it_answers(storage: DatabaseSessionStorage) -> None:
    """Return when the breaker has let a call through."""
    while True:
        try:
            await storage.statistics(NOON)
        except Storage:
            await asyncio.sleep(0.05)
        else:
            return
