"""What is read of documents, each within one connection."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.damage import DamageNotes
from roomkey.backends.document_keys import name_cursor, version_cursor
from roomkey.backends.document_records import Authors, decode_batch, decode_version, lost_updates
from roomkey.backends.sql.documents.changes import checked
from roomkey.backends.sql.documents.layout import (
    EVERYTHING,
    PIECE_ID,
    ROW_ID,
    DocumentQueries,
    Filed,
    Part,
    backlog_class,
    document_id,
    filed,
    lineage_key,
)
from roomkey.backends.sql.statements import Row, run
from roomkey.errors import Serialization
from roomkey.ports import (
    DocumentHead,
    DocumentPage,
    DocumentRecord,
    DocumentTail,
    DocumentUpdate,
    DocumentVersion,
    RecordCodec,
    RecordKind,
    StoredDocument,
    VersionPage,
)

TAIL_ROWS: Final = 1_000
TAIL_BYTES: Final = 8 * 1024 * 1024
"""Maximum of what is read of a log at a time, unless a single row is larger."""


class Log:
    """Updates of a document in the making, in order and without a gap."""

    def __init__(self, found: Filed, after: int, damage: DamageNotes) -> None:
        self.updates: list[DocumentUpdate] = []
        self.lost = 0
        self._entry = found.entry
        self._after = after
        self._damage = damage
        self._authors: Authors = {}

    def take(self, last: int, count: int, record: Callable[[], bytes]) -> None:
        """Add those that were appended together and end with number ``last``, which ``record`` reads."""
        first = last - count + 1
        self.end(first - 1)
        wanted = last - self._known
        try:
            batch = decode_batch(record(), self._authors)
        except Serialization as error:
            self._damage.note(RecordKind.UPDATES, f"{self._entry.name}, row {last}", error)
        else:
            self.updates += batch[-wanted:] if len(batch) == count else []
        self.end(last)

    def end(self, upto: int) -> None:
        """There is nothing else up to number ``upto``: what is missing is lost."""
        if upto > self._known:
            self._damage.note_torn(self._entry.name, self._known + 1, upto - self._known)
            self._lose(upto - self._known)

    @property
    def _known(self) -> int:
        return self._after + len(self.updates)

    def _lose(self, count: int) -> None:
        self.updates += lost_updates(count, self._entry.updated_at)
        self.lost += count


class Reading:
    """Documents as one connection shows them."""

    __slots__ = ("_codec", "_connection", "_damage", "_queries")

    def __init__(
        self, connection: AsyncConnection, queries: DocumentQueries, codec: RecordCodec, damage: DamageNotes
    ) -> None:
        self._connection = connection
        self._queries = queries
        self._codec = codec
        self._damage = damage

    async def find(self, name: bytes) -> Filed | None:
        """
        The document of this name.

        Raises:
            Serialization: If its record is damaged.
        """
        rows = await run(self._connection, self._queries.find, [name])
        return filed(rows[0], self._codec) if rows else None

    async def was_deleted(self, name: bytes, lineage: str) -> bool:
        """``DocumentStore.was_deleted``."""
        grave = document_id(name, lineage_key(lineage))
        return bool(await run(self._connection, self._queries.is_buried, grave))

    async def heads(self, names: Sequence[bytes | None]) -> list[DocumentHead | None]:
        """``DocumentStore.heads``, in one statement."""
        known = [name for name in names if name is not None]
        rows = await run(self._connection, self._queries.heads, known) if known else []
        heads = {name: DocumentHead(lineage.decode("utf-8", "replace"), sequence) for name, lineage, sequence in rows}
        return [None if name is None else heads.get(name) for name in names]

    # --- lists ----------------------------------------------------------------------------------------

    async def page(self, start: bytes, end: bytes, limit: int) -> DocumentPage:
        """A page of the documents by name from ``start`` to before ``end``; those that are damaged are left out."""
        found: list[DocumentRecord] = []
        while len(found) <= limit:
            wanted = limit + 1 - len(found)
            rows = await run(self._connection, self._queries.list, start, end, wanted)
            found += (document.entry.record() for document in self._sound(rows))
            if len(rows) < wanted:
                break
            start = rows[-1][1] + b"\0"
        return DocumentPage(found[:limit], name_cursor(found[limit - 1].name) if len(found) > limit else None)

    async def backlog(self, updates: int, size: int, limit: int) -> Sequence[DocumentRecord]:
        """``DocumentStore.compactable``."""
        found: list[DocumentRecord] = []
        after = 0
        least = backlog_class(updates, size)
        while len(found) < limit:
            wanted = limit - len(found)
            bounds = updates, size, after, wanted
            rows = (
                await run(self._connection, self._queries.backlog, least, *bounds)
                if least
                else await run(self._connection, self._queries.any_backlog, *bounds)
            )
            found += (document.entry.record() for document in self._sound(rows))
            if len(rows) < wanted:
                break
            after = rows[-1][0]
        return found

    def _sound(self, rows: Sequence[Row]) -> Iterator[Filed]:
        for row in rows:
            try:
                yield filed(row, self._codec)
            except Serialization as error:
                self._damage.note(RecordKind.DOCUMENT, row[1], error)

    # --- content --------------------------------------------------------------------------------------

    async def load(self, name: bytes) -> StoredDocument | None:
        """``DocumentStore.load``; everything has to be seen at one moment."""
        found = await self.find(name)
        if found is None:
            return None
        entry, upto = found.entry, found.entry.upto
        snapshot = authorship = None
        if found.content is not None:
            snapshot = await self._content(found, found.content, entry.snapshot_bytes)
            authorship = await self._content(found, found.content, entry.authorship_bytes or 0, Part.AUTHORSHIP)
        log = await self.log(found, upto, entry.sequence)
        if snapshot is None and log.lost and log.lost == entry.sequence:
            raise Serialization("updates of a document cannot be read")
        return StoredDocument(
            record=entry.record(),
            snapshot=snapshot,
            upto=upto,
            authorship=authorship,
            updates=log.updates,
            lost=log.lost,
        )

    async def _content(self, found: Filed, content: int, size: int, part: Part = Part.CONTENT) -> bytes:
        """The content of a snapshot."""
        return await self._pieces(found.id, content, part, size=size, upto=found.entry.upto)

    async def _pieces(self, document: int, content: int, part: Part, *, size: int, upto: int) -> bytes:
        rows = await run(self._connection, self._queries.pieces, document, content, part.value)
        whole = b"".join(
            self._codec.decode(RecordKind.CONTENT, PIECE_ID.pack(document, content, part, number), upto, record)
            for number, record in rows
        )
        if len(whole) != size:
            raise Serialization("a content of a document is not whole")
        return whole

    async def tail(self, name: bytes | None, lineage: str, after: int, limit: int) -> DocumentTail:
        """``DocumentStore.updates``; document and log have to be seen at one moment."""
        found = checked(None if name is None else await self.find(name), lineage)
        head = found.entry.sequence
        if after < found.entry.upto:
            return DocumentTail(head, None)
        if after >= head:
            return DocumentTail(head, [])
        end = await self._end(found.id, after, limit)
        log = await self.log(found, after, min(end, head))
        return DocumentTail(head, log.updates[:limit])

    async def _end(self, document: int, after: int, limit: int) -> int:
        """The number of the last update that is to be read at a time."""
        most = min(limit, TAIL_ROWS)
        rows = await run(self._connection, self._queries.sizes, document, after, most)
        total = 0
        end = EVERYTHING if len(rows) < most else rows[-1][0]
        for place, (last, count, size) in enumerate(rows):
            total += size
            if total >= TAIL_BYTES or last - after >= limit:
                return last if place == 0 or total < 2 * TAIL_BYTES else last - count
        return end

    async def log(self, found: Filed, after: int, upto: int) -> Log:
        """
        The updates behind number ``after`` up to ``upto``.

        Each that cannot be read has an update that changes nothing in its place, so that all others keep their
        numbers.
        """
        log = Log(found, after, self._damage)
        if after >= upto:
            return log
        rows = await run(self._connection, self._queries.updates, found.id, after, upto)
        for (last, count), parts in groupby(rows, itemgetter(0, 1)):
            stored = b"".join(record for _, _, record in parts)
            record = lambda last=last, stored=stored: self._codec.decode(  # noqa: E731
                RecordKind.UPDATES, ROW_ID.pack(found.id, last), 0, stored
            )
            log.take(last, count, record)
        log.end(upto)
        return log

    # --- versions -------------------------------------------------------------------------------------

    async def versions(self, name: bytes, before: int, limit: int) -> VersionPage:
        """``DocumentStore.versions``; those that are damaged are left out."""
        document = await self.find(name)
        if document is None:
            return VersionPage([])
        found: list[DocumentVersion] = []
        while len(found) <= limit:
            wanted = limit + 1 - len(found)
            rows = await run(self._connection, self._queries.versions, document.id, before, wanted)
            for row in rows:
                try:
                    found.append(self.opened_version(document.id, row))
                except Serialization as error:
                    self._damage.note(RecordKind.VERSION, f"{document.entry.name}, {row[0]}", error)
            if len(rows) < wanted:
                break
            before = rows[-1][0]
        more = len(found) > limit
        del found[limit:]
        return VersionPage(found, version_cursor(found[-1].number) if more else None)

    async def version(self, name: bytes, number: int) -> tuple[DocumentVersion, bytes] | None:
        """``DocumentStore.version``; both have to be seen at one moment."""
        document = await self.find(name)
        rows = [] if document is None else await run(self._connection, self._queries.version, document.id, [number])
        if not rows or document is None:
            return None
        version = self.opened_version(document.id, rows[0])
        content = rows[0][1]
        return version, await self._pieces(document.id, content, Part.CONTENT, size=version.size, upto=0)

    def opened_version(self, document: int, row: Row) -> DocumentVersion:
        """
        What the record of a version says.

        Raises:
            Serialization: If it is damaged.
        """
        number, content, stored = row
        record = self._codec.decode(RecordKind.VERSION, ROW_ID.pack(document, number), 0, stored)
        version = decode_version(record[8:])
        if version.number != number or record[:8] != content.to_bytes(8, "big"):
            raise Serialization("a version record is at a wrong place")
        return version
