"""What nodes share in Redis keeps the promises of the ports."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from roomkey.backends.redis.checkpoints import RedisCheckpoints
from roomkey.backends.redis.counters import RedisCounters
from roomkey.backends.redis.leases import RedisLeases
from roomkey.backends.redis.one_time import RedisOneTime
from roomkey.backends.redis.server import RedisServer
from roomkey.backends.sealing import Seal
from roomkey.ports import OneTimeLimits
from roomkey.testing.shared import (
    CountersConformance,
    DurableCheckpointsConformance,
    DurableLeasesConformance,
    OneTimeConformance,
)


class OnRedis:
    """The clock is that of the server, so tests wait."""

    moment = timedelta(milliseconds=250)

    @pytest.fixture(autouse=True)
    def _place(self, redis_url: str) -> None:
        self.url = redis_url

    async def pass_time(self, by: timedelta) -> None:
        # Keys of Redis have whole milliseconds, and the timers of this machine another clock.
        await asyncio.sleep(by.total_seconds() + 0.002)


class TestRedisOneTime(OnRedis, OneTimeConformance):
    @asynccontextmanager
    async def open(self, limits: OneTimeLimits) -> AsyncGenerator[RedisOneTime]:
        async with RedisServer(self.url) as server:
            yield RedisOneTime(server, "tickets", limits, Seal(b"secret", "tickets"))


class TestRedisCounters(OnRedis, CountersConformance):
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[RedisCounters]:
        async with RedisServer(self.url) as server:
            yield RedisCounters(server, "addresses")


class TestRedisLeases(OnRedis, DurableLeasesConformance):
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[RedisLeases]:
        async with RedisServer(self.url) as server:
            yield RedisLeases(server)


class TestRedisCheckpoints(OnRedis, DurableCheckpointsConformance):
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[RedisCheckpoints]:
        async with RedisServer(self.url) as server:
            yield RedisCheckpoints(server)


class OnCluster(OnRedis):
    """The same on a Cluster, where every script has one slot."""

    @pytest.fixture(autouse=True)
    def _place(self, cluster_url: str) -> None:
        self.url = cluster_url


class TestClusterOneTime(OnCluster, TestRedisOneTime):
    pass


class TestClusterCounters(OnCluster, TestRedisCounters):
    pass


class TestClusterLeases(OnCluster, TestRedisLeases):
    pass


class TestClusterCheckpoints(OnCluster, TestRedisCheckpoints):
    pass
