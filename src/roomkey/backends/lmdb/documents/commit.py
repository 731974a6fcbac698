"""
The writes: each a function of a commit in the making, and of nothing else.

They run on the writer's thread, many in one transaction. One that raises a ``RoomkeyError`` has written
nothing, or is undone by running the others again without it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from roomkey.backends.document_keys import grave_digest
from roomkey.backends.document_records import (
    DocumentEntry,
    decode_batch,
    decode_document,
    encode_batch,
    encode_document,
    encode_version,
    numbered,
)
from roomkey.backends.fences import fenced
from roomkey.backends.lmdb.documents import names
from roomkey.backends.lmdb.documents.layout import (
    BACKLOG,
    DOCUMENT,
    EVERYTHING,
    LAST,
    MAX_VERSION,
    NUMBERS,
    NUMBERS_KEY,
    PIECE,
    PIECE_BYTES,
    ROW,
    VERSION,
    DocumentTables,
    Measure,
    Part,
    size_class,
)
from roomkey.backends.lmdb.file import Table, step_before
from roomkey.backends.lmdb.write_batch import Changes
from roomkey.errors import Conflict, DocumentNotFound, NotFound, Overtaken, Serialization
from roomkey.ports import DocumentRecord, DocumentUpdate, DocumentVersion, NewVersion, RecordKind

SWEEP_ROWS = 2_000
"""So many rows are swept up in one commit: a few milliseconds."""


class Filed(NamedTuple):
    """A document as it lies in the file."""

    number: int
    entry: DocumentEntry


class Batch(Struct, frozen=True, gc=False):
    """Updates that are to be appended, with everything that can be prepared before their turn comes."""

    record: bytes
    count: int
    size: int
    latest: datetime

    @classmethod
    def of(cls, updates: Sequence[DocumentUpdate]) -> "Batch":
        """Encode ``updates`` on the caller's thread, while the writer's waits for the disk."""
        return cls(
            encode_batch(updates),
            len(updates),
            sum(len(update.data) for update in updates),
            max(update.at for update in updates),
        )


class DocumentChanges(Changes[DocumentTables]):
    """Changes of documents in the making."""

    __slots__ = ()

    def find(self, name: bytes | None) -> Filed | None:
        """
        The document of this name as it stands now, changes of this transaction included.

        Raises:
            Serialization: If its record is damaged or missing.
        """
        if name is None:
            return None
        get, table = self.transaction.get, self.tables.names
        key = names.find(lambda key: get(key, None, table), name)
        return None if key is None else filed(key, self.record(RecordKind.DOCUMENT, self.tables.documents, key), name)

    def of(self, name: bytes | None, lineage: str) -> Filed | None:
        """The document of this name and lineage."""
        found = self.find(name)
        return found if found is not None and found.entry.lineage == lineage else None

    def existing(self, name: bytes | None, lineage: str) -> Filed:
        """The document of this name, which must be ``checked``."""
        return checked(self.find(name), lineage)

    def write(self, found: Filed, entry: DocumentEntry) -> None:
        """Make ``entry`` current in place of ``found``."""
        record = encode_document(entry)
        self.put_record(RecordKind.DOCUMENT, self.tables.documents, DOCUMENT.pack(found.number), record)
        before = found.entry
        self._move(found.number, Measure.UPDATES, before.log_updates, entry.log_updates)
        self._move(found.number, Measure.BYTES, before.log_bytes, entry.log_bytes)

    def forget(self, found: Filed) -> None:
        """Take a document's record out; its content becomes an orphan."""
        self.remove(self.tables.documents, DOCUMENT.pack(found.number))
        self._move(found.number, Measure.UPDATES, found.entry.log_updates, 0)
        self._move(found.number, Measure.BYTES, found.entry.log_bytes, 0)
        self.put(self.tables.orphans, ROW.pack(found.number, EVERYTHING))

    def _move(self, number: int, measure: Measure, before: int, after: int) -> None:
        left, entered = size_class(before), size_class(after)
        if left == entered:
            return
        if left:
            self.remove(self.tables.backlog, BACKLOG.pack(measure, left, number))
        if entered:
            self.put(self.tables.backlog, BACKLOG.pack(measure, entered, number))

    def new_document(self) -> int:
        """A number that no document has had."""
        document, branch = self._numbers()
        self.put(self.tables.meta, NUMBERS_KEY, NUMBERS.pack(document + 1, branch))
        return document + 1

    def new_branch(self) -> bytes:
        """A branch of ``names`` that there was never before."""
        document, branch = self._numbers()
        self.put(self.tables.meta, NUMBERS_KEY, NUMBERS.pack(document, branch + 1))
        return (branch + 1).to_bytes(len(names.ROOT), "big")

    def _numbers(self) -> tuple[int, int]:
        value = self.get(self.tables.meta, NUMBERS_KEY)
        return (0, 0) if value is None else NUMBERS.unpack(value)

    def write_content(self, number: int, part: Part, version: int, content: bytes, *, upto: int = 0) -> None:
        """Store a content in pieces, in place of one that may be there. ``upto`` is how far a snapshot goes."""
        pieces = range(0, len(content), PIECE_BYTES)
        for piece, start in enumerate(pieces):
            key = PIECE.pack(number, part, version, piece)
            record = content[start : start + PIECE_BYTES]
            self.put_record(RecordKind.CONTENT, self.tables.pieces, key, record, version=upto)
        self.clear(self.tables.pieces, *self._pieces(number, part, version, len(pieces)))

    def remove_content(self, number: int, part: Part, version: int) -> None:
        """Drop a content."""
        self.clear(self.tables.pieces, *self._pieces(number, part, version, 0))

    @staticmethod
    def _pieces(number: int, part: Part, version: int, first: int) -> tuple[bytes, bytes]:
        return PIECE.pack(number, part, version, first), PIECE.pack(number, part, version, 2**32 - 1)

    def clear(self, table: Table, start: bytes, end: bytes, limit: int = EVERYTHING) -> int:
        """Remove up to ``limit`` rows from ``start`` to ``end``; returns how many."""
        removed = 0
        with self.transaction.cursor(table) as cursor:
            found = cursor.set_range(start)
            while found and removed < limit and cursor.key() <= end:
                found = cursor.delete() and bool(cursor.key())  # the cursor then stands at the next one
                removed += 1
        self.writes += removed
        return removed


def filed(key: bytes, record: bytes | None, name: bytes | None) -> Filed:
    """
    What a record of ``documents`` says, which is the document of this ``name``, if that is known.

    Raises:
        Serialization: If it is damaged or missing, or another one.
    """
    if record is None:
        raise Serialization("a document record is missing")
    entry = decode_document(record)
    if name is not None and entry.name.encode() != name:
        raise Serialization("a document record is at a wrong place")
    return Filed(DOCUMENT.unpack(key)[0], entry)


def checked(found: Filed | None, lineage: str) -> Filed:
    """
    ``found``, which must be a document of this lineage.

    Raises:
        NotFound: If there is none.
        Conflict: If it is of another lineage.
    """
    if found is None:
        raise DocumentNotFound("there is no such document")
    if found.entry.lineage != lineage:
        raise Conflict("the document is another one")
    return found


def create(changes: DocumentChanges, name: bytes, lineage: str, now: datetime) -> DocumentRecord:
    """``DocumentStore.create``."""
    if changes.get(changes.tables.graves, grave_digest(name, lineage)) is not None:
        raise Conflict("this document was deleted")
    found = changes.find(name)
    if found is not None:
        return found.entry.record()
    return make_document(changes, name, DocumentEntry.new(name.decode(), lineage, now)).entry.record()


def make_document(changes: DocumentChanges, name: bytes, entry: DocumentEntry) -> Filed:
    """Make the document that ``entry`` says, which is empty; there is none of this name."""
    record = encode_document(entry)
    number = changes.new_document()
    key = DOCUMENT.pack(number)
    names.enter(changes, name, key, changes.new_branch)
    changes.put_record(RecordKind.DOCUMENT, changes.tables.documents, key, record)
    return Filed(number, entry)


def append(
    changes: DocumentChanges, name: bytes | None, lineage: str, batch: Batch | None, after: int | None = None
) -> int:
    """``DocumentStore.append``; without a batch there is nothing to append."""
    found = changes.existing(name, lineage)
    entry = found.entry
    if after not in (None, entry.sequence):
        raise Overtaken("the document has changed")
    if batch is None:
        return entry.sequence
    key = ROW.pack(found.number, entry.sequence + 1)
    changes.put_record(RecordKind.UPDATES, changes.tables.updates, key, batch.record)
    sequence = entry.sequence + batch.count
    grown = replace(
        entry,
        sequence=sequence,
        updated_at=max(entry.updated_at, batch.latest),
        log_updates=entry.log_updates + batch.count,
        log_bytes=entry.log_bytes + batch.size,
    )
    changes.write(found, grown)
    return sequence


def append_each(
    changes: DocumentChanges, appends: Sequence[tuple[bytes | None, str, Batch | None]]
) -> list[int | NotFound | Conflict]:
    """``DocumentStore.append_each``. Who there is no document for has written nothing."""
    outcomes: list[int | NotFound | Conflict] = []
    for name, lineage, batch in appends:
        try:
            outcomes.append(append(changes, name, lineage, batch))
        except (NotFound, Conflict) as error:
            outcomes.append(error)
    return outcomes


def compact(
    changes: DocumentChanges,
    name: bytes | None,
    lineage: str,
    *,
    snapshot: bytes,
    upto: int,
    authorship: bytes,
    fence: int | None,
) -> bool:
    """``DocumentStore.compact``. What was in the log is out of sight at once, and swept up later."""
    found = changes.of(name, lineage)
    if found is None:
        return False
    number, entry = found
    highest = fenced(entry.fence, fence)
    if not entry.upto < upto <= entry.sequence:
        return False
    left = 0 if upto == entry.sequence else _cut_log(changes, number, upto)
    changes.write_content(number, Part.SNAPSHOT, 0, snapshot, upto=upto)
    changes.write_content(number, Part.AUTHORSHIP, 0, authorship, upto=upto)
    compacted = replace(
        entry,
        log_updates=entry.sequence - upto,
        log_bytes=left,
        snapshot_bytes=len(snapshot),
        authorship_bytes=len(authorship),
        fence=highest,
    )
    changes.write(found, compacted)
    changes.put(changes.tables.orphans, ROW.pack(number, upto))
    return True


def _cut_log(changes: DocumentChanges, number: int, upto: int) -> int:
    """Let a row of the log begin behind ``upto``; returns how many bytes of updates lie there."""
    table, start = changes.tables.updates, ROW.pack(number, upto + 1)
    if changes.get(table, start) is None:
        # They were appended together with some that go.
        first, record = _row_before(changes, start)
        rest = encode_batch(decode_batch(record, {})[upto + 1 - first :])
        changes.put_record(RecordKind.UPDATES, table, start, rest)
    left = 0
    with changes.transaction.cursor(table) as cursor:
        cursor.set_range(start)
        for key, value in cursor.iternext():
            if not key.startswith(start[: DOCUMENT.size]):
                break
            record = changes.codec.decode(RecordKind.UPDATES, key, 0, value)
            left += sum(len(update.data) for update in decode_batch(record, {}))
    return left


def _row_before(changes: DocumentChanges, key: bytes) -> tuple[int, bytes]:
    with changes.transaction.cursor(changes.tables.updates) as cursor:
        if not step_before(cursor, key) or not cursor.key().startswith(key[: DOCUMENT.size]):
            raise Serialization("updates of a document are missing")
        found, value = cursor.item()
        return ROW.unpack(found)[1], changes.codec.decode(RecordKind.UPDATES, found, 0, value)


def delete(changes: DocumentChanges, name: bytes | None, lineage: str) -> bool:
    """``DocumentStore.delete``. It is out of sight at once, and what belonged to it is swept up later."""
    if name is None or changes.find(name) is None:
        return False
    found = changes.existing(name, lineage)
    names.leave(changes, name)
    changes.forget(found)
    changes.put(changes.tables.graves, grave_digest(name, lineage), name)
    return True


def keep_version(
    changes: DocumentChanges, name: bytes | None, lineage: str, version: NewVersion, fence: int | None
) -> DocumentVersion:
    """``DocumentStore.keep_version``."""
    found = changes.existing(name, lineage)
    highest = fenced(found.entry.fence, fence)
    kept = numbered(version, found.entry.last_version + 1)
    key = VERSION.pack(found.number, kept.number)
    changes.put_record(RecordKind.VERSION, changes.tables.versions, key, encode_version(kept))
    changes.write_content(found.number, Part.VERSION, kept.number, version.content)
    changes.write(found, replace(found.entry, last_version=kept.number, fence=highest))
    return kept


def forget_versions(
    changes: DocumentChanges, name: bytes | None, lineage: str, numbers: Sequence[int], fence: int | None
) -> int:
    """``DocumentStore.forget_versions``."""
    found = changes.of(name, lineage)
    if found is None:
        return 0
    highest = fenced(found.entry.fence, fence)
    if highest != found.entry.fence:
        changes.write(found, replace(found.entry, fence=highest))
    forgotten = 0
    for number in {number for number in numbers if 0 < number <= MAX_VERSION}:
        key = VERSION.pack(found.number, number)
        if changes.get(changes.tables.versions, key) is not None:
            changes.remove(changes.tables.versions, key)
            changes.remove_content(found.number, Part.VERSION, number)
            forgotten += 1
    return forgotten


def sweep(changes: DocumentChanges) -> bool:
    """Remove some of what documents left behind; whether there may be more."""
    with changes.transaction.cursor(changes.tables.orphans) as cursor:
        if not cursor.first():
            return False
        orphan = cursor.key()
    number, upto = ROW.unpack(orphan)
    document = DOCUMENT.pack(number)
    left = SWEEP_ROWS - changes.clear(changes.tables.updates, document, ROW.pack(number, upto), SWEEP_ROWS)
    if upto == EVERYTHING:
        for table in (changes.tables.versions, changes.tables.pieces):
            left -= changes.clear(table, document, document + LAST, left)
    if left > 0:
        changes.remove(changes.tables.orphans, orphan)
    return True
