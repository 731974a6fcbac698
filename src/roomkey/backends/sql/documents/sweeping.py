"""Removing what compactions and deletions leave behind, some of it in each transaction."""

from itertools import groupby
from operator import itemgetter
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.document_records import decode_batch
from roomkey.backends.sql.database import Database
from roomkey.backends.sql.documents.layout import EVERYTHING, ROW_ID, DocumentQueries
from roomkey.backends.sql.statements import Query, run
from roomkey.errors import Serialization
from roomkey.ports import RecordCodec, RecordKind

SWEPT_ROWS: Final = 2_000
"""Rows of a log, or versions, that are removed at a time: some ten milliseconds."""

SWEPT_PIECES: Final = 64
"""Pieces of contents that are removed at a time: 32 MiB of them, or one whole content."""

ROUNDS: Final = 8
"""Transactions after each write that leaves something, so that what is left does not grow."""

_log = structlog.get_logger("roomkey.storage")


class Sweeper:
    """Sweeps, on whatever node; several may do so at the same time."""

    def __init__(self, database: Database, queries: DocumentQueries, codec: RecordCodec) -> None:
        self._database = database
        self._queries = queries
        self._codec = codec

    async def sweep(self) -> None:
        """Remove some of what is left behind; the rest is for the next time."""
        for _ in range(ROUNDS):
            # May be repeated: what is gone cannot be removed again, and nobody counts it.
            if not await self._database.write(self._sweep_some, may_repeat=True):
                return

    async def _sweep_some(self, connection: AsyncConnection) -> bool:
        """Remove some; whether there may be more."""
        rows = await run(connection, self._queries.leftover)
        if not rows:
            return False
        document, content, upto = rows[0]
        whole = await self._sweep_updates(connection, document, upto)
        if upto == EVERYTHING:
            queries = self._queries
            whole = whole and await _sweep(
                connection, queries.far_version, queries.sweep_versions, document, SWEPT_ROWS
            )
            whole = whole and await _sweep(connection, queries.far_piece, queries.sweep_pieces, document, SWEPT_PIECES)
        elif content:
            await run(connection, self._queries.sweep_content, document, content)
        if whole:
            await run(connection, self._queries.swept, document, content, upto)
        return True

    async def _sweep_updates(self, connection: AsyncConnection, document: int, upto: int) -> bool:
        """Remove updates up to a number; whether these were all."""
        far = await run(connection, self._queries.far_update, document, upto, SWEPT_ROWS)
        bound = far[0][0] if far else upto
        if upto != EVERYTHING:
            await self._put_aside(connection, document, bound)
        await run(connection, self._queries.sweep_updates, document, bound)
        return not far

    async def _put_aside(self, connection: AsyncConnection, document: int, bound: int) -> None:
        """What cannot be read is in no snapshot, so it is not thrown away."""
        rows = await run(connection, self._queries.updates, document, 0, bound)
        for last, parts in groupby(rows, itemgetter(0)):
            stored = b"".join(record for _, _, record in parts)
            try:
                decode_batch(self._codec.decode(RecordKind.UPDATES, ROW_ID.pack(document, last), 0, stored), {})
            except Serialization:
                await run(connection, self._queries.put_aside, document, last, stored)
                _log.warning("storage_record_set_aside", table="roomkey_document_updates", key=f"{document}, {last}")


async def _sweep(connection: AsyncConnection, far: Query, sweep: Query, document: int, limit: int) -> bool:
    """Remove rows of a document; whether these were all."""
    bound = await run(connection, far, document, limit)
    await run(connection, sweep, document, bound[0][0] if bound else EVERYTHING)
    return not bound
