"""Which rows of documents are damaged, and putting them aside."""

from collections.abc import AsyncIterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Final, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.damage import DamageNotes, NewerSchema, shown
from roomkey.backends.document_records import decode_batch, lost_updates
from roomkey.backends.sql.documents.layout import PIECE_ID, ROW_ID, DocumentQueries, DocumentRow, Filed, Part, filed
from roomkey.backends.sql.documents.moving import update_rows
from roomkey.backends.sql.documents.reading import Reading
from roomkey.backends.sql.repair import damage_of, place_of, put_aside
from roomkey.backends.sql.statements import Query, Row, run, run_many
from roomkey.errors import Serialization
from roomkey.ports import DamagedRecord, RecordCodec, RecordKind

DOCUMENTS_AT_ONCE: Final = 100
ROWS: Final = 100
"""Number of rows of a log that one statement reads; usually they are small."""

PIECES: Final = 16
"""Number of pieces of a content that one statement reads: 8 MiB."""

DOCUMENTS: Final = "roomkey_documents"
UPDATES: Final = "roomkey_document_updates"
VERSIONS: Final = "roomkey_document_versions"
CONTENTS: Final = "roomkey_document_pieces"

_ID_BYTES: Final = 8


class RepairQueries(NamedTuple):
    """The statements of ``queries/document_repair.sql``."""

    documents: Query
    locked: Query
    updates: Query
    batch: Query
    last_before: Query
    remove_batch: Query
    put_log_bytes: Query
    versions: Query
    remove_version: Query
    pieces: Query
    piece: Query
    remove_piece: Query
    put_aside: Query


class DocumentRepair:
    """The rows of one document after the other, within a connection. What belongs to no document nobody misses."""

    def __init__(
        self, connection: AsyncConnection, queries: tuple[DocumentQueries, RepairQueries], codec: RecordCodec
    ) -> None:
        self._connection = connection
        self._queries, self._repair = queries
        self._codec = codec
        # What is found here is said to whoever asked.
        self._reading = Reading(connection, self._queries, codec, DamageNotes("documents"))

    # --- looking --------------------------------------------------------------------------------------

    async def ids(self, after: int) -> list[int]:
        """The next documents."""
        return [row[0] for row in await run(self._connection, self._repair.documents, after, DOCUMENTS_AT_ONCE)]

    async def damaged(self, id: int) -> list[DamagedRecord]:
        """What is damaged of a document; all has to be seen at one moment."""
        rows = await run(self._connection, self._repair.documents, id - 1, 1)
        if not rows or rows[0][0] != id:
            return []
        try:
            found = filed(rows[0], self._codec)
        except Serialization as error:
            place = place_of(DOCUMENTS, id.to_bytes(_ID_BYTES))
            return [damage_of(RecordKind.DOCUMENT, shown(rows[0][1]), error, place)]
        damaged = [each async for each in self._damaged_updates(found)]
        if found.content is not None:
            damaged += [each async for each in self._damaged_pieces(found, found.content)]
        number = 0
        while rows := await run(self._connection, self._repair.versions, id, number, ROWS):
            number = rows[-1][0]
            for row in rows:
                damaged += self._damaged_version(found, row)
                damaged += [each async for each in self._damaged_pieces(found, row[1])]
        return damaged

    async def _damaged_updates(self, found: Filed) -> AsyncIterator[DamagedRecord]:
        last = 0
        while rows := await run(self._connection, self._repair.updates, found.id, last, ROWS):
            if len(rows) == ROWS:
                # The parts of the last ones may not all be there.
                rows = [row for row in rows if row[0] != rows[-1][0]] or await self._batch(found.id, rows[-1][0])
            last = rows[-1][0]
            for number, parts in groupby(rows, itemgetter(0)):
                flaw = self._flaw_of_updates(found.id, [*parts])
                if flaw is not None:
                    place = place_of(UPDATES, ROW_ID.pack(found.id, number))
                    yield damage_of(RecordKind.UPDATES, f"{found.entry.name}, updates to {number}", flaw, place)

    async def _batch(self, document: int, last: int) -> list[Row]:
        return await run(self._connection, self._repair.batch, document, last)

    def _flaw_of_updates(self, document: int, parts: Sequence[Row]) -> Serialization | None:
        last, _, number, *_ = parts[0]
        stored = b"".join(part[4] for part in parts)
        try:
            updates = decode_batch(self._codec.decode(RecordKind.UPDATES, ROW_ID.pack(document, last), 0, stored), {})
        except Serialization as error:
            return error
        return None if len(updates) == number else Serialization("updates of a document are not as many as they were")

    def _damaged_version(self, found: Filed, row: Row) -> list[DamagedRecord]:
        try:
            self._reading.opened_version(found.id, row)
        except Serialization as error:
            place = place_of(VERSIONS, ROW_ID.pack(found.id, row[0]))
            return [damage_of(RecordKind.VERSION, f"{found.entry.name}, version {row[0]}", error, place)]
        return []

    async def _damaged_pieces(self, found: Filed, content: int) -> AsyncIterator[DamagedRecord]:
        part, piece = -1, 0
        while rows := await run(self._connection, self._repair.pieces, found.id, content, part, part, piece, PIECES):
            _, part, piece, _ = rows[-1]
            for row in rows:
                flaw = self._flaw_of_piece(found, row)
                if flaw is not None:
                    place = place_of(CONTENTS, PIECE_ID.pack(found.id, *row[:3]))
                    yield damage_of(RecordKind.CONTENT, f"{found.entry.name}, piece {row[2]}", flaw, place)

    def _flaw_of_piece(self, found: Filed, row: Row) -> Serialization | None:
        content, part, piece, record = row
        upto = found.entry.upto if content == found.content else 0
        try:
            self._codec.decode(RecordKind.CONTENT, PIECE_ID.pack(found.id, content, part, piece), upto, record)
        except Serialization as error:
            return error
        return None

    # --- putting aside --------------------------------------------------------------------------------

    async def set_aside(self, place: bytes) -> bool:
        """
        Put one record aside, if it is damaged.

        A piece of a snapshot stays: without it there is no document, and with the others it may still be of use.
        """
        name, _, key = place.partition(b"\0")
        table = name.decode(errors="replace")
        known = {UPDATES: ROW_ID.size, VERSIONS: ROW_ID.size, CONTENTS: PIECE_ID.size, DOCUMENTS: _ID_BYTES}
        if len(key) != known.get(table):
            return False
        rows = await run(self._connection, self._repair.locked, int.from_bytes(key[:_ID_BYTES]))
        if rows and table == DOCUMENTS:
            return await self._set_document_aside(rows[0], key)
        try:
            found = filed(rows[0], self._codec) if rows else None
        except Serialization:
            found = None  # it is named itself, and all that belongs to it goes out of sight with it
        put = {UPDATES: self._set_updates_aside, VERSIONS: self._set_version_aside, CONTENTS: self._set_piece_aside}
        return found is not None and await put[table](found, key)

    async def _put_aside(self, table: str, key: bytes, row: Row) -> None:
        await put_aside(self._connection, self._repair.put_aside, table, key, row)

    async def _set_document_aside(self, row: Row, key: bytes) -> bool:
        """Take a document out of sight. What belonged to it stays: its number is not given again."""
        try:
            filed(row, self._codec)
        except NewerSchema:
            return False
        except Serialization:
            await self._put_aside(DOCUMENTS, key, row)
            await run(self._connection, self._queries.delete, DocumentRow(*row).id)
            return True
        return False

    async def _set_updates_aside(self, found: Filed, key: bytes) -> bool:
        """Put updates that change nothing in the place of others, so that all that follow keep their numbers."""
        _, last = ROW_ID.unpack(key)
        parts = await self._batch(found.id, last)
        flaw = self._flaw_of_updates(found.id, parts) if parts else None
        if flaw is None or isinstance(flaw, NewerSchema):
            return False
        ((before,),) = await run(self._connection, self._repair.last_before, found.id, last)
        for part in parts:
            await self._put_aside(UPDATES, key, part)
        await run(self._connection, self._repair.remove_batch, found.id, last)
        entry = found.entry
        lost = last - max(before or 0, entry.upto)
        if lost > 0 and last <= entry.sequence:
            rows = update_rows(found.id, last, lost_updates(lost, entry.updated_at), self._codec)
            await run_many(self._connection, self._queries.put_updates, rows)
        log = await self._reading.log(found, entry.upto, entry.sequence)
        size = sum(len(update.data) for update in log.updates)
        await run(self._connection, self._repair.put_log_bytes, size, found.id)
        return True

    async def _set_version_aside(self, found: Filed, key: bytes) -> bool:
        _, number = ROW_ID.unpack(key)
        rows = await run(self._connection, self._queries.version, found.id, [number])
        damaged = self._damaged_version(found, rows[0]) if rows else []
        if not damaged or damaged[0].is_newer:
            return False
        await self._take_version_away(found, rows[0])
        return True

    async def _take_version_away(self, found: Filed, row: Row) -> None:
        await self._put_aside(VERSIONS, ROW_ID.pack(found.id, row[0]), row)
        await run(self._connection, self._repair.remove_version, found.id, row[0])

    async def _set_piece_aside(self, found: Filed, key: bytes) -> bool:
        _, content, part, piece = PIECE_ID.unpack(key)
        place = found.id, content, part, piece
        rows = await run(self._connection, self._repair.piece, *place)
        if not rows or content == found.content or part != Part.CONTENT:
            return False
        flaw = self._flaw_of_piece(found, rows[0])
        if flaw is None or isinstance(flaw, NewerSchema):
            return False
        await self._put_aside(CONTENTS, key, rows[0])
        await run(self._connection, self._repair.remove_piece, *place)
        for row in await run(self._connection, self._repair.versions, found.id, 0, 2**31 - 1):
            if row[1] == content:
                await self._take_version_away(found, row)
        return True
