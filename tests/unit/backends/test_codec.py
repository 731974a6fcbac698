"""A codec that is given to a store decides what stands in its file, and what comes back out of it."""

# These tests look at what the classes keep to themselves.
# pyright: reportPrivateUsage=false

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from roomkey.backends import open_documents, open_storage
from roomkey.backends.document_records import NO_CHANGE
from roomkey.backends.lmdb import FileSystemSessionStorage, FileSystemSettings
from roomkey.backends.lmdb.documents import FileSystemDocumentStore
from roomkey.backends.lmdb.documents.layout import PIECE, ROW, VERSION, Part
from roomkey.backends.lmdb.file import DATA_FILE, MappedFile
from roomkey.domain.access import Access, Grant
from roomkey.domain.session import Client, Invalidated
from roomkey.errors import Serialization
from roomkey.ports import PLAIN_RECORDS, Author, DocumentUpdate, NewVersion, Page, RecordCodec
from roomkey.testing.documents import suite as documents
from roomkey.testing.documents.suite import make, update, updates, version
from roomkey.testing.storage.suite import NOON, ROOMY, change, issue, store
from tests.support.sealed_records import SealedRecords

QUICK = FileSystemSettings(durable=False)
SEALED = SealedRecords()

SESSION_MARKS = (b"marked device", b"marked value", b"marked/grant", b"marked cause")
DOCUMENT_MARKS = (
    b"marked update",
    b"marked author",
    b"marked snapshot",
    b"marked authorship",
    b"marked label",
    b"marked version",
)
"""What is written in clear by a codec that hides nothing."""


class TestASealedFile:
    async def test_nothing_of_a_session_can_be_read_in_it(self, tmp_path: Path) -> None:
        await self._write_session(tmp_path / "plain", PLAIN_RECORDS)
        secret = await self._write_session(tmp_path / "sealed", SEALED)

        assert [mark for mark in SESSION_MARKS if mark not in content_of(tmp_path / "plain")] == []
        assert [mark for mark in (*SESSION_MARKS, secret) if mark in content_of(tmp_path / "sealed")] == []

    async def _write_session(self, path: Path, codec: RecordCodec) -> bytes:
        """Everything that a session can have, in its record and in its events; returns the hash of its token."""
        new = issue(
            client=Client("192.0.2.1", "agent", "marked device"),
            grants=(Grant("marked/grant", Access.READ),),
            metadata={"key": "marked value"},
        )
        async with FileSystemSessionStorage(path, QUICK, codec=codec) as storage:
            await storage.create([new], ROOMY, NOON)
            await change(storage, new.session, Invalidated, NOON, reason="marked cause")
        return new.secret.current

    async def test_nothing_of_a_document_but_its_name_can_be_read_in_it(self, tmp_path: Path) -> None:
        await self._write_document(tmp_path / "plain", PLAIN_RECORDS)
        await self._write_document(tmp_path / "sealed", SEALED)

        assert [mark for mark in DOCUMENT_MARKS if mark not in content_of(tmp_path / "plain")] == []
        assert [mark for mark in DOCUMENT_MARKS if mark in content_of(tmp_path / "sealed")] == []

    async def _write_document(self, path: Path, codec: RecordCodec) -> None:
        author = Author("marked author")
        async with FileSystemDocumentStore(path, QUICK, codec=codec) as store:
            await make(store, updates=[update(b"known"), DocumentUpdate(b"marked update", author, NOON)])
            await store.compact("notes", "first", snapshot=b"marked snapshot", upto=1, authorship=b"marked authorship")
            kept = NewVersion(at=NOON, author=author, label="marked label", sequence=1, content=b"marked version")
            await store.keep_version("notes", "first", kept)

    async def test_it_cannot_be_read_with_another_key(self, tmp_path: Path) -> None:
        async with FileSystemSessionStorage(tmp_path, QUICK, codec=SEALED) as storage:
            session = await store(storage)

        for codec in (SealedRecords(b"another"), PLAIN_RECORDS):
            async with FileSystemSessionStorage(tmp_path, QUICK, codec=codec) as storage:
                with pytest.raises(Serialization):
                    await storage.get(session.id)

    async def test_it_is_found_by_its_url(self, tmp_path: Path) -> None:
        async with open_storage(f"lmdb://{tmp_path}", SEALED) as storage:
            session = await store(storage)
        async with open_documents(f"lmdb://{tmp_path}", SEALED) as store_of_documents:
            await make(store_of_documents, updates=updates(2))

        async with FileSystemSessionStorage(tmp_path, QUICK, codec=SEALED) as storage:
            assert await storage.get(session.id) == session
        async with FileSystemDocumentStore(tmp_path / "documents", QUICK, codec=SEALED) as store_of_documents:
            assert await documents.log_of(store_of_documents) == updates(2)


class TestASessionRecordAtAnotherPlace:
    async def test_is_refused_to_readers_and_writers(self, tmp_path: Path) -> None:
        async with FileSystemSessionStorage(tmp_path, QUICK, codec=SEALED) as storage:
            alice, bob = await store(storage, "alice"), await store(storage, "bob")

            move(storage._file, "sessions", alice.id.encode(), bob.id.encode())

            await refused(
                lambda: storage.get(bob.id),
                lambda: storage.get_with_secret(bob.id),
                lambda: change(storage, bob, Invalidated, NOON),
            )
            assert await storage.get_many([alice.id, bob.id]) == [alice, None]

    async def test_is_missing_if_it_is_an_event(self, tmp_path: Path) -> None:
        async with FileSystemSessionStorage(tmp_path, QUICK, codec=SEALED) as storage:
            session = await store(storage)
            await change(storage, session, Invalidated, NOON)
            first, second = keys_of(storage._file, "events")

            move(storage._file, "events", first, second)

            (event,) = await storage.events(int(session.id[:2], 16))
            assert event.sequence == 1
            assert await storage.events(int(session.id[:2], 16), 1) == []

    async def test_is_refused_by_a_codec_that_binds_nothing_too(self, tmp_path: Path) -> None:
        async with FileSystemSessionStorage(tmp_path, QUICK, codec=PLAIN_RECORDS) as storage:
            alice, bob = await store(storage, "alice"), await store(storage, "bob")

            move(storage._file, "sessions", alice.id.encode(), bob.id.encode())

            await refused(
                lambda: storage.get(bob.id),
                lambda: storage.get_with_secret(bob.id),
                lambda: change(storage, bob, Invalidated, NOON),
            )


class TestADocumentRecordAtAnotherPlace:
    async def test_is_refused(self, tmp_path: Path) -> None:
        async with FileSystemDocumentStore(tmp_path, QUICK, codec=SEALED) as store:
            await make(store, "notes")
            await make(store, "other")
            first, second = keys_of(store._file, "documents")

            move(store._file, "documents", first, second)

            await refused(lambda: store.find("other"), lambda: store.append("other", "first", updates(1)))

    async def test_is_lost_if_it_is_an_update(self, tmp_path: Path) -> None:
        async with FileSystemDocumentStore(tmp_path, QUICK, codec=SEALED) as store:
            await make(store)
            for number in (1, 2, 3):
                await store.append("notes", "first", updates(1, number))

            move(store._file, "updates", ROW.pack(1, 1), ROW.pack(1, 2))

            document = await store.load("notes")
            assert document is not None
            assert document.lost == 1
            assert [each.data for each in document.updates] == [b"update 1", NO_CHANGE, b"update 3"]

    async def test_is_missing_if_it_is_a_piece_of_the_authorship(self, tmp_path: Path) -> None:
        async with FileSystemDocumentStore(tmp_path, QUICK, codec=SEALED) as store:
            await make(store, updates=updates(2))
            await store.compact("notes", "first", snapshot=b"content", upto=2, authorship=bytes(2**20))

            move(store._file, "pieces", PIECE.pack(1, Part.AUTHORSHIP, 0, 0), PIECE.pack(1, Part.AUTHORSHIP, 0, 1))

            document = await store.load("notes")
            assert document is not None
            assert (document.snapshot, document.authorship) == (b"content", b"")

    async def test_is_refused_if_it_is_a_piece_of_a_snapshot(self, tmp_path: Path) -> None:
        async with FileSystemDocumentStore(tmp_path, QUICK, codec=SEALED) as store:
            await make(store, updates=updates(2))
            await store.compact("notes", "first", snapshot=bytes(2**20), upto=2, authorship=bytes(2**20))

            move(store._file, "pieces", PIECE.pack(1, Part.SNAPSHOT, 0, 0), PIECE.pack(1, Part.SNAPSHOT, 0, 1))

            await refused(lambda: store.load("notes"))

    async def test_is_refused_if_it_is_of_an_older_snapshot(self, tmp_path: Path) -> None:
        async with FileSystemDocumentStore(tmp_path, QUICK, codec=SEALED) as store:
            await make(store, updates=updates(5))
            await store.compact("notes", "first", snapshot=b"older", upto=2, authorship=b"older")
            older = value_of(store._file, "pieces", PIECE.pack(1, Part.SNAPSHOT, 0, 0))
            await store.compact("notes", "first", snapshot=b"newer", upto=4, authorship=b"newer")

            write(store._file, "pieces", PIECE.pack(1, Part.SNAPSHOT, 0, 0), older)

            await refused(lambda: store.load("notes"))

    async def test_is_refused_if_it_is_a_version_or_the_content_of_one(self, tmp_path: Path) -> None:
        async with FileSystemDocumentStore(tmp_path, QUICK, codec=SEALED) as store:
            await make(store)
            for content in (b"one", b"two", b"six"):
                await store.keep_version("notes", "first", version(content))

            move(store._file, "versions", VERSION.pack(1, 1), VERSION.pack(1, 2))
            move(store._file, "pieces", PIECE.pack(1, Part.VERSION, 1, 0), PIECE.pack(1, Part.VERSION, 3, 0))

            await refused(
                lambda: store.version("notes", 2),
                lambda: store.version("notes", 3),
            )
            assert [each.number for each in (await store.versions("notes", Page())).versions] == [3, 1]


async def refused(*calls: Callable[[], Awaitable[object]]) -> None:
    """Each of the calls says that a record cannot be read."""
    for call in calls:
        with pytest.raises(Serialization):
            await call()


def content_of(path: Path) -> bytes:
    return (path / DATA_FILE).read_bytes()


def keys_of(file: MappedFile[Any] | None, table: str) -> list[bytes]:
    assert file is not None
    with file.environment.begin() as transaction, transaction.cursor(getattr(file.tables, table)) as cursor:
        return list(cursor.iternext(values=False))


def value_of(file: MappedFile[Any] | None, table: str, key: bytes) -> bytes:
    assert file is not None
    with file.environment.begin() as transaction:
        value = transaction.get(key, db=getattr(file.tables, table))
    assert value is not None
    return value


def write(file: MappedFile[Any] | None, table: str, key: bytes, value: bytes) -> None:
    assert file is not None
    with file.environment.begin(write=True) as transaction:
        transaction.put(key, value, db=getattr(file.tables, table))


def move(file: MappedFile[Any] | None, table: str, key: bytes, to: bytes) -> None:
    """Put what lies at one key over what lies at another one."""
    write(file, table, to, value_of(file, table, key))
