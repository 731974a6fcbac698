"""The reads: what one moment of the file contains, and how to read what takes longer than a moment may last."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

from roomkey.backends.document_keys import grave_digest, name_cursor, version_cursor
from roomkey.backends.document_records import Authors, decode_batch, decode_version, lost_updates
from roomkey.backends.lmdb.documents import names
from roomkey.backends.lmdb.documents.commit import Filed, checked, checked_count, filed, row_name
from roomkey.backends.lmdb.documents.layout import (
    BACKLOG,
    DOCUMENT,
    LAST,
    MAX_CLASS,
    MAX_LOST,
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
from roomkey.backends.lmdb.inspection import Rows
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


class _Row(NamedTuple):
    """A row of a log: the number of its first update, and what lies there."""

    first: int
    key: bytes
    value: bytes


class Loading:
    """
    The loading of a document, which may take several snapshots, and shows it as it is in the last one.

    That is possible because a log does nothing but grow until the document is compacted or deleted; then the
    loading begins anew. Without a ``document`` at its end, there is none.
    """

    __slots__ = ("_authorship", "_base", "_snapshot", "authors", "document", "ended", "lost", "name", "updates")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.ended = False
        self.document: StoredDocument | None = None
        self.updates: list[DocumentUpdate] = []
        self.lost = 0
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
        self.updates, self.lost = [], 0

    def end(self, record: DocumentRecord, upto: int) -> None:
        """
        Everything is there.

        Raises:
            Serialization: If that is nothing, because it would be taken for an empty document.
        """
        if self._snapshot is None and self.updates and self.lost == len(self.updates):
            raise Serialization("nothing of the document can be read")
        self.ended = True
        self.document = StoredDocument(
            record=record,
            snapshot=self._snapshot,
            upto=upto,
            authorship=self._authorship,
            updates=self.updates,
            lost=self.lost,
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
        try:
            key = names.find(lambda key: get(key, None, table), self._file.codec, name)
            return None if key is None else self._filed(key, name)
        except Serialization as error:
            self._file.damage.note(RecordKind.DOCUMENT, name, error)
            raise

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
        for updates, bytes_read, lost in self._appended(found, entry.upto + len(loading.updates), loading.authors):
            loading.updates += updates
            loading.lost += lost
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
        for updates, bytes_read, _ in self._appended(found, after, {}):
            tail += updates
            size += bytes_read
            if len(tail) >= limit or size >= SLICE_BYTES:
                break
        return DocumentTail(entry.sequence, tail[:limit])

    def _base(self, found: Filed) -> tuple[bytes | None, bytes | None]:
        entry = found.entry
        if entry.authorship_bytes is None:
            return None, None
        snapshot = self._content(found, Part.SNAPSHOT, 0, entry.snapshot_bytes, upto=entry.upto)
        try:
            return snapshot, self._content(found, Part.AUTHORSHIP, 0, entry.authorship_bytes, upto=entry.upto)
        except Serialization:
            return snapshot, b""  # who wrote it is not worth losing what was written

    def _appended(self, found: Filed, after: int, known: Authors) -> Iterator[tuple[list[DocumentUpdate], int, int]]:
        """
        The updates behind number ``after``, row by row, with the bytes that were read, and how many of them are lost.

        What is lost has something in its place that changes nothing, because numbers are for ever.
        """
        expected, last = after + 1, found.entry.sequence
        if expected > last:
            return
        rows = self._rows_from(found.number, expected, last)
        row = next(rows, None)
        if row is None or row.first > expected:
            end = last if row is None else row.first - 1
            yield self._lost(found, expected, end)
            expected = end + 1
        while row is not None:
            following = next(rows, None)
            end = last if following is None else following.first - 1
            updates = self._updates(found, row, known, end)[expected - row.first :]
            if updates:
                yield updates, len(row.value), 0
                expected += len(updates)
            if expected <= end:
                yield self._lost(found, expected, end)
                expected = end + 1
            row = following

    def _lost(self, found: Filed, first: int, last: int) -> tuple[list[DocumentUpdate], int, int]:
        lost = last - first + 1
        if lost > MAX_LOST:
            raise Serialization("updates of a document are missing")
        self._file.damage.note_torn(found.entry.name, first, lost)
        return lost_updates(lost, found.entry.updated_at), 0, lost

    def _updates(self, found: Filed, row: "_Row", known: Authors, end: int) -> list[DocumentUpdate]:
        """The updates of a row, which go to ``end`` at most; none if it cannot be read, which is noted."""
        codec = self._file.codec
        try:
            record = row.value if codec is PLAIN_RECORDS else codec.decode(RecordKind.UPDATES, row.key, 0, row.value)
            return checked_count(decode_batch(record, known), end - row.first + 1)
        except Serialization as error:
            self._file.damage.note(RecordKind.UPDATES, row_name(found.entry.name, row.key), error)
            return []

    def _rows_from(self, number: int, sequence: int, last: int) -> Iterator["_Row"]:
        """The rows of a log from the one on that has to have this update, to the one with the ``last``."""
        key = ROW.pack(number, sequence)
        with self._transaction.cursor(self._file.tables.updates) as cursor:
            if cursor.set_key(key) or step_before(cursor, key) or cursor.set_range(key):
                for row, value in cursor.iternext():
                    if row.startswith(key[: DOCUMENT.size]):
                        if len(row) != ROW.size:
                            continue
                        if (first := ROW.unpack(row)[1]) > last:
                            return
                        yield _Row(first, row, value)
                    elif row > key:
                        return

    def _content(self, found: Filed, part: Part, version: int, size: int, *, upto: int = 0) -> bytes:
        try:
            return self._pieces(PIECE.pack(found.number, part, version, 0)[:-4], size, upto)
        except Serialization as error:
            what = f"version {version}" if part is Part.VERSION else part.name.lower()
            self._file.damage.note(RecordKind.CONTENT, f"{found.entry.name}, {what}", error)
            raise

    def _pieces(self, common: bytes, size: int, upto: int) -> bytes:
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
            try:
                versions.append(self._version(found, key, value))
            except Serialization:
                continue
        return VersionPage(versions)

    def version(self, name: bytes | None, number: int) -> tuple[DocumentVersion, bytes] | None:
        """A version with its content."""
        found = self.find(name)
        if found is None or not 0 < number <= MAX_VERSION:
            return None
        key = VERSION.pack(found.number, number)
        value = self._get(key, None, self._file.tables.versions)
        if value is None:
            return None
        version = self._version(found, key, value)
        return version, self._content(found, Part.VERSION, number, version.size)

    def _version(self, found: Filed, key: bytes, value: bytes) -> DocumentVersion:
        try:
            return decode_version(self._file.codec.decode(RecordKind.VERSION, key, 0, value))
        except Serialization as error:
            self._file.damage.note(RecordKind.VERSION, f"{found.entry.name}, version {key[-4:].hex()}", error)
            raise

    # --- many -----------------------------------------------------------------------------------------

    def list(self, prefix: bytes, after: bytes | None, limit: int) -> DocumentPage:
        """A page of documents whose names begin with ``prefix`` and stand behind ``after``."""
        start = prefix if after is None else max(prefix, after + b"\0")
        records: list[DocumentRecord] = []
        for name, key in self._walk().since(start):
            if not name.startswith(prefix):
                break
            if len(records) == limit:
                return DocumentPage(records, name_cursor(records[-1].name))
            try:
                records.append(self._filed(key, name).entry.record())
            except Serialization as error:
                self._file.damage.note(RecordKind.DOCUMENT, name, error)
        return DocumentPage(records)

    def was_deleted(self, name: bytes, lineage: str) -> bool:
        """Whether the document of this name and lineage was deleted."""
        return self._get(grave_digest(name, lineage), None, self._file.tables.graves) is not None

    def graves(self, after: bytes) -> Sequence[GraveItem]:
        """Documents that were deleted, those with digests behind ``after``; none at the end."""
        with self._transaction.cursor(self._file.tables.graves) as cursor:
            if not cursor.set_range(after + b"\0"):
                return []
            return [GraveItem(digest, name.decode() or None) for digest, name in islice(cursor, SCAN_LIMIT)]

    def _walk(self) -> names.Walk:
        note = partial(self._file.damage.note, RecordKind.DOCUMENT)
        return names.Walk(self._transaction, self._file.tables.names, self._file.codec, damaged=note)

    def rows(self) -> Rows[DocumentTables]:
        """Everything, row by row."""
        return Rows(self._transaction, self._file.tables, self._file.codec)

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
        if len(entry) != BACKLOG.size:
            return
        document = entry[-DOCUMENT.size :]
        try:
            search.meet(self._filed(document, None))
        except Serialization as error:
            self._file.damage.note(RecordKind.DOCUMENT, f"document {DOCUMENT.unpack(document)[0]}", error)

    def _back_from(self, table: Table, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        with self._transaction.cursor(table) as cursor:
            if step_before(cursor, end):
                yield from cursor.iterprev()
