"""
The writes: each is what happens within one transaction.

What others wait for comes last: the row of a document is locked from the moment on that it is changed, and every append
of this node waits behind that lock. So contents are sent before it. Rows are locked in the order of their ids.
"""

from collections.abc import Sequence
from datetime import datetime
from secrets import randbits
from typing import Final, NamedTuple

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.document_records import (
    DocumentEntry,
    decode_batch,
    encode_batch,
    encode_version,
    numbered,
)
from roomkey.backends.fences import fenced
from roomkey.backends.sql.dialects import Dialect
from roomkey.backends.sql.documents.layout import (
    EVERYTHING,
    ROW_ID,
    DocumentQueries,
    Filed,
    Part,
    as_made,
    cut_record,
    document_id,
    filed,
    lineage_key,
    micros,
    new_record,
    piece_rows,
)
from roomkey.backends.sql.statements import Row, run, run_many, touched
from roomkey.errors import Conflict, DocumentNotFound, NotFound, Overtaken, Serialization
from roomkey.ports import (
    AppendOutcome,
    DocumentRecord,
    DocumentUpdate,
    DocumentVersion,
    NewVersion,
    RecordCodec,
    RecordKind,
)

MAX_VERSION: Final = 2**32 - 1


class Again(Conflict):
    """Somebody else has changed the document meanwhile: nothing was written, and it has to be looked at again."""


class Batch(Struct, frozen=True, gc=False):
    """Updates that are to be appended, with everything that can be prepared before there is a connection."""

    record: bytes
    count: int
    size: int
    latest: int

    @classmethod
    def of(cls, updates: Sequence[DocumentUpdate]) -> "Batch":
        """Encode ``updates``, at least one."""
        return cls(
            encode_batch(updates),
            len(updates),
            sum(len(update.data) for update in updates),
            micros(max(update.at for update in updates)),
        )


class Appending(NamedTuple):
    """A batch and the document that it is for; without a batch there is nothing to append."""

    name: bytes | None
    lineage: str
    batch: Batch | None


class Changes:
    """Changes of documents within a transaction."""

    __slots__ = ("_codec", "_connection", "_queries")

    def __init__(self, connection: AsyncConnection, queries: DocumentQueries, codec: RecordCodec) -> None:
        self._connection = connection
        self._queries = queries
        self._codec = codec

    # --- one document ---------------------------------------------------------------------------------

    async def find(self, name: bytes | None) -> Filed | None:
        """
        The document of this name.

        Raises:
            Serialization: If its record is damaged.
        """
        if name is None:
            return None
        rows = await run(self._connection, self._queries.find, [name])
        return filed(rows[0], self._codec) if rows else None

    async def of(self, name: bytes | None, lineage: str) -> Filed | None:
        """The document of this name and lineage."""
        found = await self.find(name)
        return found if found is not None and found.entry.lineage == lineage else None

    async def existing(self, name: bytes | None, lineage: str) -> Filed:
        """The document of this name, which must be of this lineage."""
        return checked(await self.find(name), lineage)

    async def create(self, name: bytes, lineage: str, now: datetime) -> DocumentRecord:
        """``DocumentStore.create``."""
        entry = DocumentEntry.new(name.decode(), lineage, now)
        key = lineage_key(lineage)
        record = new_record(entry, self._codec)
        await run(self._connection, self._queries.create, name, key, micros(now), record)
        # Looked at only now: whoever deletes such a document at this moment was waited for.
        if await run(self._connection, self._queries.is_buried, document_id(name, key)):
            raise Conflict("this document was deleted")
        found = await self.find(name)
        if found is None:
            raise Again("the document was deleted meanwhile")
        return found.entry.record()

    async def delete(self, name: bytes | None, lineage: str) -> bool:
        """``DocumentStore.delete``. It is out of sight at once, and what belonged to it is swept up later."""
        found = await self.find(name)
        if found is None or name is None:
            return False
        checked(found, lineage)
        if not await touched(self._connection, self._queries.delete, found.id):
            raise Again("the document was deleted meanwhile")
        await self.bury(document_id(name, lineage_key(lineage)), name)
        await run(self._connection, self._queries.leave, found.id, 0, EVERYTHING)
        return True

    async def bury(self, grave: bytes, name: bytes | None) -> None:
        """Let no document of this digest be made again."""
        await run(self._connection, self._queries.bury, grave)
        if name is not None:
            await run(self._connection, self._queries.name_grave, grave, name)

    # --- the log --------------------------------------------------------------------------------------

    async def append_behind(self, appending: Appending, after: int) -> int:
        """``DocumentStore.append`` with ``after``."""
        found = await self.existing(appending.name, appending.lineage)
        if found.entry.sequence != after:
            raise Overtaken("the document has changed")
        batch = appending.batch
        if batch is None:
            return after
        figures = batch.count, batch.size, batch.latest, found.id, after
        if not await touched(self._connection, self._queries.grow_behind, *figures):
            raise Again("the document has changed meanwhile")
        last = after + batch.count
        await run_many(self._connection, self._queries.put_updates, self._rows(found.id, last, batch))
        return last

    async def append_each(self, appends: Sequence[Appending]) -> list[AppendOutcome]:
        """``DocumentStore.append_each``: a few statements, however many documents it is for."""
        names = [appending.name for appending in appends if appending.name is not None]
        rows = await run(self._connection, self._queries.find_to_append, names) if names else []
        found = {row[1]: row for row in rows}
        outcomes: list[AppendOutcome] = []
        growing: dict[int, tuple[int, Batch]] = {}
        for place, (name, lineage, batch) in enumerate(appends):
            row = found.get(name)
            if row is None:
                outcomes.append(_not_found())
                continue
            id, _, key, sequence, record = row
            try:
                made = as_made(row[1], key, record, self._codec)
            except Serialization as error:
                outcomes.append(error)
                continue
            if made.lineage != lineage:
                outcomes.append(_another())
                continue
            outcomes.append(sequence)
            if batch is not None:
                growing[id] = place, batch
        if growing:
            await self._grow(growing, outcomes)
        return outcomes

    async def _grow(self, growing: dict[int, tuple[int, Batch]], outcomes: list[AppendOutcome]) -> None:
        figures = [(id, batch.count, batch.size, batch.latest) for id, (_, batch) in sorted(growing.items())]
        sequences: dict[int, int] = {id: sequence for id, sequence in await self._moved(figures)}  # noqa: C416  # typed
        updates: list[Row] = []
        for id, (place, batch) in growing.items():
            last = sequences.get(id)
            if last is None:
                raise Again("a document was deleted meanwhile")
            outcomes[place] = last
            updates += self._rows(id, last, batch)
        await run_many(self._connection, self._queries.put_updates, updates)

    async def _moved(self, figures: Sequence[tuple[int, int, int, int]]) -> list[Row]:
        """Let documents go on; ids and the numbers of their last updates now, without those that are gone."""
        if self._queries.grow.dialect is Dialect.POSTGRESQL:
            return await run(self._connection, self._queries.grow, *map(list, zip(*figures, strict=True)))
        await run_many(self._connection, self._queries.grow, figures)
        # Ours since the statement before, so this is what it has led to.
        return await run(self._connection, self._queries.sequences, [id for id, *_ in figures])

    def _rows(self, document: int, last: int, batch: Batch) -> list[Row]:
        record = self._codec.encode(RecordKind.UPDATES, ROW_ID.pack(document, last), 0, batch.record)
        return [(document, last, part, batch.count, batch.size, data) for part, data in cut_record(record)]

    # --- snapshots ------------------------------------------------------------------------------------

    async def compact(
        self, name: bytes | None, lineage: str, *, snapshot: bytes, upto: int, authorship: bytes, fence: int | None
    ) -> bool:
        """``DocumentStore.compact``. What was in the log is out of sight at once, and swept up later."""
        found = await self.of(name, lineage)
        if found is None:
            return False
        id, _, entry = found
        fenced(entry.fence, fence)
        if not entry.upto < upto <= entry.sequence:
            return False
        merged = entry.log_bytes if upto == entry.sequence else await self._size(id, entry.upto, upto)
        content = await self.put_content(id, snapshot, authorship, upto=upto)
        if not await touched(
            self._connection,
            self._queries.compact,
            *(upto, merged, content, len(snapshot), len(authorship), fence or 0),
            *(id, entry.upto, _highest(fence)),
        ):
            raise Again("the document was compacted or deleted meanwhile, or somebody else has the lease")
        await run(self._connection, self._queries.leave, id, found.content or 0, upto)
        return True

    async def put_content(self, document: int, content: bytes, authorship: bytes = b"", *, upto: int = 0) -> int:
        """Store a content; the number that it got."""
        number = 1 + randbits(62)
        rows = [
            row
            for part, data in ((Part.CONTENT, content), (Part.AUTHORSHIP, authorship))
            for row in piece_rows(document, number, part, data, codec=self._codec, upto=upto)
        ]
        await run_many(self._connection, self._queries.put_pieces, rows)
        return number

    async def _size(self, document: int, after: int, upto: int) -> int:
        """Bytes of the updates behind number ``after`` up to ``upto``."""
        total = 0
        for last, count, size in await run(self._connection, self._queries.sizes_upto, document, after, upto):
            first = last - count + 1
            whole = first > after and last <= upto
            total += size if whole else await self._size_of_part(document, last, after + 1 - first, upto + 1 - first)
        return total

    async def _size_of_part(self, document: int, last: int, start: int, end: int) -> int:
        """The same of some of the updates that were appended together."""
        rows = await run(self._connection, self._queries.updates, document, last - 1, last)
        stored = b"".join(row[2] for row in rows)
        try:
            updates = decode_batch(self._codec.decode(RecordKind.UPDATES, ROW_ID.pack(document, last), 0, stored), {})
        except Serialization:
            return 0  # nobody can say, and nobody can read it
        return sum(len(update.data) for update in updates[max(start, 0) : end])

    # --- versions -------------------------------------------------------------------------------------

    async def keep_version(
        self, name: bytes | None, lineage: str, version: NewVersion, fence: int | None
    ) -> DocumentVersion:
        """``DocumentStore.keep_version``."""
        found = await self.existing(name, lineage)
        fenced(found.entry.fence, fence)
        content = await self.put_content(found.id, version.content)
        bar = fence or 0, found.id, _highest(fence)
        if not await touched(self._connection, self._queries.number_version, *bar):
            raise Again("the document was deleted meanwhile, or somebody else has the lease")
        ((number,),) = await run(self._connection, self._queries.last_version, found.id)
        kept = numbered(version, number)
        record = content.to_bytes(8, "big") + encode_version(kept)
        stored = self._codec.encode(RecordKind.VERSION, ROW_ID.pack(found.id, number), 0, record)
        await run(self._connection, self._queries.put_version, found.id, number, content, stored)
        return kept

    async def forget_versions(self, name: bytes | None, lineage: str, numbers: Sequence[int], fence: int | None) -> int:
        """``DocumentStore.forget_versions``."""
        found = await self.of(name, lineage)
        if found is None:
            return 0
        fenced(found.entry.fence, fence)
        if not await touched(self._connection, self._queries.raise_bar, fence or 0, found.id, _highest(fence)):
            raise Again("the document was deleted meanwhile, or somebody else has the lease")
        known = [number for number in numbers if 0 < number <= MAX_VERSION]
        if not known:
            return 0
        # The row of the document is ours by now, so nobody else forgets them at the same time.
        rows = await run(self._connection, self._queries.version, found.id, known)
        for _, content, _ in rows:
            await run(self._connection, self._queries.leave, found.id, content, 0)
        if rows:
            await run(self._connection, self._queries.forget_versions, found.id, known)
        return len(rows)


def checked(found: Filed | None, lineage: str) -> Filed:
    """
    ``found``, which must be a document of this lineage.

    Raises:
        NotFound: If there is none.
        Conflict: If it is of another lineage.
    """
    if found is None:
        raise _not_found()
    if found.entry.lineage != lineage:
        raise _another()
    return found


def _not_found() -> NotFound:
    return DocumentNotFound("there is no such document")


def _another() -> Conflict:
    return Conflict("the document is another one")


def _highest(fence: int | None) -> int:
    """The highest fencing token that may have been written under; without a lease nothing is asked."""
    return EVERYTHING if fence is None else fence
