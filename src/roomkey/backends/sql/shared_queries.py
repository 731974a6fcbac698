"""The statements of what nodes share, and the time of the server."""

from datetime import timedelta
from typing import Final, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.sql.dialects import Dialect
from roomkey.backends.sql.statements import Query, load, run

MICROSECOND: Final = timedelta(microseconds=1)


class SharedQueries(NamedTuple):
    """The statements of ``queries/shared.sql``."""

    now: Query
    value: Query
    add: Query
    take: Query
    forget: Query
    overdue: Query
    of_owner: Query
    totals: Query
    oldest: Query
    renew_own_lease: Query
    first_lease: Query
    token: Query
    set_lease: Query
    checkpoints: Query
    save_checkpoint: Query
    join: Query
    bury_nodes: Query
    leave: Query
    nodes: Query

    @classmethod
    def of(cls, dialect: Dialect) -> "SharedQueries":
        """Those of a dialect."""
        return load("shared", dialect, cls)

    async def time(self, connection: AsyncConnection) -> int:
        """What time it is for the server: microseconds since 1970."""
        ((now,),) = await run(connection, self.now)
        return now
