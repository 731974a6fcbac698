"""
How documents are written down: msgpack with an explicit schema version, as ``records`` has it.

A record is one byte, the version of its schema, followed by an array whose order is fixed below by hand. What
cannot be read raises ``Serialization``, which never shows what the record contains.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from roomkey.backends.records import newer
from roomkey.domain.session import SessionId
from roomkey.errors import InvalidInput, Serialization
from roomkey.ports import Author, DocumentRecord, DocumentUpdate, DocumentVersion, NewVersion

DOCUMENT_SCHEMA: Final = 1
BATCH_SCHEMA: Final = 1
VERSION_SCHEMA: Final = 1

Count = Annotated[int, Meta(ge=0, le=2**62)]
"""What can stand in a key; a damaged record may have anything."""

AuthorKey = tuple[str, str | None, str | None]
"""An author as it stands in records: actor, session, user."""

Authors = dict[AuthorKey, Author]
"""Authors by what stands in records, so that many updates of one author share it."""


class DocumentEntry(Struct, frozen=True, array_like=True, gc=False):
    """
    A document as it is stored, without its content.

    ``last_version`` is the highest number that a version was given, ``fence`` the highest token that the document was
    written under. ``authorship_bytes`` is ``None`` as long as there is no snapshot.
    """

    # The order is the schema: new fields go to the end with a default, anything else is a new version.
    name: str
    lineage: str
    sequence: Count
    created_at: datetime
    updated_at: datetime
    log_updates: Count
    log_bytes: Count
    snapshot_bytes: Count
    authorship_bytes: Count | None
    last_version: Annotated[int, Meta(ge=0, lt=2**32)]
    fence: Count = 0

    @classmethod
    def new(cls, name: str, lineage: str, now: datetime) -> "DocumentEntry":
        """An empty document."""
        return cls(name, lineage, 0, now, now, 0, 0, 0, None, 0)

    @property
    def upto(self) -> int:
        """The number of the last update that is in the snapshot."""
        return self.sequence - self.log_updates

    def record(self) -> DocumentRecord:
        """What the port shows of it."""
        return DocumentRecord(
            name=self.name,
            lineage=self.lineage,
            sequence=self.sequence,
            created_at=self.created_at,
            updated_at=self.updated_at,
            log_updates=self.log_updates,
            log_bytes=self.log_bytes,
            snapshot_bytes=self.snapshot_bytes,
        )


class _BatchRecord(Struct, frozen=True, array_like=True, gc=False):
    """Updates that were appended together, each with the place of its author; ``own`` by the places of updates."""

    authors: list[AuthorKey]
    updates: list[tuple[int, datetime, bytes]]
    own: dict[int, int] = {}


class _VersionRecord(Struct, frozen=True, array_like=True, gc=False):
    number: int
    at: datetime
    author: AuthorKey
    label: str | None
    sequence: int
    size: int
    restored: int | None = None


NO_CHANGE: Final = b"\0\0"
"""A Yjs update (V1) without structures and deletions: what stands in the place of one that is lost."""

LOST: Final = Author("server")
"""Who such an update is of."""


def lost_updates(count: int, at: datetime) -> list[DocumentUpdate]:
    """What stands in the place of updates that cannot be read, so that all others keep their numbers."""
    return [DocumentUpdate(NO_CHANGE, LOST, at)] * count


_encode = msgspec.msgpack.Encoder().encode
_decode_document = msgspec.msgpack.Decoder(DocumentEntry).decode
_decode_batch = msgspec.msgpack.Decoder(_BatchRecord).decode
_decode_version = msgspec.msgpack.Decoder(_VersionRecord).decode

_DAMAGE: Final = (msgspec.MsgspecError, LookupError, TypeError, ValueError, OverflowError, RecursionError)
"""What decoding raises over a damaged record."""

_UNENCODABLE: Final = (TypeError, ValueError, OverflowError)


def encode_document(entry: DocumentEntry) -> bytes:
    """
    The record of a document.

    Raises:
        InvalidInput: If it contains text that is none.
    """
    return _encoded(DOCUMENT_SCHEMA, entry)


def decode_document(record: bytes) -> DocumentEntry:
    """
    The document of a record.

    Raises:
        Serialization: If it is damaged, or of a schema that this version does not know.
    """
    try:
        entry = _decode_document(_body(record, DOCUMENT_SCHEMA))
    except _DAMAGE:
        # `from None`: the causes quote what they stumbled over.
        raise Serialization("a document record cannot be read") from None
    if entry.upto < 0 or (entry.upto == 0) != (entry.authorship_bytes is None):
        # Without its snapshot a document would look as if it were empty.
        raise Serialization("a document record contradicts itself")
    return entry


def encode_batch(updates: Sequence[DocumentUpdate]) -> bytes:
    """
    The record of updates that are appended together. Each author is written once.

    Raises:
        InvalidInput: As ``encode_document``.
    """
    places: dict[AuthorKey, int] = {}
    entries = [
        (places.setdefault(_author_key(update.author), len(places)), update.at, update.data) for update in updates
    ]
    own = {place: update.own for place, update in enumerate(updates) if update.own is not None}
    return _encoded(BATCH_SCHEMA, _BatchRecord(list(places), entries, own))


def decode_batch(record: bytes, known: Authors) -> list[DocumentUpdate]:
    """
    The updates of a record, in order; at least one. Authors are taken from ``known`` and added to it.

    Raises:
        Serialization: As ``decode_document``.
    """
    try:
        batch = _decode_batch(_body(record, BATCH_SCHEMA))
        authors = [known.get(key) or _author(key, known) for key in batch.authors]
        updates = [
            DocumentUpdate(data, authors[place], at, batch.own.get(number))
            for number, (place, at, data) in enumerate(batch.updates)
        ]
    except _DAMAGE:
        raise Serialization("updates of a document cannot be read") from None
    if not updates:
        raise Serialization("updates of a document cannot be read")
    return updates


def encode_version(version: DocumentVersion) -> bytes:
    """
    The record of a version, without its content.

    Raises:
        InvalidInput: As ``encode_document``.
    """
    record = _VersionRecord(
        version.number,
        version.at,
        _author_key(version.author),
        version.label,
        version.sequence,
        version.size,
        version.restored,
    )
    return _encoded(VERSION_SCHEMA, record)


def decode_version(record: bytes) -> DocumentVersion:
    """
    The version of a record.

    Raises:
        Serialization: As ``decode_document``.
    """
    try:
        found = _decode_version(_body(record, VERSION_SCHEMA))
    except _DAMAGE:
        raise Serialization("a version record cannot be read") from None
    return DocumentVersion(
        number=found.number,
        at=found.at,
        author=_author(found.author, {}),
        label=found.label,
        sequence=found.sequence,
        size=found.size,
        restored=found.restored,
    )


def numbered(version: NewVersion, number: int) -> DocumentVersion:
    """What is known of a version once it has its number."""
    return DocumentVersion(
        number=number,
        at=version.at,
        author=version.author,
        label=version.label,
        sequence=version.sequence,
        size=len(version.content),
        restored=version.restored,
    )


def _author_key(author: Author) -> AuthorKey:
    """An author as it stands in records."""
    return author.actor, author.session, author.user


def _author(key: AuthorKey, known: Authors) -> Author:
    actor, session, user = key
    author = known[key] = Author(actor, None if session is None else SessionId(session), user)
    return author


def _encoded(schema: int, value: Struct) -> bytes:
    try:
        return bytes((schema,)) + _encode(value)
    except _UNENCODABLE:
        raise InvalidInput("the document contains something that cannot be stored") from None


def _body(record: bytes, schema: int) -> memoryview:
    if not record:
        raise Serialization("a record is empty")
    if (version := record[0]) > schema:
        raise newer(version, schema)
    if version < schema:
        raise Serialization(f"a record has schema version {version}, which this Roomkey cannot upgrade")
    return memoryview(record)[1:]
