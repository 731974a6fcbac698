"""
The writes: each a function of a commit in the making, and of nothing else.

They run on the writer's thread, many in one transaction. One that raises a ``RoomkeyError`` has written
nothing, or is undone by running the others again without it.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import islice, takewhile
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
    lost_updates,
    numbered,
)
from roomkey.backends.fences import fenced
from roomkey.backends.lmdb.documents import names
from roomkey.backends.lmdb.documents.layout import (
    BACKLOG,
    DOCUMENT,
    EVERYTHING,
    LAST,
    MAX_LOST,
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
from roomkey.ports import AppendOutcome, DocumentRecord, DocumentUpdate, DocumentVersion, NewVersion, RecordKind

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
        try:
            key = names.find(lambda key: get(key, None, table), self.codec, name)
            if key is None:
                return None
            return filed(key, self.record(RecordKind.DOCUMENT, self.tables.documents, key), name)
        except Serialization as error:
            self.damage.note(RecordKind.DOCUMENT, name, error)
            raise

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
        if self.get(self.tables.documents, DOCUMENT.pack(document + 1)) is not None:
            document, branch = self._numbers_in_use()  # they were damaged, which only a checksum shows
        self._put_numbers(document + 1, branch)
        return document + 1

    def new_branch(self) -> bytes:
        """A branch of ``names`` that there was never before."""
        document, branch = self._numbers()
        self._put_numbers(document, branch + 1)
        return (branch + 1).to_bytes(len(names.ROOT), "big")

    def _numbers(self) -> tuple[int, int]:
        value = self.figures(self.tables.meta, NUMBERS_KEY, NUMBERS.size)
        return self._numbers_in_use() if value is None else NUMBERS.unpack(value)

    def _put_numbers(self, document: int, branch: int) -> None:
        self.put_figures(self.tables.meta, NUMBERS_KEY, NUMBERS.pack(document, branch))

    def _numbers_in_use(self) -> tuple[int, int]:
        """The last numbers that anything has, where nobody knows which were given: what is gone needs none."""
        tables = self.tables
        numbered = (tables.documents, tables.updates, tables.pieces, tables.versions, tables.orphans)
        last = [int.from_bytes(self._last_key(table)[: DOCUMENT.size]) for table in numbered]
        return max(last), int.from_bytes(self._last_key(tables.names)[: len(names.ROOT)])

    def _last_key(self, table: Table) -> bytes:
        with self.transaction.cursor(table) as cursor:
            return cursor.key() if cursor.last() else b""

    def updates(self, name: str, key: bytes, value: bytes) -> list[DocumentUpdate] | None:
        """The updates of a row; ``None`` if it cannot be read, which is noted."""
        try:
            return decode_batch(self.codec.decode(RecordKind.UPDATES, key, 0, value), {})
        except Serialization as error:
            self.damage.note(RecordKind.UPDATES, row_name(name, key), error)
            return None

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
    if len(key) != DOCUMENT.size or (name is not None and entry.name.encode() != name):
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
) -> list[AppendOutcome]:
    """``DocumentStore.append_each``. Who there is no document for has written nothing."""
    outcomes: list[AppendOutcome] = []
    for name, lineage, batch in appends:
        try:
            outcomes.append(append(changes, name, lineage, batch))
        except (NotFound, Conflict, Serialization) as error:
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
    left = 0 if upto == entry.sequence else _cut_log(changes, found, upto)
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


def _cut_log(changes: DocumentChanges, found: Filed, upto: int) -> int:
    """Let a row of the log begin behind ``upto``; returns how many bytes of updates lie there."""
    table, start = changes.tables.updates, ROW.pack(found.number, upto + 1)
    if changes.get(table, start) is None:
        # They were appended together with some that go.
        rest = _rest_of_row_before(changes, found, start)
        changes.put_record(RecordKind.UPDATES, table, start, encode_batch(rest))
    left = 0
    with changes.transaction.cursor(table) as cursor:
        cursor.set_range(start)
        for key, value in cursor.iternext():
            if not key.startswith(start[: DOCUMENT.size]):
                break
            left += sum(len(update.data) for update in changes.updates(found.entry.name, key, value) or ())
    return left


def _rest_of_row_before(changes: DocumentChanges, found: Filed, start: bytes) -> list[DocumentUpdate]:
    """The updates from ``start`` to the next row, which lie in the row before, or are lost with it."""
    name, (_, first_left) = found.entry.name, ROW.unpack(start)
    following = found.entry.sequence + 1
    rest: list[DocumentUpdate] = []
    with changes.transaction.cursor(changes.tables.updates) as cursor:
        if cursor.set_range(start) and is_row_of(cursor.key(), found.number):
            following = min(following, ROW.unpack(cursor.key())[1])
        if step_before(cursor, start) and is_row_of(cursor.key(), found.number):
            key, value = cursor.item()
            rest = (changes.updates(name, key, value) or [])[first_left - ROW.unpack(key)[1] :]
    missing = following - first_left - len(rest)
    if missing > MAX_LOST or missing < 0:
        raise Serialization("updates of a document are missing")
    if missing:
        changes.damage.note_torn(name, first_left + len(rest), missing)
    return rest + lost_updates(missing, found.entry.updated_at)


def checked_count(updates: list[DocumentUpdate], most: int) -> list[DocumentUpdate]:
    """
    The updates of a row behind which there is room for so many.

    Raises:
        Serialization: If there are more.
    """
    if len(updates) > most:
        raise Serialization("updates of a document are at a wrong place")
    return updates


def is_row_of(key: bytes, number: int) -> bool:
    """Whether a key of ``updates`` is one, and of this document."""
    return len(key) == ROW.size and key.startswith(DOCUMENT.pack(number))


def row_name(name: str, key: bytes) -> str:
    """A row of a log as operators read it."""
    return f"{name}, from {ROW.unpack(key)[1]} on"


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
    if not _is_orphan(changes, orphan):
        changes.set_aside("orphans", orphan)
        return True
    number, upto = ROW.unpack(orphan)
    document = DOCUMENT.pack(number)
    if upto == EVERYTHING:
        left = SWEEP_ROWS - changes.clear(changes.tables.updates, document, document + LAST, SWEEP_ROWS)
        for table in (changes.tables.versions, changes.tables.pieces):
            left -= changes.clear(table, document, document + LAST, left)
    else:
        left = SWEEP_ROWS - _sweep_log(changes, number, upto)
    if left > 0:
        changes.remove(changes.tables.orphans, orphan)
    return True


def _is_orphan(changes: DocumentChanges, key: bytes) -> bool:
    """Whether what an entry of ``orphans`` names may go. One that is damaged may name what is somebody's."""
    if len(key) != ROW.size:
        return False
    number, upto = ROW.unpack(key)
    try:
        record = changes.record(RecordKind.DOCUMENT, changes.tables.documents, DOCUMENT.pack(number))
        return record is None or upto <= decode_document(record).upto
    except Serialization:
        return False


def _sweep_log(changes: DocumentChanges, number: int, upto: int) -> int:
    """Remove rows that were compacted; returns how many. One that cannot be read is in no snapshot: it goes aside."""
    start, end = DOCUMENT.pack(number), ROW.pack(number, upto)
    with changes.transaction.cursor(changes.tables.updates) as cursor:
        rows = cursor.iternext() if cursor.set_range(start) else ()
        gone = list(islice(takewhile(lambda row: row[0] <= end, rows), SWEEP_ROWS))
    for key, value in gone:
        if is_row_of(key, number) and changes.updates(f"document {number}", key, value) is None:
            changes.set_aside("updates", key)
        else:
            changes.remove(changes.tables.updates, key)
    return len(gone)
