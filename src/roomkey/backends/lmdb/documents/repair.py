"""Which rows of the file of documents are damaged, and putting them aside."""

from collections.abc import Sequence
from typing import Final

import structlog

from roomkey.backends.document_records import decode_batch, decode_version, encode_batch, lost_updates
from roomkey.backends.lmdb.documents import names
from roomkey.backends.lmdb.documents.commit import DocumentChanges, Filed, filed, is_row_of
from roomkey.backends.lmdb.documents.layout import (
    BACKLOG,
    DOCUMENT,
    MAX_LOST,
    NUMBERS,
    NUMBERS_KEY,
    PIECE,
    ROW,
    VERSION,
    DocumentTables,
    Part,
)
from roomkey.backends.lmdb.inspection import Check, Checks, Rows, still_damaged
from roomkey.backends.lmdb.layout import FORMAT_KEY
from roomkey.backends.lmdb.resealing import Places, SealedAs
from roomkey.backends.lmdb.write_batch import PROBE_KEY, checked_figures
from roomkey.errors import Serialization
from roomkey.ports import DamagedRecord, RecordKind

_log = structlog.get_logger("roomkey.storage")


def _document(rows: Rows[DocumentTables], key: bytes, value: bytes) -> None:
    if len(key) != DOCUMENT.size:
        raise Serialization("there is no document with such a key")
    found = filed(key, rows.codec.decode(RecordKind.DOCUMENT, key, 0, value), None)
    get, table = rows.transaction.get, rows.tables.names
    if names.find(lambda each: get(each, None, table), rows.codec, found.entry.name.encode()) != key:
        raise Serialization("the document is not found by its name")


def _name(rows: Rows[DocumentTables], key: bytes, value: bytes) -> None:
    rest = key[len(names.ROOT) :]
    if len(rest) > names.CUT:
        names.branch_of(rows.codec, key, value)
        return
    if len(value) != DOCUMENT.size:
        raise Serialization("the name of a document leads nowhere")
    record = rows.get(rows.tables.documents, value)
    if record is None:
        raise Serialization("a document record is missing")
    found = filed(value, rows.codec.decode(RecordKind.DOCUMENT, value, 0, record), None)
    if not found.entry.name.encode().endswith(rest):
        raise Serialization("the name leads to another document")


def _row(rows: Rows[DocumentTables], key: bytes, value: bytes) -> None:
    if len(key) != ROW.size:
        raise Serialization("there are no updates with such a key")
    if rows.get(rows.tables.documents, key[: DOCUMENT.size]) is not None:  # otherwise nobody misses it
        decode_batch(rows.codec.decode(RecordKind.UPDATES, key, 0, value), {})


def _version(rows: Rows[DocumentTables], key: bytes, value: bytes) -> None:
    if len(key) != VERSION.size:
        raise Serialization("there is no version with such a key")
    if rows.get(rows.tables.documents, key[: DOCUMENT.size]) is not None:
        decode_version(rows.codec.decode(RecordKind.VERSION, key, 0, value))


def _piece(rows: Rows[DocumentTables], key: bytes, value: bytes) -> None:
    if len(key) != PIECE.size:
        raise Serialization("there is no content with such a key")
    document = key[: DOCUMENT.size]
    record = rows.get(rows.tables.documents, document)
    if record is None:
        return
    upto = 0
    if PIECE.unpack(key)[1] != Part.VERSION:
        upto = filed(document, rows.codec.decode(RecordKind.DOCUMENT, document, 0, record), None).entry.upto
    rows.codec.decode(RecordKind.CONTENT, key, upto, value)


def _backlog(_rows: Rows[DocumentTables], key: bytes, _value: bytes) -> None:
    _check_size(key, BACKLOG.size)


def _orphan(_rows: Rows[DocumentTables], key: bytes, _value: bytes) -> None:
    _check_size(key, ROW.size)


def _check_size(key: bytes, size: int) -> None:
    if len(key) != size:
        raise Serialization("there is no such entry")


def _meta(rows: Rows[DocumentTables], key: bytes, value: bytes) -> None:
    if key in (FORMAT_KEY, PROBE_KEY):
        return
    if key != NUMBERS_KEY:
        raise Serialization("there is no such thing")
    checked_figures(rows.codec.decode(RecordKind.FIGURES, key, 0, value), NUMBERS.size)


def _named(key: bytes) -> str:
    return key[len(names.ROOT) :].decode(errors="replace")


def _numbered(key: bytes) -> str:
    number = int.from_bytes(key[: DOCUMENT.size])
    return f"document {number}" + (f", {key[DOCUMENT.size :].hex()}" if key[DOCUMENT.size :] else "")


CHECKS: Final[Checks[DocumentTables]] = {
    "names": Check(RecordKind.DOCUMENT, _name, _named),
    "documents": Check(RecordKind.DOCUMENT, _document, _numbered),
    "updates": Check(RecordKind.UPDATES, _row, _numbered),
    "pieces": Check(RecordKind.CONTENT, _piece, _numbered),
    "versions": Check(RecordKind.VERSION, _version, _numbered),
    "backlog": Check(RecordKind.FIGURES, _backlog),
    "orphans": Check(RecordKind.FIGURES, _orphan),
    "meta": Check(RecordKind.FIGURES, _meta),
}
"""What is looked at in each table."""


def _sealed_piece(rows: Rows[DocumentTables], key: bytes) -> SealedAs | None:
    document = key[: DOCUMENT.size]
    record = rows.get(rows.tables.documents, document)
    if record is None or len(key) != PIECE.size:
        return None  # nobody misses it
    if PIECE.unpack(key)[1] == Part.VERSION:
        return SealedAs(RecordKind.CONTENT)
    try:
        found = filed(document, rows.codec.decode(RecordKind.DOCUMENT, document, 0, record), None)
    except Serialization:
        return None  # the document is lost, and was counted
    return SealedAs(RecordKind.CONTENT, found.entry.upto)


def _sealed_name(_rows: Rows[DocumentTables], key: bytes) -> SealedAs | None:
    return SealedAs(RecordKind.FIGURES) if len(key) - len(names.ROOT) > names.CUT else None


SEALED: Final[Places[DocumentTables]] = {
    "documents": lambda _rows, _key: SealedAs(RecordKind.DOCUMENT),
    "updates": lambda _rows, _key: SealedAs(RecordKind.UPDATES),
    "pieces": _sealed_piece,
    "versions": lambda _rows, _key: SealedAs(RecordKind.VERSION),
    "names": _sealed_name,
    "meta": lambda _rows, key: SealedAs(RecordKind.FIGURES) if key == NUMBERS_KEY else None,
}
"""What in each table goes through the codec."""


def set_aside(changes: DocumentChanges, records: Sequence[DamagedRecord]) -> int:
    """
    ``Repairable.set_aside``.

    A piece of a snapshot stays: without it there is no document, and with the others it may still be of use.
    """
    done = 0
    for table, key in still_damaged(changes, CHECKS, records):
        if table == "updates":
            _set_updates_aside(changes, key)
        elif table == "documents":
            _set_document_aside(changes, key)
        elif table != "pieces":
            changes.set_aside(table, key)
        elif PIECE.unpack(key)[1] == Part.VERSION:
            number, _, version, _ = PIECE.unpack(key)
            changes.set_aside(table, key)
            changes.remove(changes.tables.versions, VERSION.pack(number, version))
        else:
            continue
        done += 1
        _log.warning("storage_record_set_aside", table=table, key=CHECKS[table].name(key))
    return done


def _set_updates_aside(changes: DocumentChanges, key: bytes) -> None:
    """Put updates that change nothing in the place of a row, so that the others keep their numbers."""
    found = _filed(changes, key[: DOCUMENT.size]) if len(key) == ROW.size else None
    changes.set_aside("updates", key)
    if found is None:
        return
    number, entry = found
    first = ROW.unpack(key)[1]
    lost = _next_row(changes, key, number, entry.sequence + 1) - first
    if first > entry.upto and 0 < lost <= MAX_LOST:
        record = encode_batch(lost_updates(lost, entry.updated_at))
        changes.put_record(RecordKind.UPDATES, changes.tables.updates, key, record)
        changes.damage.note_torn(entry.name, first, lost)


def _next_row(changes: DocumentChanges, key: bytes, number: int, end: int) -> int:
    with changes.transaction.cursor(changes.tables.updates) as cursor:
        if cursor.set_range(key + b"\0") and is_row_of(cursor.key(), number):
            return min(end, ROW.unpack(cursor.key())[1])
    return end


def _set_document_aside(changes: DocumentChanges, key: bytes) -> None:
    """
    Give back a document that is only not found its name, and take any other out of sight.

    What belonged to it stays where it is: its number is not given again, and nothing sweeps it up.
    """
    found = _filed(changes, key)
    name = None if found is None else found.entry.name.encode()
    if name is not None and changes.find(name) is None:
        names.enter(changes, name, key, changes.new_branch)
        return
    changes.set_aside("documents", key)
    with changes.transaction.cursor(changes.tables.backlog) as cursor:
        entries = [entry for entry in cursor.iternext(keys=True, values=False) if entry.endswith(key)]
    for entry in entries:
        changes.remove(changes.tables.backlog, entry)


def _filed(changes: DocumentChanges, key: bytes) -> Filed | None:
    try:
        return filed(key, changes.record(RecordKind.DOCUMENT, changes.tables.documents, key), None)
    except Serialization:
        return None
