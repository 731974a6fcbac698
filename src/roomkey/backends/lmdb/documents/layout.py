"""
Where documents stand in their file: its tables and their keys.

Keys sort as bytes, so numbers are big-endian. A document has a number, which is never given twice, so that what
one left behind can be swept up later.

| table | key | value |
|---|---|---|
| names | see ``names`` | document |
| documents | document | document record |
| updates | document, number of the first update | batch record: what was appended together |
| pieces | document, ``Part``, version or 0, piece | up to ``PIECE_BYTES`` of a content |
| versions | document, version | version record |
| backlog | ``Measure``, ``size_class``, document | nothing; of documents with a log |
| graves | ``grave_digest`` of name and lineage | name; of documents that were deleted |
| orphans | document, number of an update | nothing; updates up to there, or all of it, are to be swept up |
| meta | ``format``, ``numbers`` | see ``FORMAT`` and ``NUMBERS`` |
| aside | a number | as in the file of sessions |
"""

import struct
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

from roomkey.backends.lmdb.file import FileSystemSettings, Format, MappedFile, Table
from roomkey.ports import RecordCodec

FORMAT: Final = Format(b"roomkey documents 2", "documents", b"roomkey documents 1")
NUMBERS_KEY: Final = b"numbers"

NUMBERS: Final = struct.Struct(">QI")
"""The last numbers that were given to a document and to a branch of ``names``."""

DOCUMENT: Final = struct.Struct(">Q")
ROW: Final = struct.Struct(">QQ")
"""A key in ``updates`` and ``orphans``."""

PIECE: Final = struct.Struct(">QBII")
VERSION: Final = struct.Struct(">QI")
BACKLOG: Final = struct.Struct(">BHQ")

EVERYTHING: Final = 2**64 - 1
"""In ``orphans``: the whole document is gone."""

MAX_LOST: Final = 100_000
"""Number of updates of one document beyond which nobody believes that so many are missing."""

LAST: Final = b"\xff" * 32
"""Behind a key, behind every longer one that begins with it."""

MAX_CLASS: Final = 2**16 - 1
MAX_VERSION: Final = 2**32 - 1

PIECE_BYTES: Final = 64 * 4096 - 16
"""What fits into 64 pages with their header. Runs as short as this are found again among pages that were freed."""


class Part(IntEnum):
    """Which content a piece belongs to."""

    SNAPSHOT = 0
    AUTHORSHIP = 1
    VERSION = 2


class Measure(IntEnum):
    """What the size of a log is measured in."""

    UPDATES = 0
    BYTES = 1


class DocumentTables(NamedTuple):
    """The tables of the file."""

    names: Table
    documents: Table
    updates: Table
    pieces: Table
    versions: Table
    backlog: Table
    graves: Table
    orphans: Table
    meta: Table
    aside: Table


class DocumentFile(MappedFile[DocumentTables]):
    """The file that documents are in."""

    def __init__(self, directory: Path, settings: FileSystemSettings, codec: RecordCodec) -> None:
        names = DocumentTables._fields
        super().__init__(directory, settings, codec, names=names, tables=DocumentTables, format=FORMAT, readahead=True)


def size_class(size: int) -> int:
    """
    A measure of ``size`` that changes seldom while it grows: eight steps for each doubling, in order.

    So the entry of a log is found by its size, but moves only now and then.
    """
    bits = size.bit_length()
    return size if bits <= 4 else (bits - 3) << 3 | (size >> bits - 4) & 7
