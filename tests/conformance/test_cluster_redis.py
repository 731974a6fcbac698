"""What joins nodes on a Redis keeps the promises of the ports."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing
from datetime import timedelta
from itertools import count
from typing import Final

import pytest

from roomkey.backends.redis.cluster import Histories, RedisBroker, RedisNodeRegistry, RedisPresenceStore
from roomkey.backends.redis.server import RedisServer
from roomkey.ports import Broker, NodeRegistry
from roomkey.testing.broker import BrokerConformance, Listener, SharedBrokerConformance
from roomkey.testing.cluster import NodeRegistryConformance, PresenceStoreConformance, Seat
from tests.support.cutting_proxy import CuttingProxy, cutting_proxy
from tests.support.store_servers import ClusterServers, RedisProcess

HISTORIES: Final = Histories(
    publications=1000, age=timedelta(minutes=5), size=1 << 20, repeat_window=timedelta(minutes=2)
)

_NODES: Final = count(1)


class OnRedis:
    """The clock is that of the server, so tests wait."""

    moment = timedelta(milliseconds=250)

    @pytest.fixture(autouse=True)
    def _place(self, redis_server: RedisProcess, redis_url: str) -> None:
        self.servers: Sequence[RedisProcess] = [redis_server]
        self.url = redis_url
        self.brokers: list[Broker] = []
        self.proxies: dict[Broker, CuttingProxy] = {}

    async def pass_time(self, by: timedelta) -> None:
        # Keys of Redis have whole milliseconds, and the timers of this machine another clock.
        await asyncio.sleep(by.total_seconds() + 0.002)

    async def settle(self) -> None:
        # What a server confirms comes behind what it has said before; of so many rooms each server has some.
        rooms = [f"settle-{next(_NODES)}" for _ in range(64)]
        for broker in self.brokers:
            await asyncio.gather(*(broker.subscribe(room, Listener()) for room in rooms))

    @asynccontextmanager
    async def broker(self, url: str | None = None) -> AsyncGenerator[RedisBroker]:
        broker = RedisBroker(RedisServer(url or self.url), f"n{next(_NODES)}", HISTORIES)
        async with broker:
            self.brokers.append(broker)
            yield broker


class TestRedisBroker(OnRedis, BrokerConformance):
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Broker]:
        async with self.broker() as broker:
            yield broker


class TestSharedRedisBroker(OnRedis, SharedBrokerConformance):
    @asynccontextmanager
    async def open_nodes(self, number: int) -> AsyncGenerator[Sequence[Broker]]:
        async with AsyncExitStack() as stack:
            for _ in range(number):
                proxy = await stack.enter_async_context(cutting_proxy(self.servers[0].port))
                broker = await stack.enter_async_context(self.broker(proxy.through(self.url)))
                self.proxies[broker] = proxy
            yield self.brokers

    @asynccontextmanager
    async def cut(self, broker: Broker) -> AsyncGenerator[None]:
        proxy = self.proxies[broker]
        proxy.refuses = True
        proxy.cut_all()
        yield
        proxy.refuses = False

    async def lose(self) -> None:
        for server in self.servers:
            server.ask("FLUSHALL")


class TestRedisNodeRegistry(OnRedis, NodeRegistryConformance):
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[NodeRegistry]:
        async with RedisServer(self.url) as server:
            yield RedisNodeRegistry(server)


class TestRedisPresenceStore(OnRedis, PresenceStoreConformance):
    @asynccontextmanager
    async def open(self, *nodes: str) -> AsyncGenerator[Sequence[Seat]]:
        async with RedisServer(self.url) as server:
            yield [Seat(RedisNodeRegistry(server), RedisPresenceStore(server, node)) for node in nodes]


class OnCluster(OnRedis):
    """The same on a Cluster, where every script and every channel has one slot."""

    @pytest.fixture(autouse=True)
    def _place(self, cluster_servers: ClusterServers, cluster_url: str) -> None:
        self.servers = cluster_servers.masters
        self.url = cluster_url
        self.brokers = []
        self.proxies = {}


class TestClusterBroker(OnCluster, TestRedisBroker):
    pass


class TestSharedClusterBroker(OnCluster, TestSharedRedisBroker):
    @asynccontextmanager
    async def open_nodes(self, number: int) -> AsyncGenerator[Sequence[Broker]]:
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(self.broker()) for _ in range(number)]

    @asynccontextmanager
    async def cut(self, broker: Broker) -> AsyncGenerator[None]:
        # All who listen are thrown out, and nobody is let in.
        del broker
        with ExitStack() as stack:
            operators = [stack.enter_context(closing(server.operator())) for server in self.servers]
            for operator in operators:
                operator.config_set("maxclients", 1)  # pyright: ignore[reportUnknownMemberType]
                operator.client_kill_filter(_type="pubsub")  # pyright: ignore[reportUnknownMemberType]
            yield
            for operator in operators:
                operator.config_set("maxclients", 10_000)  # pyright: ignore[reportUnknownMemberType]


class TestClusterNodeRegistry(OnCluster, TestRedisNodeRegistry):
    pass


class TestClusterPresenceStore(OnCluster, TestRedisPresenceStore):
    pass
