"""How documents lie in tables: what rows say, where records are, and how they are cut."""

import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from hashlib import sha256
from typing import Any, Final, NamedTuple

from roomkey.backends.document_records import DocumentEntry, decode_document, encode_document
from roomkey.backends.sql.statements import Query
from roomkey.errors import Serialization
from roomkey.ports import RecordCodec, RecordKind

PIECE_BYTES: Final = 512 * 1024
"""Maximum size of a record in a row: a packet of MariaDB has room for it, whatever the server was told."""

EVERYTHING: Final = 2**62
"""A number beyond those of all updates."""

MAX_NUMBER: Final = 2**62
"""Beyond what can be asked for: it fits into a ``bigint``."""

BACKLOG_CLASSES: Final = ((64, 32 * 1024), (1024, 512 * 1024))
"""From how many updates, and from how many bytes of them, a log is of class 1 and 2; as in the schema."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)

ROW_ID: Final = struct.Struct(">QQ")
"""Where a record of updates or of a version lies, for the codec: document, and number of the last update or version."""

PIECE_ID: Final = struct.Struct(">QQBI")
"""The same for a piece: document, content, part, piece."""


class Part(IntEnum):
    """Which of the contents under one number a piece belongs to."""

    CONTENT = 0
    AUTHORSHIP = 1


class DocumentQueries(NamedTuple):
    """The statements of ``queries/documents.sql``."""

    find: Query
    find_to_append: Query
    heads: Query
    list: Query
    backlog: Query
    any_backlog: Query
    is_buried: Query
    bury: Query
    name_grave: Query
    create: Query
    delete: Query
    grow: Query
    sequences: Query
    grow_behind: Query
    put_updates: Query
    sizes: Query
    sizes_upto: Query
    updates: Query
    pieces: Query
    put_pieces: Query
    compact: Query
    number_version: Query
    last_version: Query
    put_version: Query
    versions: Query
    version: Query
    raise_bar: Query
    forget_versions: Query
    leave: Query
    leftover: Query
    swept: Query
    far_update: Query
    put_aside: Query
    sweep_updates: Query
    far_piece: Query
    sweep_pieces: Query
    sweep_content: Query
    far_version: Query
    sweep_versions: Query


class DocumentRow(NamedTuple):
    """A row of ``roomkey_documents``. The record never changes; what changes is in the columns."""

    id: int
    name: bytes
    lineage: bytes
    sequence: int
    upto: int
    updated: int
    log_bytes: int
    content: int | None
    snapshot_bytes: int
    authorship_bytes: int
    last_version: int
    fence: int
    record: bytes


class Filed(NamedTuple):
    """A document as it lies in the tables; ``content`` is where its snapshot is."""

    id: int
    content: int | None
    entry: DocumentEntry


def document_id(name: bytes, lineage: bytes) -> bytes:
    """What a document is known by before it has a number, and after it was deleted: ``document_keys.grave_digest``."""
    return sha256(len(name).to_bytes(4, "big") + name + lineage).digest()


def new_record(entry: DocumentEntry, codec: RecordCodec) -> bytes:
    """
    The record of a new document.

    Raises:
        InvalidInput: If it contains text that is none.
    """
    place = document_id(entry.name.encode(), lineage_key(entry.lineage))
    return codec.encode(RecordKind.DOCUMENT, place, 0, encode_document(entry))


def lineage_key(lineage: str) -> bytes:
    """A lineage as bytes; nobody has made one that is no text."""
    return lineage.encode("utf-8", "surrogatepass")


def as_made(name: bytes, lineage: bytes, record: bytes, codec: RecordCodec) -> DocumentEntry:
    """
    The document as it was when it was made, which is what its record says.

    Raises:
        Serialization: If the record is damaged, or another one's.
    """
    made = decode_document(codec.decode(RecordKind.DOCUMENT, document_id(name, lineage), 0, record))
    if made.name.encode() != name or lineage_key(made.lineage) != lineage:
        raise Serialization("a document record is at a wrong place")
    return made


def filed(values: Sequence[Any], codec: RecordCodec) -> Filed:
    """
    The document of a row.

    Raises:
        Serialization: If its record is damaged, or another one's.
    """
    row = DocumentRow(*values)
    made = as_made(row.name, row.lineage, row.record, codec)
    if not 0 <= row.upto <= row.sequence or (row.upto == 0) != (row.content is None):
        # Without its snapshot a document would look as if it were empty.
        raise Serialization("a document record contradicts itself")
    entry = DocumentEntry(
        made.name,
        made.lineage,
        row.sequence,
        made.created_at,
        moment(row.updated),
        row.sequence - row.upto,
        row.log_bytes,
        row.snapshot_bytes,
        None if row.content is None else row.authorship_bytes,
        row.last_version,
        row.fence,
    )
    return Filed(row.id, row.content, entry)


def micros(at: datetime) -> int:
    """A time as columns have it."""
    return (at - EPOCH) // MICROSECOND


def moment(micros: int) -> datetime:
    """
    A time that a column has.

    Raises:
        Serialization: If it is none.
    """
    try:
        return EPOCH + micros * MICROSECOND
    except OverflowError:
        raise Serialization("a document record contradicts itself") from None


def cut(content: bytes) -> Iterable[bytes]:
    """A content in pieces; none if it is empty."""
    return (content[start : start + PIECE_BYTES] for start in range(0, len(content), PIECE_BYTES))


def cut_record(record: bytes) -> Iterable[tuple[int, bytes]]:
    """A record of updates in numbered parts; at least one."""
    return enumerate(cut(record)) if record else ((0, b""),)


def piece_rows(
    document: int, content: int, part: Part, data: bytes, *, codec: RecordCodec, upto: int
) -> list[tuple[int, int, int, int, bytes]]:
    """The rows of a content. ``upto`` is how far a snapshot goes, and 0 for a version."""
    return [
        (
            document,
            content,
            part.value,
            number,
            codec.encode(RecordKind.CONTENT, PIECE_ID.pack(document, content, part, number), upto, piece),
        )
        for number, piece in enumerate(cut(data))
    ]


def backlog_class(updates: int, size: int) -> int:
    """The lowest class of a log with more than ``updates`` updates, or more than ``size`` bytes of them."""
    return sum(updates + 1 >= most and size + 1 >= bytes for most, bytes in BACKLOG_CLASSES)
