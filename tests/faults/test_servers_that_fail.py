"""
A store goes on when its server fails and comes back.

What was acknowledged is there, once; log, state, counters and indexes agree; health says what is wrong and recovers.
"""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

import pytest

from tests.support.deployments import NEW_PASSWORD, PASSWORD, Deployment, OnRedis, deployed, until
from tests.support.ledgers import DocumentLedger, Ledger, SessionLedger, load, some_writes
from tests.support.store_servers import RedisProcess, ServerProcess

SERVERS: Final = ("redis", "postgresql", "mariadb")

PAUSE_SECONDS: Final = 2.5
"""Longer than a call is tried."""


class Fixture(NamedTuple):
    """A store on its deployment, and what was written to it."""

    deployment: Deployment
    ledger: Ledger


@pytest.fixture(params=SERVERS)
def deployment(request: pytest.FixtureRequest) -> Generator[Deployment]:
    server: ServerProcess = request.getfixturevalue(f"{request.param}_server")
    with deployed(server) as made:
        yield made


@pytest.fixture(params=["sessions", "documents"])
def store(request: pytest.FixtureRequest) -> str:
    return request.param


@asynccontextmanager
async def under_load(deployment: Deployment, store: str, url: str | None = None) -> AsyncGenerator[Ledger]:
    """Writers at work; in the end the store must have recovered, and agree with what it has acknowledged."""
    if store == "sessions":
        async with deployment.sessions(url) as sessions, at_work(SessionLedger(sessions)) as ledger:
            yield ledger
    else:
        async with deployment.documents(url) as documents, at_work(DocumentLedger(documents)) as ledger:
            yield ledger


@asynccontextmanager
async def at_work(ledger: Ledger) -> AsyncGenerator[Ledger]:
    async with load(ledger):
        await some_writes(ledger)
        yield ledger
        await some_writes(ledger)
        await until(lambda: not ledger.degradations(), "the recovery")
    await ledger.ping()
    assert await ledger.contradictions() == []


async def says(ledger: Ledger, kind: str) -> None:
    """Return when health says that the server fails so."""
    await until(lambda: any(kind in said for said in ledger.degradations().values()), f"{kind!r} in health")


async def test_a_server_that_is_killed_and_started_again(deployment: Deployment, store: str) -> None:
    async with under_load(deployment, store) as ledger:
        for _ in range(3):
            await asyncio.to_thread(deployment.server.kill)
            await says(ledger, "away")
            await asyncio.to_thread(deployment.server.start)
            await some_writes(ledger)


async def test_a_server_that_stands_still_for_a_while(deployment: Deployment, store: str) -> None:
    async with under_load(deployment, store) as ledger:
        deployment.server.pause()
        await says(ledger, "slow")
        await asyncio.sleep(PAUSE_SECONDS)
        deployment.server.resume()


async def test_a_server_that_takes_no_writes_for_a_while(deployment: Deployment, store: str) -> None:
    async with under_load(deployment, store) as ledger:
        await asyncio.to_thread(deployment.make_read_only)
        await says(ledger, "read-only")
        await asyncio.to_thread(deployment.make_writable)


async def test_a_password_that_is_changed_and_changed_back(deployment: Deployment, store: str) -> None:
    async with under_load(deployment, store) as ledger:
        await asyncio.to_thread(deployment.set_password, NEW_PASSWORD)
        await says(ledger, "refused")
        assert PASSWORD not in str(ledger.degradations())
        await asyncio.to_thread(deployment.set_password, PASSWORD)


async def test_a_server_that_has_no_connections_left(deployment: Deployment, store: str) -> None:
    async with under_load(deployment, store) as ledger:
        await asyncio.to_thread(deployment.refuse_connections)
        await says(ledger, "busy")
        await asyncio.to_thread(deployment.allow_connections)


# --- Redis --------------------------------------------------------------------------------------------


@pytest.fixture
def redis_deployment(redis_server: RedisProcess) -> Generator[OnRedis]:
    with deployed(redis_server) as made:
        assert isinstance(made, OnRedis)
        yield made


async def test_a_redis_that_has_no_memory_left(
    redis_deployment: OnRedis, redis_server: RedisProcess, store: str
) -> None:
    async with under_load(redis_deployment, store) as ledger:
        redis_server.ask("CONFIG", "SET", "maxmemory", 1)
        await says(ledger, "full")
        redis_server.ask("CONFIG", "SET", "maxmemory", 0)


async def test_a_redis_that_forgets_its_scripts(
    redis_deployment: OnRedis, redis_server: RedisProcess, store: str
) -> None:
    async with under_load(redis_deployment, store) as ledger:
        for _ in range(20):
            redis_server.ask("SCRIPT", "FLUSH")
            await some_writes(ledger, 10)
        assert ledger.degradations() == {}


async def test_a_redis_that_takes_long_to_load_what_it_has(
    redis_deployment: OnRedis, redis_server: RedisProcess, store: str
) -> None:
    async with under_load(redis_deployment, store) as ledger:
        redis_server.ask("EVAL", "for i = 1, 3000 do redis.call('SET', 'ballast' .. i, i) end", 0)
        await asyncio.to_thread(redis_server.kill)
        redis_server.start_slowly()
        await says(ledger, "busy")
        await asyncio.to_thread(redis_server.wait)
