"""The reads: what one moment of the file contains, and how to read what takes longer than a moment may last."""

from collections.abc import Iterator, Sequence
from itertools import islice

import structlog

from roomkey.backends.document_keys import name_cursor, version_cursor
from roomkey.backends.document_records import Authors, decode_batch, decode_version
from roomkey.backends.lmdb.documents import names
from roomkey.backends.lmdb.documents.commit import Filed, checked, filed
from roomkey.backends.lmdb.documents.layout import (
    BACKLOG,
    DOCUMENT,
    LAST,
    MAX_CLASS,
    MAX_VERSION,
    PIECE,
    ROW,
    VERSION,
    DocumentTables,
    Measure,
    Part,
    size_class,
)
from roomkey.backends.lmdb.file import ReadTransaction, Table, step_before
from roomkey.errors import Serialization
from roomkey.ports import (
    PLAIN_RECORDS,
    DocumentHead,
    DocumentPage,
    DocumentRecord,
    DocumentTail,
    DocumentUpdate,
    DocumentVersion,
    GraveItem,
    RecordKind,
    StoredDocument,
    VersionPage,
)

SLICE_UPDATES = 4_000
SLICE_BYTES = 4 * 1024 * 1024
"""So much of a log is read between two turns of the event loop: some five milliseconds."""

SCAN_LIMIT = 1_000
"""The same for entries of ``backlog``."""

_log = structlog.get_logger("roomkey.storage")


class Loading:
    """
    The loading of a document, which may take several snapshots, and shows it as it is in the last one.

    That is possible because a log does nothing but grow until the document is compacted or deleted; then the
    loading begins anew. Without a ``document`` at its end, there is none.
    """

    __slots__ = ("_authorship", "_base", "_snapshot", "authors", "document", "ended", "name", "updates")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.ended = False
        self.document: StoredDocument | None = None
        self.updates: list[DocumentUpdate] = []
        self.authors: Authors = {}
        self._base: tuple[int, int] | None = None
        self._snapshot: bytes | None = None
        self._authorship: bytes | None = None

    def is_based_on(self, found: Filed) -> bool:
        """Whether what was read so far belongs to the document as it is now."""
        return self._base == (found.number, found.entry.upto)

    def begin(self, found: Filed, snapshot: bytes | None, authorship: bytes | None) -> None:
        """Start from a snapshot; the log is still to be read."""
        self._base = (found.number, found.entry.upto)
        self._snapshot, self._authorship = snapshot, authorship
        self.updates = []

    def end(self, record: DocumentRecord, upto: int) -> None:
        """Everything is there."""
        self.ended = True
        self.document = StoredDocument(
            record=record,
            snapshot=self._snapshot,
            upto=upto,
            authorship=self._authorship,
            updates=self.updates,
        )


class LongLogSearch:
    """
    A search for documents with long logs, the longest first, which may take several snapshots.

    It ends when ``limit`` are found or everything was seen; until then it goes on with the first of ``ranges``,
    whose ends are not part of it.
    """

    __slots__ = ("_size", "_updates", "ended", "found", "limit", "ranges")

    def __init__(self, *, updates: int, size: int, limit: int) -> None:
        self._updates = updates
        self._size = size
        self.limit = limit
        self.ended = False
        self.found: dict[int, DocumentRecord] = {}
        thresholds = {Measure.UPDATES: updates, Measure.BYTES: size}
        self.ranges = [
            (
                BACKLOG.pack(measure, min(size_class(max(threshold, 0) + 1), MAX_CLASS), 0),
                BACKLOG.pack(measure, MAX_CLASS, 0) + LAST,
            )
            for measure, threshold in thresholds.items()
        ]

    def meet(self, found: Filed) -> None:
        """Take in the document, if its log is long enough; its entry says so only roughly."""
        if found.entry.log_updates > self._updates or found.entry.log_bytes > self._size:
            self.found[found.number] = found.entry.record()


class Snapshot(ReadTransaction[DocumentTables]):
    """One moment of the documents."""

    __slots__ = ()

    # --- one ------------------------------------------------------------------------------------------

    def find(self, name: bytes | None) -> Filed | None:
        """The document of this name."""
        if name is None:
            return None
        get, table = self._get, self._file.tables.names
        key = names.find(lambda key: get(key, None, table), name)
        return None if key is None else self._filed(key, name)

    def head(self, name: bytes | None) -> DocumentHead | None:
        """How far the document of this name has come."""
        found = self.find(name)
        return None if found is None else DocumentHead(found.entry.lineage, found.entry.sequence)

    def _filed(self, key: bytes, name: bytes | None) -> Filed:
        return filed(key, self._record(RecordKind.DOCUMENT, self._file.tables.documents, key), name)

    def _record(self, kind: RecordKind, table: Table, key: bytes) -> bytes | None:
        value = self._get(key, None, table)
        return None if value is None else self._file.codec.decode(kind, key, 0, value)

    def load(self, loading: Loading) -> None:
        """Take the loading a turn further."""
        found = self.find(loading.name)
        if found is None:
            loading.ended = True
            return
        entry = found.entry
        if not loading.is_based_on(found):
            loading.begin(found, *self._base(found))
        more = len(loading.updates) + SLICE_UPDATES
        size = 0
        for updates, bytes_read in self._appended(found, entry.upto + len(loading.updates), loading.authors):
            loading.updates += updates
            size += bytes_read
            if len(loading.updates) >= more or size >= SLICE_BYTES:
                return
        loading.end(entry.record(), entry.upto)

    def tail(self, name: bytes | None, lineage: str, after: int, limit: int) -> DocumentTail:
        """What was appended behind number ``after``."""
        found = checked(self.find(name), lineage)
        entry = found.entry
        if after < entry.upto:
            return DocumentTail(entry.sequence, None)
        tail: list[DocumentUpdate] = []
        size = 0
        for updates, bytes_read in self._appended(found, after, {}):
            tail += updates
            size += bytes_read
            if len(tail) >= limit or size >= SLICE_BYTES:
                break
        return DocumentTail(entry.sequence, tail[:limit])

    def _base(self, found: Filed) -> tuple[bytes | None, bytes | None]:
        number, entry = found
        if entry.authorship_bytes is None:
            return None, None
        return (
            self._content(number, Part.SNAPSHOT, 0, entry.snapshot_bytes, upto=entry.upto),
            self._content(number, Part.AUTHORSHIP, 0, entry.authorship_bytes, upto=entry.upto),
        )

    def _appended(self, found: Filed, after: int, known: Authors) -> Iterator[tuple[list[DocumentUpdate], int]]:
        """
        The updates behind number ``after``, row by row, with the bytes that were read for them.

        Raises:
            Serialization: If they are not all there, when it comes to that.
        """
        number, last = found.number, found.entry.sequence
        if after >= last:
            return
        expected = after + 1
        for first, record in self._rows_from(number, expected):
            updates = decode_batch(record, known)
            if first < expected:
                del updates[: expected - first]  # they were appended together with some that are known
            elif first > expected:
                break
            expected += len(updates)
            yield updates, len(record)
            if not updates or expected > last:
                break
        if expected != last + 1:
            raise Serialization("updates of a document are missing")

    def _rows_from(self, number: int, sequence: int) -> Iterator[tuple[int, bytes]]:
        """The rows of a log from the one on that has to have this update, with the number of the first in each."""
        document, key, codec = DOCUMENT.pack(number), ROW.pack(number, sequence), self._file.codec
        with self._transaction.cursor(self._file.tables.updates) as cursor:
            if cursor.set_key(key) or step_before(cursor, key):
                for row, value in cursor.iternext():
                    if not row.startswith(document):
                        return
                    record = value if codec is PLAIN_RECORDS else codec.decode(RecordKind.UPDATES, row, 0, value)
                    yield ROW.unpack(row)[1], record

    def _content(self, number: int, part: Part, version: int, size: int, *, upto: int = 0) -> bytes:
        common = PIECE.pack(number, part, version, 0)[:-4]
        pieces: list[bytes] = []
        with self._transaction.cursor(self._file.tables.pieces) as cursor:
            if cursor.set_range(common):
                for key, value in cursor.iternext():
                    if not key.startswith(common):
                        break
                    pieces.append(self._file.codec.decode(RecordKind.CONTENT, key, upto, value))
        content = b"".join(pieces)
        if len(content) != size:
            raise Serialization("a part of a document is missing")
        return content

    # --- versions -------------------------------------------------------------------------------------

    def versions(self, name: bytes | None, before: int | None, limit: int) -> VersionPage:
        """A page of versions, those with numbers below ``before``."""
        found = self.find(name)
        if found is None:
            return VersionPage([])
        document = DOCUMENT.pack(found.number)
        end = document + LAST if before is None else VERSION.pack(found.number, min(before, MAX_VERSION))
        versions: list[DocumentVersion] = []
        for key, value in self._back_from(self._file.tables.versions, end):
            if not key.startswith(document):
                break
            if len(versions) == limit:
                return VersionPage(versions, version_cursor(versions[-1].number))
            versions.append(decode_version(self._file.codec.decode(RecordKind.VERSION, key, 0, value)))
        return VersionPage(versions)

    def version(self, name: bytes | None, number: int) -> tuple[DocumentVersion, bytes] | None:
        """A version with its content."""
        found = self.find(name)
        if found is None or not 0 < number <= MAX_VERSION:
            return None
        key = VERSION.pack(found.number, number)
        record = self._record(RecordKind.VERSION, self._file.tables.versions, key)
        if record is None:
            return None
        version = decode_version(record)
        return version, self._content(found.number, Part.VERSION, number, version.size)

    # --- many -----------------------------------------------------------------------------------------

    def list(self, prefix: bytes, after: bytes | None, limit: int) -> DocumentPage:
        """A page of documents whose names begin with ``prefix`` and stand behind ``after``."""
        start = prefix if after is None else max(prefix, after + b"\0")
        records: list[DocumentRecord] = []
        for name, key in names.walk(self._transaction, self._file.tables.names, start):
            if not name.startswith(prefix):
                break
            if len(records) == limit:
                return DocumentPage(records, name_cursor(records[-1].name))
            records.append(self._filed(key, name).entry.record())
        return DocumentPage(records)

    def graves(self, after: bytes) -> Sequence[GraveItem]:
        """Documents that were deleted, those with digests behind ``after``; none at the end."""
        with self._transaction.cursor(self._file.tables.graves) as cursor:
            if not cursor.set_range(after + b"\0"):
                return []
            return [GraveItem(digest, name.decode() or None) for digest, name in islice(cursor, SCAN_LIMIT)]

    def long_logs(self, search: LongLogSearch) -> None:
        """Take the search a turn further."""
        looked_at = 0
        while search.ranges:
            start, end = search.ranges[0]
            for key, _ in self._back_from(self._file.tables.backlog, end):
                if key < start:
                    break
                if looked_at == SCAN_LIMIT:
                    search.ranges[0] = start, key + b"\0"
                    return
                looked_at += 1
                self._consider(search, key)
                if len(search.found) >= search.limit:
                    search.ended = True
                    return
            del search.ranges[0]
        search.ended = True

    def _consider(self, search: LongLogSearch, entry: bytes) -> None:
        document = entry[-DOCUMENT.size :]
        try:
            search.meet(self._filed(document, None))
        except Serialization:
            # One damaged record must not bring a chore to a halt.
            _log.error("storage_record_damaged", document=DOCUMENT.unpack(document)[0])

    def _back_from(self, table: Table, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        with self._transaction.cursor(table) as cursor:
            if step_before(cursor, end):
                yield from cursor.iterprev()
