"""
A store goes on when Sentinel or a Cluster makes another server the master, and when slots move.

A failover may lose the last writes that no replica had: what must be there is what was acknowledged before, and what
is there must agree with itself.
"""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from roomkey.backends.redis import RedisSessionStorage
from roomkey.backends.redis.documents import RedisDocumentStore
from roomkey.backends.redis.settings import RedisSettings
from roomkey.errors import Storage
from tests.support.deployments import PATIENCE_SECONDS, QUICK
from tests.support.ledgers import DocumentLedger, Ledger, SessionLedger, load, some_writes
from tests.support.store_servers import ClusterServers, RedisProcess, SentinelServers
from tests.support.store_servers.process import wait_until
from tests.support.store_servers.redis import info

SETTINGS = RedisSettings(recovery=QUICK)


@pytest.fixture
def sentinel(sentinel_servers: SentinelServers) -> Generator[SentinelServers]:
    """With everything in order afterwards."""
    yield sentinel_servers
    sentinel_servers.heal()


@pytest.fixture
def cluster(cluster_servers: ClusterServers) -> Generator[ClusterServers]:
    yield cluster_servers
    cluster_servers.heal()


@pytest.fixture(params=["sessions", "documents"])
def store(request: pytest.FixtureRequest) -> str:
    return request.param


@asynccontextmanager
async def opened(url: str, store: str) -> AsyncGenerator[Ledger]:
    if store == "sessions":
        async with RedisSessionStorage(url, SETTINGS) as sessions:
            yield SessionLedger(sessions)
    else:
        async with RedisDocumentStore(url, SETTINGS) as documents:
            yield DocumentLedger(documents)


async def recovered(ledger: Ledger) -> None:
    """Return when health, which asks as often, says that all is well."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await answers(ledger) or ledger.degradations():  # noqa: ASYNC110  # servers tell nobody
            await asyncio.sleep(0.05)


async def answers(ledger: Ledger) -> bool:
    try:
        await ledger.ping()
    except Storage:
        return False
    return True


def have_replicas_everything(masters: list[RedisProcess]) -> None:
    """Return when they do. Not ``WAIT``, which is about what the same connection has written."""
    for master in masters:
        written = info(master, "replication")["master_repl_offset"]
        wait_until(partial(has_each_replica, master, written), what="the replication")


def has_each_replica(master: RedisProcess, written: int) -> bool:
    state = info(master, "replication")
    replicas = [state[f"slave{number}"] for number in range(state.get("connected_slaves", 0))]
    return bool(replicas) and all(replica["offset"] >= written for replica in replicas)


async def test_after_a_failover_of_sentinel_writes_go_to_the_new_master(
    sentinel: SentinelServers, sentinel_url: str, store: str
) -> None:
    async with opened(sentinel_url, store) as ledger:
        async with load(ledger):
            await some_writes(ledger)
        former = sentinel.master
        have_replicas_everything([former])

        await asyncio.to_thread(former.kill)
        ledger.is_over = False
        async with load(ledger):
            await asyncio.to_thread(sentinel.wait_for_another, former)
            await some_writes(ledger)
            await recovered(ledger)

        assert await ledger.contradictions() == []


async def test_a_failover_that_an_operator_asks_for_under_load_loses_nothing_that_replicas_had(
    sentinel: SentinelServers, sentinel_url: str
) -> None:
    async with opened(sentinel_url, "sessions") as ledger, load(ledger):
        await some_writes(ledger)
        former = sentinel.master
        sentinel.sentinels[0].ask("SENTINEL", "FAILOVER", "roomkey")
        await asyncio.to_thread(sentinel.wait_for_another, former)

        await some_writes(ledger)
        await recovered(ledger)


async def test_after_a_failover_of_a_cluster_writes_go_to_the_new_master(
    cluster: ClusterServers, cluster_url: str, store: str
) -> None:
    async with opened(cluster_url, store) as ledger:
        async with load(ledger):
            await some_writes(ledger)
        have_replicas_everything(cluster.masters)
        former = cluster.masters[0]

        await asyncio.to_thread(former.kill)
        ledger.is_over = False
        async with load(ledger):
            await asyncio.to_thread(cluster.wait_for_another, former)
            await some_writes(ledger)
            await recovered(ledger)

        assert await ledger.contradictions() == []


async def test_a_failover_of_a_cluster_is_noticed_though_nobody_writes(
    cluster: ClusterServers, cluster_url: str, store: str
) -> None:
    async with opened(cluster_url, store) as ledger:
        former = cluster.masters[0]
        await asyncio.to_thread(former.kill)
        with pytest.raises(Storage):
            await ledger.ping()
        assert ledger.degradations() != {}
        await asyncio.to_thread(cluster.wait_for_another, former)

        await recovered(ledger)


async def test_slots_that_move_under_load_take_nothing_with_them_and_leave_nothing(
    cluster: ClusterServers, cluster_url: str, store: str
) -> None:
    async with opened(cluster_url, store) as ledger:
        async with load(ledger):
            await some_writes(ledger, 200)
            moved = await asyncio.to_thread(move_what_is_used, cluster)
            await some_writes(ledger)
            await recovered(ledger)

        assert moved > 0
        assert await ledger.contradictions() == []


def move_what_is_used(cluster: ClusterServers) -> int:
    """Bring three slots with keys to another master, half of its keys at a time."""
    source, target = cluster.masters[:2]
    keys = 0
    for slot in cluster.used_slots_of(source)[:3]:
        cluster.begin_move(slot, source, target)
        while left := int(source.ask("CLUSTER", "COUNTKEYSINSLOT", slot)):
            cluster.move_keys(slot, source, target, limit=max(left // 2, 1))
            keys += left
        cluster.end_move(slot, target)
    return keys
