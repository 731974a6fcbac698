"""Moving house: documents, versions and graves that are taken in as they were elsewhere."""

from collections.abc import Iterator, Sequence
from typing import Final

from msgspec.structs import replace

from roomkey.backends.document_keys import grave_digest, new_name_key
from roomkey.backends.document_records import DocumentEntry, decode_version, encode_batch, encode_version
from roomkey.backends.lmdb.documents.commit import DocumentChanges, make_document
from roomkey.backends.lmdb.documents.layout import DOCUMENT, LAST, ROW, VERSION, Part
from roomkey.backends.taking_in import check_document, check_version
from roomkey.errors import Conflict
from roomkey.ports import DocumentItem, DocumentUpdate, GraveItem, RecordKind, VersionItem

ROW_BYTES: Final = 1024 * 1024
"""How much of a log is put into one row."""


def take_in(changes: DocumentChanges, item: DocumentItem | VersionItem | GraveItem) -> None:
    """``MovableDocuments.take_in``."""
    match item:
        case DocumentItem():
            _take_in_document(changes, item)
        case VersionItem():
            _take_in_version(changes, item)
        case GraveItem(digest, name):
            if changes.get(changes.tables.graves, digest) is None:
                changes.put(changes.tables.graves, digest, b"" if name is None else name.encode())


def _take_in_document(changes: DocumentChanges, item: DocumentItem) -> None:
    stored, record = item.stored, item.stored.record
    name = new_name_key(record.name)
    if changes.get(changes.tables.graves, grave_digest(name, record.lineage)) is not None:
        raise Conflict("this document was deleted")
    found = changes.find(name)
    if found is not None:
        check_document(item, found.entry.lineage, found.entry.sequence, found.entry.last_version)
    else:
        found = make_document(changes, name, DocumentEntry.new(record.name, record.lineage, record.created_at))
    number, document = found.number, DOCUMENT.pack(found.number)
    changes.clear(changes.tables.updates, document, document + LAST)
    first = stored.upto + 1
    for batch in _rows(stored.updates):
        changes.put_record(RecordKind.UPDATES, changes.tables.updates, ROW.pack(number, first), encode_batch(batch))
        first += len(batch)
    changes.write_content(number, Part.SNAPSHOT, 0, stored.snapshot or b"", upto=stored.upto)
    changes.write_content(number, Part.AUTHORSHIP, 0, stored.authorship or b"", upto=stored.upto)
    entry = DocumentEntry(
        name=record.name,
        lineage=record.lineage,
        sequence=record.sequence,
        created_at=record.created_at,
        updated_at=record.updated_at,
        log_updates=record.log_updates,
        log_bytes=record.log_bytes,
        snapshot_bytes=record.snapshot_bytes,
        authorship_bytes=None if stored.authorship is None else len(stored.authorship),
        last_version=item.last_version,
    )
    changes.write(found, entry)


def _rows(updates: Sequence[DocumentUpdate]) -> Iterator[Sequence[DocumentUpdate]]:
    row: list[DocumentUpdate] = []
    size = 0
    for update in updates:
        row.append(update)
        size += len(update.data)
        if size >= ROW_BYTES:
            yield row
            row, size = [], 0
    if row:
        yield row


def _take_in_version(changes: DocumentChanges, item: VersionItem) -> None:
    found = changes.existing(item.name.encode(), item.lineage)
    version = item.version
    key = VERSION.pack(found.number, version.number)
    record = changes.record(RecordKind.VERSION, changes.tables.versions, key)
    if record is not None:
        held = decode_version(record)
        # Its content is as long as its record says, and nobody changes it.
        check_version(version, item.content, (held, item.content))
        return
    changes.put_record(RecordKind.VERSION, changes.tables.versions, key, encode_version(version))
    changes.write_content(found.number, Part.VERSION, version.number, item.content)
    if version.number > found.entry.last_version:
        changes.write(found, replace(found.entry, last_version=version.number))
