"""What joins nodes on PostgreSQL keeps the promises of the ports, with many connections and with one."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import ClassVar

import pytest

from roomkey.backends.sql.cluster import PostgreSQLNodeRegistry, PostgreSQLPresenceStore
from roomkey.backends.sql.database import Database, DatabaseSettings
from roomkey.ports import Broker, NodeRegistry
from roomkey.testing.broker import BrokerConformance, SharedBrokerConformance
from roomkey.testing.cluster import NodeRegistryConformance, PresenceStoreConformance, Seat
from tests.support.databases import let_time_pass
from tests.support.sql_nodes import NodesOnPostgreSQL
from tests.support.store_servers import PostgreSQLProcess


@pytest.fixture(scope="module")
def url(postgresql_server: PostgreSQLProcess) -> str:
    """One schema for all, which every test empties: that is quicker than making one."""
    return f"{postgresql_server.url}?schema=cluster"


class OnPostgreSQL:
    pool_size: ClassVar[int] = 4

    @pytest.fixture(autouse=True)
    def _place(self, url: str) -> None:
        self.nodes = NodesOnPostgreSQL(url, pool_size=self.pool_size)


class TestPostgreSQLBroker(OnPostgreSQL, BrokerConformance):
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Broker]:
        await self.nodes.forget_all()
        async with self.nodes.open(1) as (broker,):
            yield broker


class TestPostgreSQLBrokerWithOneConnection(TestPostgreSQLBroker):
    pool_size = 1


class TestPostgreSQLBrokers(OnPostgreSQL, SharedBrokerConformance):
    @asynccontextmanager
    async def open_nodes(self, number: int) -> AsyncGenerator[Sequence[Broker]]:
        await self.nodes.forget_all()
        async with self.nodes.open(number) as brokers:
            yield brokers

    def cut(self, broker: Broker) -> AbstractAsyncContextManager[None]:
        return self.nodes.cut(broker)

    async def lose(self) -> None:
        async with Database(self.nodes.url) as database:
            await self.nodes.lose(database)

    async def test_whoever_could_not_hear_is_told_of_a_gap_and_can_read_what_was_missed(self) -> None:
        """Nothing is missing here: it is read later, what is not kept too, and nobody has to be told of a gap."""
        async with self.open_nodes(2) as (one, other):
            _, listener = await self._listening([one, other])
            await self._publish(one, ["before"])
            await listener.wait_heard(b"before")

            async with self.cut(other):
                await one.publish("d", b"passing", origin="c1", keep=False)
                await self._publish(one, ["meanwhile"])
                await self._until(lambda: "broker" in other.degradations())

            await listener.wait_heard(b"meanwhile")
            await self._until(lambda: other.degradations() == {})
            assert listener.messages == [b"before", b"passing", b"meanwhile"]
            assert listener.gaps == 0


class TestPostgreSQLBrokersWithOneConnection(TestPostgreSQLBrokers):
    pool_size = 1


class Timed(OnPostgreSQL):
    async def pass_time(self, by: timedelta) -> None:
        async with Database(self.nodes.url) as database:
            await let_time_pass(database, by, "roomkey_cluster_nodes")

    @asynccontextmanager
    async def database(self) -> AsyncGenerator[Database]:
        await self.nodes.forget_all()
        settings = DatabaseSettings(pool_size=self.pool_size)
        async with Database(self.nodes.url, settings) as database:
            yield database


class TestPostgreSQLNodeRegistry(Timed, NodeRegistryConformance):
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[NodeRegistry]:
        async with self.database() as database:
            yield PostgreSQLNodeRegistry(database)


class TestPostgreSQLPresenceStore(Timed, PresenceStoreConformance):
    @asynccontextmanager
    async def open(self, *nodes: str) -> AsyncGenerator[Sequence[Seat]]:
        async with self.database() as database:
            registry = PostgreSQLNodeRegistry(database)
            yield [Seat(registry, PostgreSQLPresenceStore(database, node)) for node in nodes]


class TestPostgreSQLPresenceStoreWithOneConnection(TestPostgreSQLPresenceStore):
    pool_size = 1
