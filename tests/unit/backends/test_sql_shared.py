"""What is special about what nodes share in SQL databases: repeats, secrets, and who is there."""

# pyright: reportPrivateUsage=false

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from roomkey.backends.memory.shared import MemoryShared
from roomkey.backends.sealing import Seal
from roomkey.backends.sql.database import Database, DatabaseSettings
from roomkey.backends.sql.leases import DatabaseLeases
from roomkey.backends.sql.one_time import DatabaseOneTime
from roomkey.backends.sql.shared import DatabaseShared
from roomkey.backends.sql.statements import Query, run
from roomkey.errors import OutcomeUnknown
from roomkey.ports import OneTimeLimits
from roomkey.testing.clock import ManualClock
from tests.support.cutting_proxy import Cut, cutting_proxy
from tests.support.databases import empty_database

SERVERS = ("postgresql", "mariadb")
SETTINGS = DatabaseSettings(migrate=True)
ONE = DatabaseSettings(migrate=True, pool_size=1)
UNLIMITED = OneTimeLimits()
MINUTE = timedelta(minutes=1)


@pytest.fixture
def url(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    return empty_database(request.param, tmp_path, request)


every_database = pytest.mark.parametrize("url", ("sqlite", *SERVERS), indirect=True)
every_server = pytest.mark.parametrize("url", SERVERS, indirect=True)


def one_time(database: Database, limits: OneTimeLimits = UNLIMITED) -> DatabaseOneTime:
    return DatabaseOneTime(database, "tickets", limits, Seal(b"secret", "tickets"))


def shared(url: str, *, secret: bytes = b"secret", lifetime: timedelta = MINUTE) -> DatabaseShared:
    clock = ManualClock(datetime(2026, 1, 2, 12, tzinfo=UTC))
    own = MemoryShared(tickets=UNLIMITED, answers=UNLIMITED, clock=clock)
    return DatabaseShared(
        url, SETTINGS, secret=secret, own=own, tickets=UNLIMITED, answers=UNLIMITED, node_lifetime=lifetime
    )


@asynccontextmanager
async def joined(node: DatabaseShared, name: str) -> AsyncGenerator[DatabaseShared]:
    await node.join(name)
    try:
        yield node
    finally:
        await node.leave()


# --- values of one use --------------------------------------------------------------------------------


@every_server
async def test_of_many_who_take_at_once_over_several_connections_one_gets_it(url: str) -> None:
    async with Database(url, SETTINGS) as database:
        store = one_time(database)
        await asyncio.gather(*(store.take("nothing") for _ in range(8)))  # so that all connections are open
        for turn in range(10):
            await store.add(f"k{turn}", b"value", MINUTE)

            taken = await asyncio.gather(*(store.take(f"k{turn}") for _ in range(8)))

            assert sorted(taken, key=bool) == [*[None] * 7, b"value"]


@every_server
@pytest.mark.parametrize("where", [Cut.BEFORE_REQUEST, Cut.BEFORE_ANSWER])
async def test_what_was_added_or_replaced_is_so_once_wherever_the_connection_is_cut(url: str, where: Cut) -> None:
    async with cutting_proxy(Database(url).place.port) as proxy, Database(proxy.through(url), ONE) as database:
        store = one_time(database)
        for warm in ("w", "x"):
            assert await store.add(warm, b"1", MINUTE) is None
            assert await store.replace(warm, b"1", b"2", MINUTE)
        for request in range(1, 9):
            key = f"cut at {request}"

            proxy.cut(where, request=request)
            assert await store.add(key, b"1", MINUTE) is None
            proxy.cut(where, request=request)
            assert await store.replace(key, b"1", b"2", MINUTE)

            proxy.cut_nothing()
            assert await store.take(key) == b"2"
        assert proxy.cuts >= 8


@every_server
async def test_whoever_takes_gets_it_or_hears_that_it_is_not_known(url: str) -> None:
    async with cutting_proxy(Database(url).place.port) as proxy, Database(proxy.through(url), ONE) as database:
        store = one_time(database)
        for warm in ("w", "x"):
            await store.add(warm, b"1", MINUTE)
            await store.take(warm)
        unknown = 0
        for request in range(1, 9):
            key = f"cut at {request}"
            await store.add(key, b"1", MINUTE)

            proxy.cut(Cut.BEFORE_ANSWER, request=request)
            try:
                assert await store.take(key) == b"1"
            except OutcomeUnknown:
                unknown += 1

            proxy.cut_nothing()
            assert await store.take(key) is None
        assert 1 <= unknown <= 2  # COMMIT may have to be prepared first


@every_database
async def test_the_database_shows_no_value_and_no_key(url: str) -> None:
    async with Database(url, SETTINGS) as database:
        await one_time(database).add("the key", b"the value", MINUTE, owner="the owner")

        query = Query("SELECT id, owner, value FROM roomkey_one_time", database.dialect)
        ((id, owner, value),) = await database.read(lambda connection: run(connection, query))

    assert b"the " not in id + owner + value


@every_database
async def test_purposes_do_not_push_each_other_out(url: str) -> None:
    async with Database(url, SETTINGS) as database:
        few = OneTimeLimits(entries=2)
        stores = [DatabaseOneTime(database, purpose, few, Seal(b"s", purpose)) for purpose in ("tickets", "answers")]
        for number in range(4):
            for store in stores:
                await store.add(f"k{number}", b"value", MINUTE)

        for store in stores:
            assert [await store.take(f"k{number}") is not None for number in range(4)] == [False, False, True, True]


@every_database
async def test_while_there_is_room_it_is_not_counted_and_the_bound_holds_all_the_same(url: str) -> None:
    async with Database(url, SETTINGS) as database:
        store = one_time(database, OneTimeLimits(entries=200))
        for number in range(300):
            await store.add(f"k{number}", b"", MINUTE)

        query = Query("SELECT count(*) FROM roomkey_one_time", database.dialect)
        ((held,),) = await database.read(lambda connection: run(connection, query))
        assert 200 <= held <= 201
        assert await store.take("k299") == b""


# --- leases -------------------------------------------------------------------------------------------


@every_server
@pytest.mark.parametrize("where", [Cut.BEFORE_REQUEST, Cut.BEFORE_ANSWER])
async def test_a_lease_is_what_its_holder_was_told_wherever_the_connection_is_cut(url: str, where: Cut) -> None:
    async with cutting_proxy(Database(url).place.port) as proxy, Database(proxy.through(url), ONE) as database:
        leases = DatabaseLeases(database)
        for _ in range(2):
            token = await leases.acquire("warm", "a", MINUTE)
            assert token is not None
            await leases.renew("warm", token, MINUTE)
            await leases.release("warm", token)
        for request in range(1, 8):
            name = f"cut at {request}"

            proxy.cut(where, request=request)
            token = await leases.acquire(name, "a", MINUTE)
            assert token is not None
            proxy.cut(where, request=request)
            assert await leases.renew(name, token, MINUTE)
            proxy.cut(where, request=request)
            assert await leases.release(name, token)

            proxy.cut_nothing()
            successor = await leases.acquire(name, "b", MINUTE)
            assert successor is not None
            assert successor > token


# --- nodes --------------------------------------------------------------------------------------------


@every_database
async def test_nodes_know_each_other_and_share_tickets(url: str) -> None:
    async with joined(shared(url), "a") as a, joined(shared(url), "b") as b:
        await a.tickets.add("ticket", b"session", MINUTE)

        assert b.others() == ["a"]
        assert await b.tickets.take("ticket") == b"session"
        assert await b.answers.take("ticket") is None
        assert (a.is_complete, b.is_complete) == (True, True)


@every_database
async def test_a_node_that_lives_on_hears_of_those_who_came_later_and_of_those_who_left(url: str) -> None:
    lifetime = timedelta(milliseconds=600)
    async with joined(shared(url, lifetime=lifetime), "a") as a:
        async with joined(shared(url, lifetime=lifetime), "b"):
            while a.others() != ["b"]:
                await asyncio.sleep(0.01)
        while a.others():
            await asyncio.sleep(0.01)


@every_database
async def test_without_a_secret_each_node_has_its_own_tickets(url: str) -> None:
    async with joined(shared(url, secret=b""), "a") as a, joined(shared(url, secret=b""), "b") as b:
        await a.tickets.add("ticket", b"session", MINUTE)

        assert not a.is_complete
        assert b.others() == ["a"]
        assert await b.tickets.take("ticket") is None
        assert await a.tickets.take("ticket") == b"session"
