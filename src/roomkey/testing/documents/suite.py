"""What every part of the suite is made of: the hooks of the backend, updates to store, and whole lists."""
# ruff: noqa: S101  # tests assert

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from roomkey.domain.session import SessionId
from roomkey.errors import Conflict
from roomkey.ports import (
    Author,
    DocumentRecord,
    DocumentStore,
    DocumentUpdate,
    DocumentVersion,
    NewVersion,
    Page,
    StoredDocument,
)
from roomkey.testing.requirements import Selective

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
"""When the tests begin."""

SECOND = timedelta(seconds=1)

ALICE = Author("user:alice", SessionId("0123456789abcdef01234567abcd"), "alice")
KEY = Author("key:backend")

NAMES = (
    "a",
    "a/",
    "a%2F",
    "a/b",
    "a/b/c",
    "a b",
    "a\0",
    "A",
    "ab",
    "b",
    " ",
    "/",
    "\N{LATIN SMALL LETTER E WITH ACUTE}",
    "e\N{COMBINING ACUTE ACCENT}",
    "\N{HEBREW LETTER ALEF}\N{HEBREW LETTER BET}",
    "\N{PILE OF POO}\N{ZERO WIDTH JOINER}\N{GRINNING FACE}",
    "\ufffd",
    "\U0010ffff",
    "x" * 499,
    "x" * 500,
    "x" * 501,
    "x" * 511,
    "x" * 512,
    "x" * 1000,
    "x" * 1001,
    "x" * 1023,
    "x" * 1024,
    "x" * 1023 + "y",
    "x" * 500 + "\0",
    "x" * 500 + "y",
    "x" * 700 + "y" * 324,
    "\N{GRINNING FACE}" * 256,  # 1024 bytes
    "\N{GRINNING FACE}" * 255 + "\N{WINKING FACE}",
)
"""Different documents all of them: names are compared byte by byte."""


class DocumentSuite(Selective):
    """How a backend takes part. See the package for an example."""

    durable: ClassVar[bool] = False
    """Whether another ``open`` within a test finds what was stored before."""

    def open(self) -> DocumentStore:
        """A store that is not entered yet, on the same data each time within one test."""
        raise NotImplementedError

    async def corrupt(self, store: DocumentStore, name: str) -> bool:
        """Damage the record of a document where it lies, not its content; ``False``: cannot."""
        del store, name
        return False

    async def tear(self, store: DocumentStore, name: str) -> bool:
        """Damage the last row of the document's log where it lies: what was appended last; ``False``: cannot."""
        del store, name
        return False


def update(data: bytes, number: int = 0, author: Author = ALICE) -> DocumentUpdate:
    """An update that was made ``number`` seconds after noon. Stores do not look at what is in it."""
    return DocumentUpdate(data, author, NOON + number * SECOND, own=2**53 - number if number % 3 == 1 else None)


def updates(count: int, first: int = 1) -> list[DocumentUpdate]:
    """So many updates, told apart by their data, by two authors."""
    return [update(b"update %d" % number, number, (ALICE, KEY)[number % 2]) for number in range(first, first + count)]


def size_of(updates: Sequence[DocumentUpdate]) -> int:
    """What ``log_bytes`` counts."""
    return sum(len(each.data) for each in updates)


def version(
    content: bytes = b"content",
    number: int = 0,
    label: str | None = None,
    sequence: int = 0,
    *,
    restored: int | None = None,
) -> NewVersion:
    """A state that was kept ``number`` seconds after noon."""
    at = NOON + number * SECOND
    return NewVersion(at=at, author=ALICE, label=label, sequence=sequence, content=content, restored=restored)


async def make(
    store: DocumentStore, name: str = "notes", updates: Sequence[DocumentUpdate] = (), *, lineage: str = "first"
) -> DocumentRecord:
    """Create a document with these updates."""
    await store.create(name, lineage, NOON)
    if updates:
        await store.append(name, lineage, updates)
    return await found(store, name)


async def found(store: DocumentStore, name: str = "notes") -> DocumentRecord:
    """What is known of the document, which must be there."""
    record = await store.find(name)
    assert record is not None
    return record


async def was_deleted(store: DocumentStore, name: str, lineage: str) -> bool:
    """Whether the store refuses to make the document because it was deleted. Otherwise it exists afterwards."""
    known = await store.was_deleted(name, lineage)
    try:
        await store.create(name, lineage, NOON)
    except Conflict:
        assert known
        return True
    assert not known
    return False


async def loaded(store: DocumentStore, name: str = "notes") -> StoredDocument:
    """The whole document, which must be there and agree with its record."""
    document = await store.load(name)
    assert document is not None
    record = document.record
    assert record == await store.find(name)
    assert record.sequence == document.upto + len(document.updates)
    assert record.log_updates == len(document.updates)
    assert record.log_bytes == size_of(document.updates)
    assert record.snapshot_bytes == len(document.snapshot or b"")
    assert (document.snapshot is None) == (document.authorship is None) == (document.upto == 0)
    return document


async def log_of(store: DocumentStore, name: str = "notes") -> list[DocumentUpdate]:
    """The updates behind the snapshot."""
    return [*(await loaded(store, name)).updates]


async def followed(
    store: DocumentStore, name: str = "notes", lineage: str = "first", *, after: int, limit: int = 1000
) -> list[DocumentUpdate]:
    """Everything behind number ``after``, none of which may have been compacted, as whoever asks again gets it."""
    updates: list[DocumentUpdate] = []
    while True:  # each answer has something new, or is the last one
        tail = await store.updates(name, lineage, after + len(updates), limit)
        assert tail.updates is not None
        assert len(tail.updates) <= limit
        updates += tail.updates
        if after + len(updates) == tail.head:
            return updates
        assert tail.updates


async def names_in(store: DocumentStore, prefix: str = "", *, limit: int = 3) -> list[str]:
    """The names of all documents that begin with ``prefix``, page by page."""
    names: list[str] = []
    cursor: str | None = None
    while True:  # each page has something new, or there is no next one
        page = await store.list(prefix, Page(cursor=cursor, limit=limit))
        assert len(page.documents) <= limit
        for record in page.documents:
            assert record == await store.find(record.name)
            assert not names or names[-1].encode() < record.name.encode()
            names.append(record.name)
        cursor = page.next_cursor
        if cursor is None:
            return names


async def versions_of(store: DocumentStore, name: str = "notes", *, limit: int = 3) -> list[DocumentVersion]:
    """All versions of a document, page by page."""
    versions: list[DocumentVersion] = []
    cursor: str | None = None
    while True:
        page = await store.versions(name, Page(cursor=cursor, limit=limit))
        assert len(page.versions) <= limit
        for version in page.versions:
            assert not versions or versions[-1].number > version.number
            versions.append(version)
        cursor = page.next_cursor
        if cursor is None:
            return versions


async def compactable(store: DocumentStore, updates: int = 0, size: int = 10**9, limit: int = 100) -> list[str]:
    """The names of the documents with long logs, sorted."""
    return sorted(record.name for record in await store.compactable(updates=updates, size=size, limit=limit))
