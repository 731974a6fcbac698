"""Removing what compactions and deletions leave behind, some of it in each transaction."""

from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.sql.database import Database
from roomkey.backends.sql.documents.layout import EVERYTHING, DocumentQueries
from roomkey.backends.sql.statements import Query, run

SWEPT_ROWS: Final = 2_000
"""Rows of a log, or versions, that are removed at a time: some ten milliseconds."""

SWEPT_PIECES: Final = 64
"""Pieces of contents that are removed at a time: 32 MiB of them, or one whole content."""

ROUNDS: Final = 8
"""Transactions after each write that leaves something, so that what is left does not grow."""


async def sweep(database: Database, queries: DocumentQueries) -> None:
    """Remove some of what is left behind; the rest is for the next time, on whatever node."""

    async def work(connection: AsyncConnection) -> bool:
        return await sweep_some(connection, queries)

    for _ in range(ROUNDS):
        # May be repeated: what is gone cannot be removed again, and nobody counts it.
        if not await database.write(work, may_repeat=True):
            return


async def sweep_some(connection: AsyncConnection, queries: DocumentQueries) -> bool:
    """Remove some; whether there may be more."""
    rows = await run(connection, queries.leftover)
    if not rows:
        return False
    document, content, upto = rows[0]
    whole = await _sweep(connection, queries.far_update, queries.sweep_updates, document, upto)
    if upto == EVERYTHING:
        whole = whole and await _sweep_versions(connection, queries, document)
        whole = whole and await _sweep_pieces(connection, queries, document)
    elif content:
        await run(connection, queries.sweep_pieces, document, content, content)
    if whole:
        await run(connection, queries.swept, document, content, upto)
    return True


async def _sweep(connection: AsyncConnection, far: Query, sweep: Query, document: int, upto: int) -> bool:
    """Remove updates up to a number; whether these were all."""
    bound = await run(connection, far, document, upto, SWEPT_ROWS)
    await run(connection, sweep, document, bound[0][0] if bound else upto)
    return not bound


async def _sweep_versions(connection: AsyncConnection, queries: DocumentQueries, document: int) -> bool:
    bound = await run(connection, queries.far_version, document, SWEPT_ROWS)
    await run(connection, queries.sweep_versions, document, bound[0][0] if bound else EVERYTHING)
    return not bound


async def _sweep_pieces(connection: AsyncConnection, queries: DocumentQueries, document: int) -> bool:
    bound = await run(connection, queries.far_piece, document, SWEPT_PIECES)
    await run(connection, queries.sweep_pieces, document, 0, bound[0][0] if bound else EVERYTHING)
    return not bound
