"""Writing the records of documents anew, under the key that the codec seals with now."""

from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Final, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.resealing import Anew, Sealed, sealed_anew
from roomkey.backends.sql.database import Database
from roomkey.backends.sql.documents.layout import PIECE_ID, ROW_ID, DocumentRow, document_id
from roomkey.backends.sql.documents.repair import DOCUMENTS_AT_ONCE, PIECES, ROWS, RepairQueries
from roomkey.backends.sql.resealing import ResealingQueries
from roomkey.backends.sql.statements import Query, Row, load, run
from roomkey.ports import RecordCodec, RecordKind, Resealed, SealingCodec

_ID_BYTES: Final = 8


class Place(NamedTuple):
    """Where a record lies: its ``key``, and the sizes of the parts that it is cut into."""

    key: tuple[int, ...]
    sizes: Sequence[int]


class DocumentResealing:
    """
    ``Resealable`` for documents.

    Records never change, so it needs no lock: one that is still what was read is the same in other words.
    """

    def __init__(self, database: Database, repair: RepairQueries, codec: RecordCodec) -> None:
        self._database = database
        self._repair = repair
        self._codec = codec
        self._resealing = load("resealing", database.dialect, ResealingQueries)

    async def reseal(self, after: bytes, limit: int, *, only_counts: bool) -> Resealed:
        """``Resealable.reseal``: whole documents, one after the other."""
        if not isinstance(self._codec, SealingCodec):
            return Resealed(None, 0, 0, 0)
        id = int.from_bytes(after)
        looked_at = resealed = left = 0
        for row in (documents := await self._rows(self._repair.documents, id, DOCUMENTS_AT_ONCE)):
            document = DocumentRow(*row)
            id = document.id
            async for page in self._pages(document):
                anew, unreadable = sealed_anew(self._codec, page)
                if anew and not only_counts:
                    # May be repeated: what was written is not what it was any more.
                    await self._database.write(partial(self._write, anew=anew), may_repeat=True)
                looked_at += len(page)
                resealed += len(anew)
                left += unreadable
            if looked_at >= limit:
                break
        return Resealed(id.to_bytes(_ID_BYTES) if documents else None, looked_at, resealed, left)

    async def _rows(self, query: Query, *parameters: object) -> list[Row]:
        async def work(connection: AsyncConnection) -> list[Row]:
            return await run(connection, query, *parameters)

        return await self._database.read(work)

    # --- reading --------------------------------------------------------------------------------------

    async def _pages(self, row: DocumentRow) -> AsyncIterator[list[Sealed[Place]]]:
        """The records of a document, so many at a time that they need not much memory."""
        id = document_id(row.name, row.lineage)
        yield [Sealed(_place(row.id, row.record), RecordKind.DOCUMENT, id, 0, row.record)]
        async for page in self._updates(row.id):
            yield page
        if row.content is not None:
            async for page in self._pieces(row.id, row.content, row.upto):
                yield page
        number = 0
        while rows := await self._rows(self._repair.versions, row.id, number, ROWS):
            number = rows[-1][0]
            yield [_version(row.id, each) for each in rows]
            for _, content, _ in rows:
                async for page in self._pieces(row.id, content, 0):
                    yield page

    async def _updates(self, document: int) -> AsyncIterator[list[Sealed[Place]]]:
        last = 0
        while rows := await self._rows(self._repair.updates, document, last, ROWS):
            if len(rows) == ROWS:
                # The parts of the last ones may not all be there.
                whole = [row for row in rows if row[0] != rows[-1][0]]
                rows = whole or await self._rows(self._repair.batch, document, rows[-1][0])
                if not rows:
                    continue  # they were compacted and swept up just now
            last = rows[-1][0]
            yield [_batch(document, number, [*parts]) for number, parts in groupby(rows, itemgetter(0))]

    async def _pieces(self, document: int, content: int, upto: int) -> AsyncIterator[list[Sealed[Place]]]:
        part, piece = -1, 0
        while rows := await self._rows(self._repair.pieces, document, content, part, part, piece, PIECES):
            _, part, piece, _ = rows[-1]
            yield [_piece(document, upto, row) for row in rows]

    # --- writing --------------------------------------------------------------------------------------

    async def _write(self, connection: AsyncConnection, anew: Sequence[Anew[Place]]) -> None:
        for (key, sizes), kind, former, record in anew:
            rows = zip(_cut(record, sizes), _cut(former, sizes), strict=True)
            for number, (new, old) in enumerate(rows):
                place = (*key, number) if kind is RecordKind.UPDATES else key
                await run(connection, self._put(kind), new, *place, old)

    def _put(self, kind: RecordKind) -> Query:
        return {
            RecordKind.DOCUMENT: self._resealing.put_document,
            RecordKind.UPDATES: self._resealing.put_update,
            RecordKind.CONTENT: self._resealing.put_piece,
            RecordKind.VERSION: self._resealing.put_version,
        }[kind]


def _place(document: int, record: bytes, *key: int) -> Place:
    return Place((document, *key), [len(record)])


def _version(document: int, row: Row) -> Sealed[Place]:
    number, _, record = row
    return Sealed(_place(document, record, number), RecordKind.VERSION, ROW_ID.pack(document, number), 0, record)


def _piece(document: int, upto: int, row: Row) -> Sealed[Place]:
    content, part, piece, record = row
    id = PIECE_ID.pack(document, content, part, piece)
    return Sealed(_place(document, record, content, part, piece), RecordKind.CONTENT, id, upto, record)


def _batch(document: int, last: int, parts: Sequence[Row]) -> Sealed[Place]:
    records = [part[4] for part in parts]
    place = Place((document, last), [len(record) for record in records])
    return Sealed(place, RecordKind.UPDATES, ROW_ID.pack(document, last), 0, b"".join(records))


def _cut(record: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    """``record`` in parts of these sizes, but for the last one, which has the rest."""
    start = 0
    for size in sizes[:-1]:
        yield record[start : start + size]
        start += size
    yield record[start:]
