"""
Where documents stand in Redis: their keys, and what lies there.

By its name a document belongs to one of ``PARTITIONS``, and everything of a partition has one hash tag, hence one slot:
its documents, their logs and contents, and what finds them. So every write is one script, is done whole or not at all,
and nothing ever has to be put right between slots. What looks at all documents asks all partitions in one pipeline.

| key behind the tag | type | what it has |
|---|---|---|
| ``doc:`` name | hash | ``record``, ``state``; ``forgotten``: the answer of the last call that dropped versions |
| ``log:`` name | stream | the rows: what was appended together, under the number of its first update |
| ``versions:`` name | stream | the records of versions under their numbers, with the ids of their contents |
| ``content:`` id | hash | the pieces of a snapshot and its authorship, or of a version; never changes |
| ``names`` | sorted set | the names |
| ``graves`` | hash | what was deleted: by ``grave_digest``, the id of the call that did, and the name |
| ``updates``, ``bytes`` | sorted sets | the names of documents with a log, by its length |
| ``changes`` | number | how often something was written |
| ``aside`` | hash | rows that cannot be read, by where they lay |

A content is stored before something leads to it, piece by piece, and goes by itself if that does not come to pass.
"""

from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from zlib import crc32

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from roomkey.backends.document_keys import grave_digest
from roomkey.backends.document_records import Count, DocumentEntry, decode_document
from roomkey.errors import Serialization
from roomkey.ports import RecordCodec, RecordKind

PARTITIONS: Final = 64
"""Small enough that a list asks all of them at once, large enough that a cluster of some ten masters is even."""

MAX_VERSION: Final = 2**32 - 1

NOTHING_SINCE: Final = datetime.min.replace(tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)

_CHECKSUM: Final = 8
"""Digits, as in ``parts/document.lua``."""


class Partition:
    """The keys of a partition."""

    __slots__ = ("aside", "changes", "contents", "graves", "log_bytes", "log_updates", "names", "tag")

    def __init__(self, prefix: bytes, number: int) -> None:
        self.tag = b"{%s:d%02x}:" % (prefix, number)
        self.names = self.tag + b"names"
        self.log_updates = self.tag + b"updates"
        self.log_bytes = self.tag + b"bytes"
        self.changes = self.tag + b"changes"
        self.graves = self.tag + b"graves"
        self.aside = self.tag + b"aside"
        self.contents = self.tag + b"content:"


class Place:
    """The keys of the document of a name."""

    __slots__ = ("document", "log", "name", "partition", "versions")

    def __init__(self, partition: Partition, name: bytes) -> None:
        tag = partition.tag
        self.partition = partition
        self.name = name
        self.document = tag + b"doc:" + name
        self.log = tag + b"log:" + name
        self.versions = tag + b"versions:" + name

    def content(self, id: bytes) -> bytes:
        """The key of the content with this id."""
        return self.partition.contents + id


class Layout:
    """The keys of all partitions behind a prefix."""

    def __init__(self, prefix: bytes) -> None:
        self.partitions: Final = tuple(Partition(prefix, number) for number in range(PARTITIONS))

    def place(self, name: bytes) -> Place:
        """Where the document of this name lies, if there is one."""
        return Place(self.partitions[crc32(name) % PARTITIONS], name)


class State(Struct, frozen=True, array_like=True, gc=False):
    """
    What scripts change of a document; ``parts/document.lua`` has the same.

    ``bytes`` are those of all updates that there ever were, ``merged_bytes`` of those in the snapshot. ``content`` is
    the id of the content that has it, or empty.
    """

    lineage: str
    sequence: Count
    upto: Count
    updated_at: str
    bytes: Count
    merged_bytes: Count
    content: str
    snapshot_bytes: Count
    authorship_bytes: int
    last_version: Count
    fence: Count


class Filed(NamedTuple):
    """
    A document as it lies in Redis.

    With the id of its lineage, that of the content that has its snapshot, and the ``state`` that was stored.
    """

    id: bytes
    entry: DocumentEntry
    content: bytes
    state: bytes


_decode_state = msgspec.msgpack.Decoder(State).decode


def filed(name: bytes, record: bytes, state: bytes, codec: RecordCodec) -> Filed:
    """
    The document of this name, by its ``record`` and ``state``.

    Raises:
        Serialization: If it is damaged.
    """
    packed = state[_CHECKSUM:]  # the script has compared it
    entry = decode_document(codec.decode(RecordKind.DOCUMENT, name, 0, record))
    try:
        now = _decode_state(packed)
        current = replace(
            entry,
            sequence=now.sequence,
            updated_at=NOTHING_SINCE + int(now.updated_at) * MICROSECOND,
            log_updates=now.sequence - now.upto,
            log_bytes=now.bytes - now.merged_bytes,
            snapshot_bytes=now.snapshot_bytes,
            authorship_bytes=None if now.authorship_bytes < 0 else now.authorship_bytes,
            last_version=now.last_version,
            fence=now.fence,
        )
    except (msgspec.MsgspecError, ValueError, OverflowError):
        raise damaged() from None
    if (entry.name.encode(), entry.lineage) != (name, now.lineage):
        raise Serialization("a document record is at a wrong place")
    return Filed(lineage_id(name, entry.lineage), current, now.content.encode(), state)


def damaged() -> Serialization:
    """The error for a document that is not as it was written."""
    return Serialization("a document record cannot be read")


def lineage_id(name: bytes, lineage: str) -> bytes:
    """What is a document's alone, and never again another one's: it binds records to it."""
    return grave_digest(name, lineage)[:16]


def moment(at: datetime) -> bytes:
    """A time as scripts compare it: text of one length."""
    return b"%018d" % ((at - NOTHING_SINCE) // MICROSECOND)


def text(value: str) -> bytes:
    """What may be no text at all, such as a lineage that somebody asks for, as bytes."""
    return value.encode("utf-8", "surrogatepass")


class Row(Struct, frozen=True, gc=False):
    """A row of a log: what was appended together."""

    first: int
    count: int
    id: bytes
    record: bytes
