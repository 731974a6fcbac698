"""Leases in a database of SQL, by its clock."""

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.sql.database import Database
from roomkey.backends.sql.shared_queries import MICROSECOND, SharedQueries
from roomkey.backends.sql.statements import run, touched


class DatabaseLeases:
    """
    ``ports.Leases`` in a database, which has to be entered.

    Of every name a row stays, some hundred bytes, so that its tokens grow for ever.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = SharedQueries.of(database.dialect)

    async def acquire(self, name: str, holder: str, lifetime: timedelta) -> int | None:
        key, who = name.encode(), holder.encode()

        async def work(connection: AsyncConnection) -> int | None:
            now = await self._queries.time(connection)
            ends = now + lifetime // MICROSECOND
            if not await touched(connection, self._queries.renew_own_lease, who, ends, key, who, now) and not (
                await touched(connection, self._queries.first_lease, key, who, ends)
            ):
                return None
            ((token, _),) = await run(connection, self._queries.token, key)
            return token

        # May be repeated: a holder that asks again gets a new token, and the one that nobody heard of is void.
        return await self._database.write(work, may_repeat=True)

    async def renew(self, name: str, token: int, lifetime: timedelta) -> bool:
        return await self._set(name, token, lifetime)

    async def release(self, name: str, token: int) -> bool:
        return await self._set(name, token, timedelta(0))

    async def _set(self, name: str, token: int, lifetime: timedelta) -> bool:
        """Let the lease end ``lifetime`` from now, if it is held."""
        tried = False

        async def work(connection: AsyncConnection) -> bool:
            nonlocal tried
            now = await self._queries.time(connection)
            ends = now + lifetime // MICROSECOND
            if await touched(connection, self._queries.set_lease, ends, name.encode(), token, now):
                tried = True
                return True
            # May be repeated: nobody else has this token, so if it is there and over, the try before has ended it.
            rows = await run(connection, self._queries.token, name.encode())
            return tried and not lifetime and bool(rows) and rows[0][0] == token

        return await self._database.write(work, may_repeat=True)
