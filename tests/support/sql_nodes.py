"""Brokers of several nodes on one PostgreSQL, each behind a proxy of its own."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

from roomkey.backends.recovery import RecoverySettings
from roomkey.backends.sql.cluster import Histories, PostgreSQLBroker
from roomkey.backends.sql.database import Database, DatabaseSettings
from roomkey.backends.sql.statements import execute
from tests.support.cutting_proxy import CuttingProxy, cutting_proxy

UNLOGGED = [f"roomkey_broker_{name}" for name in ("partitions", "rooms", "publications", "keys", "senders")]
"""The tables that are empty after a crash."""

QUICK = RecoverySettings(timeout=2.0, rest=0.1, longest_rest=0.3)


KEPT = Histories(1000, timedelta(minutes=5), 4 * 1024 * 1024, timedelta(minutes=5))


def place_of(url: str) -> tuple[int, str]:
    """The port and the schema of a PostgreSQL in the tests."""
    return int(url.rpartition(":")[2].partition("/")[0]), url.rpartition("schema=")[2]


class NodesOnPostgreSQL:
    """Nodes on the database at ``url``; ``proxies`` has that of each broker."""

    def __init__(self, url: str, *, pool_size: int = 4) -> None:
        self.url = url
        self.port, self.schema = place_of(url)
        self.proxies: dict[Any, CuttingProxy] = {}
        self._pool_size = pool_size

    async def forget_all(self) -> None:
        """Make the schema if it is not there, and empty its tables of what joins nodes."""
        async with Database(self.url).unchecked() as database:
            await database.migrate()
            await self.lose(database)
            for table in ("roomkey_presence", "roomkey_cluster_nodes"):
                await _execute(database, f"TRUNCATE {table}")

    @staticmethod
    async def lose(database: Database) -> None:
        """Lose what a server loses that crashes."""
        await _execute(database, f"TRUNCATE {', '.join(UNLOGGED)}")

    @asynccontextmanager
    async def open(self, number: int, kept: Histories = KEPT) -> AsyncGenerator[Sequence[PostgreSQLBroker]]:
        """So many nodes."""
        async with AsyncExitStack() as stack:
            brokers: list[PostgreSQLBroker] = []
            for index in range(number):
                proxy = await stack.enter_async_context(cutting_proxy(self.port))
                settings = DatabaseSettings(pool_size=self._pool_size, recovery=QUICK)
                database = Database(proxy.through(self.url), settings)
                broker = PostgreSQLBroker(database, f"n{index}", kept)
                await broker.__aenter__()
                stack.push_async_callback(self._leave, broker)
                self.proxies[broker] = proxy
                brokers.append(broker)
            yield brokers

    @staticmethod
    async def _leave(broker: PostgreSQLBroker) -> None:
        if broker.is_open:
            await broker.__aexit__(None, None, None)

    @asynccontextmanager
    async def cut(self, broker: Any) -> AsyncGenerator[None]:
        """While this is entered, the node has no connection."""
        proxy = self.proxies[broker]
        proxy.refuses = True
        proxy.cut_all()
        try:
            yield
        finally:
            proxy.refuses = False


async def _execute(database: Database, statement: str) -> None:
    await database.read(lambda connection: execute(connection, database.dialect, statement, ()))
