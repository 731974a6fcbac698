"""Moving house: documents, versions and graves that are taken in as they were elsewhere."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.document_keys import name_key, new_name_key
from roomkey.backends.document_records import DocumentEntry, encode_batch, encode_version
from roomkey.backends.sql.documents.changes import Again, Changes, checked
from roomkey.backends.sql.documents.layout import (
    EVERYTHING,
    ROW_ID,
    DocumentQueries,
    Filed,
    cut_record,
    filed,
    micros,
    new_record,
)
from roomkey.backends.sql.documents.reading import Reading
from roomkey.backends.sql.statements import Query, Row, run, run_many
from roomkey.backends.taking_in import check_document, check_version
from roomkey.ports import DocumentItem, DocumentUpdate, GraveItem, RecordCodec, RecordKind, VersionItem

ROW_BYTES: Final = 1024 * 1024
"""How much of a log is put into one record."""

GRAVES: Final = 1_000
"""Number of graves that one statement reads."""


class MovingQueries(NamedTuple):
    """The statements of ``queries/document_moving.sql``."""

    graves: Query
    locked: Query
    put_document: Query
    reach_version: Query


class TakingIn:
    """Documents that are taken in, within a transaction. ``reading`` is of the same connection."""

    def __init__(
        self,
        connection: AsyncConnection,
        queries: tuple[DocumentQueries, MovingQueries],
        codec: RecordCodec,
        reading: Reading,
    ) -> None:
        self._connection = connection
        self._queries, self._moving = queries
        self._codec = codec
        self._reading = reading
        self._changes = Changes(connection, self._queries, codec)

    async def take_in(self, item: DocumentItem | VersionItem | GraveItem) -> None:
        """``MovableDocuments.take_in``."""
        match item:
            case DocumentItem():
                await self._take_in_document(item)
            case VersionItem():
                await self._take_in_version(item)
            case GraveItem(digest, name):
                await self._changes.bury(digest, None if name is None else name_key(name))

    async def _locked(self, found: Filed) -> Filed:
        """The document as it is from now on until the transaction ends."""
        rows = await run(self._connection, self._moving.locked, found.id)
        if not rows:
            raise Again("the document was deleted meanwhile")
        return filed(rows[0], self._codec)

    # --- documents ------------------------------------------------------------------------------------

    async def _take_in_document(self, item: DocumentItem) -> None:
        stored, record = item.stored, item.stored.record
        name = new_name_key(record.name)
        await self._changes.create(name, record.lineage, record.created_at)  # unless it is there, or was deleted
        found = await self._locked(checked(await self._changes.find(name), record.lineage))
        check_document(item, found.entry.lineage, found.entry.sequence, found.entry.last_version)
        await run(self._connection, self._queries.sweep_updates, found.id, EVERYTHING)
        if found.content is not None:
            await run(self._connection, self._queries.leave, found.id, found.content, 0)
        content = None
        snapshot, authorship = stored.snapshot or b"", stored.authorship or b""
        if stored.upto:
            content = await self._changes.put_content(found.id, snapshot, authorship, upto=stored.upto)
        await run_many(
            self._connection, self._queries.put_updates, [*self._rows(found.id, stored.upto, stored.updates)]
        )
        made = new_record(DocumentEntry.new(record.name, record.lineage, record.created_at), self._codec)
        figures = record.sequence, stored.upto, micros(record.updated_at), record.log_bytes
        sizes = len(snapshot), len(authorship)
        await run(
            self._connection, self._moving.put_document, *figures, content, *sizes, item.last_version, made, found.id
        )

    def _rows(self, document: int, upto: int, updates: Sequence[DocumentUpdate]) -> Iterator[Row]:
        last = upto
        for batch in _batches(updates):
            last += len(batch)
            yield from update_rows(document, last, batch, self._codec)

    # --- versions -------------------------------------------------------------------------------------

    async def _take_in_version(self, item: VersionItem) -> None:
        name, version = name_key(item.name), item.version
        existing = await self._changes.existing(name, item.lineage)
        found = await self._locked(existing)
        held = None if name is None else await self._reading.version(name, version.number)
        if not check_version(version, item.content, held):
            return
        content = await self._changes.put_content(found.id, item.content)
        record = content.to_bytes(8, "big") + encode_version(version)
        stored = self._codec.encode(RecordKind.VERSION, ROW_ID.pack(found.id, version.number), 0, record)
        await run(self._connection, self._queries.put_version, found.id, version.number, content, stored)
        await run(self._connection, self._moving.reach_version, version.number, found.id, version.number)


def update_rows(document: int, last: int, updates: Sequence[DocumentUpdate], codec: RecordCodec) -> list[Row]:
    """The rows of updates that lie together and end with number ``last``."""
    record = codec.encode(RecordKind.UPDATES, ROW_ID.pack(document, last), 0, encode_batch(updates))
    size = sum(len(update.data) for update in updates)
    return [(document, last, part, len(updates), size, data) for part, data in cut_record(record)]


def _batches(updates: Sequence[DocumentUpdate]) -> Iterator[Sequence[DocumentUpdate]]:
    batch: list[DocumentUpdate] = []
    size = 0
    for update in updates:
        batch.append(update)
        size += len(update.data)
        if size >= ROW_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
