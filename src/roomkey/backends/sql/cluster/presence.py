"""Whom each node shows in which room, in a database of PostgreSQL."""

from collections.abc import Sequence
from secrets import token_bytes
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.sql.cluster.cluster_queries import ClusterQueries
from roomkey.backends.sql.database import Database
from roomkey.backends.sql.grouping import Grouped
from roomkey.backends.sql.statements import Row, run
from roomkey.ports import Presence, PresenceChange

FORGOTTEN_AT_A_TIME: Final = 500

MAX_BATCH: Final = 500
"""Calls in one statement."""


class PostgreSQLPresenceStore:
    """
    ``ports.PresenceStore`` of ``node`` in a database, which has to be entered.

    Changes are made one statement after the other, each with a number: one that comes late, after its answer was given
    up and what followed was made, changes nothing.
    """

    def __init__(self, database: Database, node: str) -> None:
        self._database = database
        self._node = node.encode()
        self._queries = ClusterQueries.load()
        self._sender = token_bytes(8)
        self._turn = 0
        self._group: Grouped[Sequence[PresenceChange]] | None = None

    async def change(self, changes: Sequence[PresenceChange]) -> None:
        if changes:
            await self._changes().submit(changes)

    def _changes(self) -> Grouped[Sequence[PresenceChange]]:
        """On the loop of the database, which is there when it is entered."""
        if self._group is None or not self._group.is_on_this_loop():
            self._group = Grouped(self._write, max_batch=MAX_BATCH, max_waiting=self._database.settings.max_waiting)
        return self._group

    async def _write(self, groups: list[Sequence[PresenceChange]]) -> Sequence[None]:
        self._turn += 1
        turn = self._turn
        latest = {(each.room.encode(), each.member.encode()): each.shown for changes in groups for each in changes}
        gone = [key for key, shown in latest.items() if shown is None]
        shown = [(*key, shown) for key, shown in latest.items() if shown is not None]

        async def write(connection: AsyncConnection) -> None:
            await run(
                connection,
                self._queries.show,
                self._sender,
                turn,
                *_columns(gone, 2),
                self._node,
                self._node,
                *_columns(shown, 3),
            )

        # May be repeated: each turn is made once.
        await self._database.write_at_once(write, may_repeat=True)
        return [None] * len(groups)

    async def here(self, room: str) -> Sequence[Presence]:
        async def read(connection: AsyncConnection) -> Sequence[Row]:
            return await run(connection, self._queries.here, room.encode())

        return [
            Presence(node.decode(), member.decode(), shown) for node, member, shown in await self._database.read(read)
        ]

    async def forget(self, node: str) -> None:
        async def forget(connection: AsyncConnection) -> Sequence[Row]:
            return await run(connection, self._queries.forget_node, node.encode(), FORGOTTEN_AT_A_TIME)

        # May be repeated: what is gone cannot be forgotten again.
        while len(await self._database.write_at_once(forget, may_repeat=True)) == FORGOTTEN_AT_A_TIME:
            pass


def _columns(rows: Sequence[Row], number: int) -> list[list[object]]:
    return [[row[column] for row in rows] for column in range(number)]
