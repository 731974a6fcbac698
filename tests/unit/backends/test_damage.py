"""Damage is named once, health says how much there is, and files without checksums go on as they were."""

# These tests look at what the classes keep to themselves.
# pyright: reportPrivateUsage=false

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from roomkey.backends.damage import DamageNotes, NewerSchema, shown
from roomkey.backends.document_records import DocumentEntry, decode_document, encode_document
from roomkey.backends.lmdb import FileSystemSessionStorage, FileSystemSettings
from roomkey.backends.lmdb.documents import FileSystemDocumentStore
from roomkey.backends.lmdb.documents.layout import EVERYTHING, NUMBERS_KEY, ROW
from roomkey.backends.lmdb.file import MappedFile
from roomkey.backends.lmdb.layout import COUNTERS_KEY, FORMAT_KEY, LIVE, UserEntry, micros, user_prefix
from roomkey.backends.records import decode_session, encode_session
from roomkey.domain.policy import SessionPolicy
from roomkey.domain.session import Activated, Invalidated, SessionFilter, SessionState
from roomkey.errors import Serialization
from roomkey.ports import CHECKSUMMED_RECORDS, PLAIN_RECORDS, RecordKind
from roomkey.testing.documents.suite import log_of, make, updates
from roomkey.testing.storage.suite import NOON, ROOMY, change, disagreements, everything, issue, store, whole_log

QUICK = FileSystemSettings(durable=False)
ERROR = Serialization("it cannot be read")


class TestNotes:
    def test_a_record_is_named_once(self) -> None:
        notes = DamageNotes("sessions")

        with capture_logs() as logs:
            for _ in range(3):
                notes.note(RecordKind.SESSION, b"one", ERROR)
                notes.note(RecordKind.EVENT, b"one", ERROR)

        assert [(line["event"], line["kind"], line["key"]) for line in logs] == [
            ("storage_record_damaged", "session", "one"),
            ("storage_record_damaged", "event", "one"),
        ]

    def test_health_says_how_many_there_are_until_they_are_forgotten(self) -> None:
        notes = DamageNotes("sessions")
        before = notes.degradations()

        with capture_logs():
            notes.note(RecordKind.SESSION, b"one", ERROR)
            notes.note_torn("notes", 4, 2)

        assert before == {}
        assert notes.degradations() == {"damaged sessions": "2 records cannot be read: `roomkey doctor` names them"}
        notes.forget()
        assert notes.degradations() == {}

    def test_they_are_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("roomkey.backends.damage.MAX_NAMED", 2)
        notes = DamageNotes("sessions")

        with capture_logs() as logs:
            for number in range(5):
                notes.note(RecordKind.SESSION, f"{number}", ERROR)

        assert len(logs) == 2
        assert "2 or more records" in notes.degradations()["damaged sessions"]

    @pytest.mark.parametrize(("key", "text"), [(b"abc", "abc"), (b"a\nb", "610a62"), (b"\xff", "ff")])
    def test_keys_are_shown_as_people_can_read_them(self, key: bytes, text: str) -> None:
        assert shown(key) == text


class TestNewerRecords:
    def test_a_session_of_a_newer_schema_is_refused_readably(self) -> None:
        new = issue()
        record = b"\x09" + encode_session(new.session, new.secret)[1:]

        with pytest.raises(NewerSchema, match=r"schema version 9; this Roomkey knows versions up to 1"):
            decode_session(record)

    def test_so_is_a_document(self) -> None:
        record = encode_document(DocumentEntry.new("notes", "first", NOON))

        with pytest.raises(NewerSchema, match=r"schema version 9; this Roomkey knows versions up to 1"):
            decode_document(b"\x09" + record[1:])
        for damaged in (b"", b"\x00" + record[1:]):
            with pytest.raises(Serialization) as caught:
                decode_document(damaged)
            assert not isinstance(caught.value, NewerSchema)

    async def test_one_is_named_and_stays_where_it_is(self, tmp_path: Path) -> None:
        async with FileSystemSessionStorage(tmp_path, QUICK, codec=PLAIN_RECORDS) as storage:
            session = await store(storage)
            key = session.id.encode()
            value = read(storage._file, "sessions", key)
            write(storage._file, "sessions", key, value[:12] + b"\x09" + value[13:])

            damaged = await storage.damaged()

            assert [each.is_newer for each in damaged if each.kind is RecordKind.SESSION] == [True]
            assert await storage.set_aside([each for each in damaged if each.is_newer]) == 0
            with pytest.raises(NewerSchema):
                await storage.get(session.id)


class TestChecksums:
    def test_a_sum_is_of_what_a_record_is_and_where_it_lies_too(self) -> None:
        stored = CHECKSUMMED_RECORDS.encode(RecordKind.SESSION, b"id", 3, b"record")

        assert CHECKSUMMED_RECORDS.decode(RecordKind.SESSION, b"id", 3, stored) == b"record"
        for kind, id, version in (
            (RecordKind.EVENT, b"id", 3),
            (RecordKind.SESSION, b"di", 3),
            (RecordKind.SESSION, b"id", 4),
            (RecordKind.SESSION, b"id", 0),
        ):
            with pytest.raises(Serialization):
                CHECKSUMMED_RECORDS.decode(kind, id, version, stored)

    def test_every_flipped_bit_and_every_cut_is_found(self) -> None:
        stored = CHECKSUMMED_RECORDS.encode(RecordKind.SESSION, b"id", 0, b"a record of some length")
        flipped = [
            stored[:place] + bytes([stored[place] ^ 1 << bit]) + stored[place + 1 :]
            for place in range(len(stored))
            for bit in range(8)
        ]

        for damaged in (*flipped, *(stored[:length] for length in range(len(stored))), stored + b"\0"):
            with pytest.raises(Serialization):
                CHECKSUMMED_RECORDS.decode(RecordKind.SESSION, b"id", 0, damaged)

    async def test_new_files_have_them_by_default(self, tmp_path: Path) -> None:
        async with FileSystemSessionStorage(tmp_path / "sessions", QUICK) as storage:
            assert await storage.has_checksums()
        async with FileSystemDocumentStore(tmp_path / "documents", QUICK) as documents:
            assert await documents.has_checksums()

    async def test_a_file_from_before_there_were_any_goes_on_without(self, tmp_path: Path) -> None:
        async with FileSystemSessionStorage(tmp_path, QUICK, codec=PLAIN_RECORDS) as storage:
            before = await store(storage)
            assert read(storage._file, "meta", FORMAT_KEY) == b"roomkey 1"

        async with FileSystemSessionStorage(tmp_path, QUICK) as storage:
            after = await change(storage, before, Activated, NOON)
            await store(storage, "bob")

            assert not await storage.has_checksums()
            assert await storage.get(before.id) == after
            assert await disagreements(storage) == []

    async def test_so_does_one_of_documents(self, tmp_path: Path) -> None:
        async with FileSystemDocumentStore(tmp_path, QUICK, codec=PLAIN_RECORDS) as documents:
            await make(documents, updates=updates(2))
            assert read(documents._file, "meta", FORMAT_KEY) == b"roomkey documents 1"

        async with FileSystemDocumentStore(tmp_path, QUICK) as documents:
            await documents.append("notes", "first", updates(1, 3))

            assert not await documents.has_checksums()
            assert await log_of(documents) == updates(3)

    async def test_a_file_that_has_them_is_not_written_without(self, tmp_path: Path) -> None:
        async with FileSystemSessionStorage(tmp_path, QUICK) as storage:
            session = await store(storage)

        async with FileSystemSessionStorage(tmp_path, QUICK, codec=PLAIN_RECORDS) as storage:
            assert await storage.has_checksums()
            assert await storage.get(session.id) == session


class TestCounters:
    @pytest.mark.parametrize("value", [b"", b"short", None])
    async def test_what_can_be_counted_is_counted_anew(self, tmp_path: Path, value: bytes | None) -> None:
        async with FileSystemSessionStorage(tmp_path, QUICK) as storage:
            for number in range(600):  # more than two slots of the log
                await storage.create([issue(f"user {number % 7}")], ROOMY, NOON)
            await storage.purge_events(NOON)
            statistics, heads, log = await storage.statistics(NOON), await storage.heads(), await whole_log(storage)
            write(storage._file, "meta", COUNTERS_KEY, value)

            assert await storage.statistics(NOON) == statistics
            assert await storage.heads() == heads
            assert await whole_log(storage) == log
            await store(storage, "user 1")
            assert await storage.count(SessionFilter()) == 601
            assert await disagreements(storage) == []

    @pytest.mark.parametrize("value", [b"damaged", None])
    async def test_the_log_goes_on_where_it_was_if_everything_was_purged(
        self, tmp_path: Path, value: bytes | None
    ) -> None:
        async with FileSystemSessionStorage(tmp_path, QUICK) as storage:
            session = await store(storage)
            await storage.purge_events(session.expires_at)
            heads = await storage.heads()
            write(storage._file, "meta", COUNTERS_KEY, value)

            assert await storage.heads() == heads
            assert [each.id for each in await everything(storage)] == [session.id]


class TestDamagedEntries:
    async def test_where_an_epoch_is_damaged_nobody_from_before_is_let_in_and_newcomers_are(
        self, tmp_path: Path
    ) -> None:
        async with FileSystemSessionStorage(tmp_path, QUICK) as storage:
            await storage.revoke_user("alice", NOON, actor="x", reason=None, except_session=None)
            before = await store(storage)
            write(storage._file, "epochs", b"alice", b"damaged")

            seen = await storage.get(before.id)
            after = await store(storage)

            assert seen is not None
            assert seen.state is SessionState.INVALIDATED
            assert await storage.get(after.id) == after
            assert (await storage.get(before.id)) == seen
            done = await storage.revoke_user("alice", NOON, actor="x", reason=None, except_session=None)
            assert done.epoch == 3

    async def test_an_entry_that_calls_an_ended_session_live_stops_nobody(self, tmp_path: Path) -> None:
        async with FileSystemSessionStorage(tmp_path, QUICK) as storage:
            session = await change(storage, await store(storage), Invalidated, NOON)
            entry = UserEntry(micros(session.created_at), session.id.encode())
            write(storage._file, "users", entry.key(user_prefix(b"alice"), LIVE), b"")

            created = await store(storage, policy=SessionPolicy(cap=1))
            done = await storage.revoke_user("alice", NOON, actor="x", reason=None, except_session=None)

            assert [event.session for event in done.events[1:]] == [created.id]

    async def test_what_is_somebodys_is_not_swept_up(self, tmp_path: Path) -> None:
        async with FileSystemDocumentStore(tmp_path, QUICK) as documents:
            await make(documents, updates=updates(3))
            for upto in (2, EVERYTHING):
                write(documents._file, "orphans", ROW.pack(1, upto), b"")

        async with FileSystemDocumentStore(tmp_path, QUICK) as documents:
            while documents._sweeping:
                await documents.ping()

            assert await log_of(documents) == updates(3)

    async def test_a_number_is_not_given_twice_where_nobody_knows_which_were_given(self, tmp_path: Path) -> None:
        async with FileSystemDocumentStore(tmp_path, QUICK) as documents:
            await make(documents, "one", updates(3))
            await make(documents, "two", updates(3))
            write(documents._file, "meta", NUMBERS_KEY, None)

            await make(documents, "three", updates(1))

            assert [await log_of(documents, name) for name in ("one", "two")] == [updates(3)] * 2


def read(file: MappedFile[Any] | None, table: str, key: bytes) -> bytes:
    assert file is not None
    with file.environment.begin() as transaction:
        value = transaction.get(key, db=getattr(file.tables, table))
    assert value is not None
    return value


def write(file: MappedFile[Any] | None, table: str, key: bytes, value: bytes | None) -> None:
    assert file is not None
    with file.environment.begin(write=True) as transaction:
        if value is None:
            transaction.delete(key, db=getattr(file.tables, table))
        else:
            transaction.put(key, value, db=getattr(file.tables, table))
