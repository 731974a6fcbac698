"""Which nodes live, in a database of PostgreSQL, by its clock."""

from collections.abc import Sequence
from datetime import timedelta

from msgspec import json
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.sql.cluster.cluster_queries import ClusterQueries
from roomkey.backends.sql.database import Database
from roomkey.backends.sql.shared_queries import MICROSECOND
from roomkey.backends.sql.statements import Row, run
from roomkey.ports import NodeStatus


class PostgreSQLNodeRegistry:
    """``ports.NodeRegistry`` in a database, which has to be entered."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = ClusterQueries.load()

    async def renew(self, status: NodeStatus, lifetime: timedelta) -> Sequence[NodeStatus]:
        parameters = status.id.encode(), lifetime // MICROSECOND, json.encode(status)

        async def renew(connection: AsyncConnection) -> None:
            await run(connection, self._queries.renew, *parameters)

        # May be repeated: the second time is a little later.
        await self._database.write_at_once(renew, may_repeat=True)
        return await self.nodes()

    async def leave(self, id: str) -> None:
        async def leave(connection: AsyncConnection) -> None:
            await run(connection, self._queries.leave, id.encode())

        # May be repeated: it is gone.
        await self._database.write_at_once(leave, may_repeat=True)

    async def nodes(self) -> Sequence[NodeStatus]:
        async def nodes(connection: AsyncConnection) -> Sequence[Row]:
            return await run(connection, self._queries.nodes)

        # What a newer version says besides is left out; one that says less has the defaults.
        found = [json.decode(record, type=NodeStatus) for (record,) in await self._database.read(nodes)]
        return [replace(status, messages=tuple(status.messages)) for status in found]
