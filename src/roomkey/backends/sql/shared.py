"""What the nodes on one database share besides what is stored in it."""

import asyncio
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.sealing import Seal, can_seal
from roomkey.backends.sql.database import Database, DatabaseSettings, opened
from roomkey.backends.sql.leases import DatabaseLeases
from roomkey.backends.sql.one_time import DatabaseOneTime
from roomkey.backends.sql.shared_queries import MICROSECOND, SharedQueries
from roomkey.backends.sql.statements import run
from roomkey.errors import Storage
from roomkey.ports import OneTime, OneTimeLimits, SharedState
from roomkey.security.possession import PROOF_LIMITS

NODE_LIFETIME: Final = timedelta(seconds=10)
"""How long a node counts as living that says nothing."""

RENEWALS: Final = 3
"""How often within its lifetime a node says that it lives."""


class DatabaseShared:
    """
    ``ports.SharedState`` of the nodes on one database, which have one ``secret``.

    Tickets and answers contain secrets, so they are sealed there. Without ``secret``, or the package that encrypts,
    each node has its ``own``.
    """

    counts_once = False

    def __init__(
        self,
        database: str | Database,
        settings: DatabaseSettings | None = None,
        *,
        secret: bytes,
        own: SharedState,
        tickets: OneTimeLimits,
        answers: OneTimeLimits,
        proofs: OneTimeLimits = PROOF_LIMITS,
        node_lifetime: timedelta = NODE_LIFETIME,
    ) -> None:
        """``database`` is its URL, or one that stores use, too."""
        self._database = opened(database, settings)
        self._queries = SharedQueries.of(self._database.dialect)
        self._lifetime = node_lifetime
        self._node = ""
        self._others: list[str] = []
        self._open = AsyncExitStack()
        self.tickets: OneTime = own.tickets
        self.answers: OneTime = own.answers
        self.proofs: OneTime = own.proofs
        self.leases = DatabaseLeases(self._database)
        self.counters = own.counters  # counting every message in a database costs more than it protects
        self.is_complete = bool(secret) and can_seal()
        if self.is_complete:
            self.tickets = DatabaseOneTime(self._database, "tickets", tickets, Seal(secret, "tickets"))
            self.answers = DatabaseOneTime(self._database, "answers", answers, Seal(secret, "answers"))
            self.proofs = DatabaseOneTime(self._database, "proofs", proofs, Seal(secret, "proofs"))

    async def join(self, node: str) -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._database)
            self._node = node
            await self._renew()
            stack.push_async_callback(self._say_goodbye)
            group = await stack.enter_async_context(asyncio.TaskGroup())
            stack.callback(group.create_task(self._keep_renewing()).cancel)
            self._open = stack.pop_all()

    async def leave(self) -> None:
        await self._open.aclose()
        self._others = []

    def others(self) -> list[str]:
        return self._others

    async def _keep_renewing(self) -> None:
        while True:
            await asyncio.sleep(self._lifetime.total_seconds() / RENEWALS)
            with suppress(Storage):  # the database says itself what is wrong
                await self._renew()

    async def _renew(self) -> None:
        async def work(connection: AsyncConnection) -> list[str]:
            now = await self._queries.time(connection)
            await run(connection, self._queries.bury_nodes, now)
            await run(connection, self._queries.join, self._node.encode(), now + self._lifetime // MICROSECOND)
            rows = await run(connection, self._queries.nodes, now)
            return [name.decode() for (name,) in rows if name != self._node.encode()]

        # May be repeated: the second time is a little later.
        self._others = await self._database.write(work, may_repeat=True)

    async def _say_goodbye(self) -> None:
        async def work(connection: AsyncConnection) -> None:
            await run(connection, self._queries.leave, self._node.encode())

        with suppress(Storage):  # it is forgotten anyway
            # May be repeated: it is gone.
            await self._database.write(work, may_repeat=True)
