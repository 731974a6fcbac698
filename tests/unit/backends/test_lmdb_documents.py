"""What is particular to documents in a directory: long names, values in pieces, and what is swept up later."""

# These tests look at what the class keeps to itself.
# pyright: reportPrivateUsage=false

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from roomkey.backends.document_records import NO_CHANGE, DocumentEntry, encode_batch, encode_document
from roomkey.backends.lmdb import FileSystemSessionStorage, FileSystemSettings
from roomkey.backends.lmdb.documents import FileSystemDocumentStore, names
from roomkey.backends.lmdb.documents.commit import DocumentChanges
from roomkey.backends.lmdb.documents.layout import DOCUMENT, PIECE, ROW, DocumentFile, Part, size_class
from roomkey.backends.lmdb.documents.snapshot import Loading
from roomkey.backends.lmdb.file import Table
from roomkey.errors import DocumentNotFound, Serialization, Storage
from roomkey.ports import PLAIN_RECORDS, DocumentTail, Page, StoredDocument
from roomkey.testing.documents.suite import (
    NOON,
    compactable,
    followed,
    found,
    loaded,
    log_of,
    make,
    names_in,
    update,
    updates,
    version,
    was_deleted,
)
from tests.support.document_file import contents_of, document_faults
from tests.support.effort import examples
from tests.support.lmdb_file import holding_the_lock

QUICK = FileSystemSettings(durable=False)

DATA_WITHOUT_LAST = [*(each.data for each in updates(4)), NO_CHANGE, NO_CHANGE]
"""Six updates of which the last two are lost."""


@asynccontextmanager
async def opened(path: Path, settings: FileSystemSettings = QUICK) -> AsyncGenerator[FileSystemDocumentStore]:
    """The store, whose file must be sound afterwards."""
    async with FileSystemDocumentStore(path, settings) as store:
        yield store
    assert document_faults(path) == []


async def answers(store: FileSystemDocumentStore) -> bool:
    try:
        await store.ping()
    except Storage:
        return False
    return True


class TestTheDirectory:
    async def test_sessions_and_documents_do_not_take_one_anothers_files(self, tmp_path: Path) -> None:
        async with FileSystemSessionStorage(tmp_path / "sessions", QUICK):
            pass
        async with opened(tmp_path / "documents"):
            pass

        with pytest.raises(Storage):
            await FileSystemDocumentStore(tmp_path / "sessions", QUICK).__aenter__()
        with pytest.raises(Storage):
            await FileSystemSessionStorage(tmp_path / "documents", QUICK).__aenter__()

    async def test_it_can_be_opened_again(self, tmp_path: Path) -> None:
        store = FileSystemDocumentStore(tmp_path, QUICK)
        async with store:
            await make(store, updates=updates(3))

        async with store:
            assert await log_of(store) == updates(3)

    async def test_nothing_can_be_done_with_a_closed_store(self, tmp_path: Path) -> None:
        store = FileSystemDocumentStore(tmp_path, QUICK)
        async with store:
            await make(store)
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: store.find("notes"),
            lambda: store.load("notes"),
            lambda: store.append("notes", "first", updates(1)),
            lambda: store.list("", Page()),
            lambda: store.compactable(updates=1, size=1, limit=1),
            store.ping,
        ]

        for call in calls:
            with pytest.raises(Storage, match="not open"):
                await call()

    async def test_it_does_not_answer_while_writes_fail_and_does_again_once_they_can_be_made(
        self, tmp_path: Path
    ) -> None:
        async with opened(tmp_path, FileSystemSettings(durable=False, timeout=timedelta(milliseconds=200))) as store:
            await make(store)
            with holding_the_lock(tmp_path):
                with pytest.raises(Storage, match="does not answer"):
                    await store.append("notes", "first", updates(1))
                with pytest.raises(Storage, match="does not answer"):
                    await store.ping()

            async with asyncio.timeout(30):
                while not await answers(store):  # its limit is short, and the disk may be busy with others
                    pass

    async def test_processes_see_what_the_others_wrote_and_follow_the_map_as_it_grows(self, tmp_path: Path) -> None:
        small = FileSystemSettings(map_size=64 * 1024, durable=False)
        async with opened(tmp_path, small) as store:
            await make(store, updates=updates(2))
            await make(store, "gone", updates(2))

            await asyncio.to_thread(elsewhere, tmp_path)

            assert [each.data for each in await log_of(store)] == [update.data for update in updates(2)] + [
                bytes(2**20)
            ]
            assert await was_deleted(store, "gone", "first")
            assert await names_in(store) == ["notes"]
            assert [each.data for each in await followed(store, after=2)] == [bytes(2**20)]
            assert await store.append("notes", "first", updates(1)) == 4


class TestNames:
    @settings(max_examples=examples(100))
    @given(
        st.lists(st.binary(min_size=1, max_size=9).map(lambda name: bytes(b % 3 for b in name)), max_size=40),
        st.lists(st.integers(0, 39), max_size=40),
        st.binary(max_size=9).map(lambda name: bytes(b % 3 for b in name)),
    )
    def test_any_names_are_found_and_walked_in_the_order_of_their_bytes(
        self, entered: list[bytes], left: list[int], start: bytes
    ) -> None:
        with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder, empty(Path(folder)) as changes:
            patch.setattr(names, "CUT", 2)  # up to five parts
            table = changes.tables.names
            model: dict[bytes, bytes] = {}
            for number, name in enumerate(entered):
                if name not in model:
                    model[name] = DOCUMENT.pack(number)
                    names.enter(changes, name, model[name], changes.new_branch)
            for number in left:
                if number < len(entered) and model.pop(entered[number], None):
                    names.leave(changes, entered[number])

            for name in {*entered, start}:
                assert names.find(lambda key: changes.get(table, key), PLAIN_RECORDS, name) == model.get(name)
            for first in (start, b"", *entered[:3]):
                expected = sorted((name, key) for name, key in model.items() if name >= first)
                walk = names.Walk(changes.transaction, table, PLAIN_RECORDS, damaged=unexpected)
                assert list(walk.since(first)) == expected
            if not model:
                assert changes.transaction.stat(table)["entries"] == 0

    async def test_deleting_the_last_long_name_leaves_no_branch(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as store:
            for name in ("x" * 1024, "x" * 1023, "x" * 600):
                await make(store, name)
            for name in ("x" * 1023, "x" * 1024, "x" * 600):
                await store.delete(name, "first", NOON)

        assert contents_of(tmp_path)["names"] == {}


class TestTheBacklog:
    @given(st.integers(0, 2**62), st.integers(0, 2**62))
    def test_a_size_class_never_falls_while_the_size_grows(self, one: int, other: int) -> None:
        smaller, larger = sorted([one, other])

        assert size_class(smaller) <= size_class(larger) < 2**16
        assert (size_class(smaller) == 0) == (smaller == 0)

    def test_a_size_class_changes_seldom(self) -> None:
        assert len({size_class(size) for size in range(100_000)}) < 130

    async def test_a_search_through_many_entries_gives_others_a_turn(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("roomkey.backends.lmdb.documents.snapshot.SCAN_LIMIT", 3)
        async with opened(tmp_path) as store:
            for number in range(20):
                await make(store, f"{number:02}", updates(100 + number))

            assert await compactable(store, 100) == [f"{number:02}" for number in range(1, 20)]

    async def test_the_longest_logs_come_first(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as store:
            for length in (20, 400, 50, 100):
                await make(store, str(length), updates(length))

            records = await store.compactable(updates=10, size=10**9, limit=2)

            assert [record.name for record in records] == ["400", "100"]


class TestLoading:
    async def test_a_long_log_is_loaded_in_slices(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("roomkey.backends.lmdb.documents.snapshot.SLICE_UPDATES", 10)
        async with opened(tmp_path) as store:
            await make(store)
            for start in range(1, 100, 3):
                await store.append("notes", "first", updates(3, start))

            assert await log_of(store) == updates(99)

    async def test_what_is_appended_between_slices_is_loaded_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with opened(tmp_path) as store:
            loading = await self._begun(store, monkeypatch)

            await store.append("notes", "first", updates(5, 31))

            document = self._finished(store, loading)
            assert document is not None
            assert [*document.updates] == updates(35)
            assert document.record == await found(store)

    async def test_a_compaction_between_slices_begins_it_anew(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with opened(tmp_path) as store:
            loading = await self._begun(store, monkeypatch)

            await store.compact("notes", "first", snapshot=b"s", upto=25, authorship=b"a")

            assert self._finished(store, loading) == await loaded(store)

    async def test_another_document_in_its_place_begins_it_anew(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with opened(tmp_path) as store:
            loading = await self._begun(store, monkeypatch)

            await store.delete("notes", "first", NOON)
            await make(store, updates=updates(12, 100), lineage="second")

            assert self._finished(store, loading) == await loaded(store)

    async def test_a_deletion_between_slices_ends_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        async with opened(tmp_path) as store:
            loading = await self._begun(store, monkeypatch)

            await store.delete("notes", "first", NOON)

            assert self._finished(store, loading) is None

    async def _begun(self, store: FileSystemDocumentStore, monkeypatch: pytest.MonkeyPatch) -> Loading:
        """A loading of 30 updates that has come to the tenth."""
        monkeypatch.setattr("roomkey.backends.lmdb.documents.snapshot.SLICE_UPDATES", 10)
        await make(store)
        for start in range(1, 31, 2):
            await store.append("notes", "first", updates(2, start))
        loading = Loading(b"notes")
        with store._snapshot() as snapshot:
            snapshot.load(loading)
        assert len(loading.updates) == 10
        assert not loading.ended
        return loading

    def _finished(self, store: FileSystemDocumentStore, loading: Loading) -> StoredDocument | None:
        while not loading.ended:
            with store._snapshot() as snapshot:
                snapshot.load(loading)
        return loading.document


class TestTails:
    async def test_no_snapshot_is_read_for_one(self, tmp_path: Path) -> None:
        async with FileSystemDocumentStore(tmp_path, QUICK) as store:
            await make(store, updates=updates(5))
            await store.compact("notes", "first", snapshot=b"s", upto=3, authorship=b"a")

            for part in (Part.SNAPSHOT, Part.AUTHORSHIP):
                change(store, "pieces", PIECE.pack(1, part, 0, 0), None)

            assert await store.updates("notes", "first", 4) == DocumentTail(5, updates(1, 5))
            with pytest.raises(Serialization):
                await store.load("notes")

    async def test_one_is_read_in_slices_of_so_many_bytes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("roomkey.backends.lmdb.documents.snapshot.SLICE_BYTES", 1000)
        async with opened(tmp_path) as store:
            large = [update(bytes(600), number) for number in range(5)]
            await make(store)
            for each in large:
                await store.append("notes", "first", [each])

            assert await store.updates("notes", "first", 0) == DocumentTail(5, large[:2])
            assert await followed(store, after=0) == large

    async def test_rows_that_wait_to_be_swept_up_are_out_of_sight(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with opened(tmp_path) as store:
            monkeypatch.setattr(store, "_sweep_soon", lambda: None)
            await make(store, updates=updates(6))
            await store.append("notes", "first", updates(2, 7))

            await store.compact("notes", "first", snapshot=b"s", upto=4, authorship=b"a")

            assert await followed(store, after=4, limit=1) == updates(4, 5)
            assert await store.updates("notes", "first", 3) == DocumentTail(8, None)

    @pytest.mark.parametrize("after", range(5))
    async def test_a_hole_has_something_in_its_place_that_changes_nothing(self, tmp_path: Path, after: int) -> None:
        async with FileSystemDocumentStore(tmp_path, QUICK) as store:
            await make(store, "before", updates(1))
            await make(store)
            for start in (1, 3, 5):
                await store.append("notes", "first", updates(2, start))

            change(store, "updates", ROW.pack(2, 5), None)

            tail = await store.updates("notes", "first", after)
            assert tail.updates is not None
            assert [each.data for each in tail.updates] == DATA_WITHOUT_LAST[after:]

    async def test_rows_of_another_document_are_not_taken_for_missing_ones(self, tmp_path: Path) -> None:
        async with FileSystemDocumentStore(tmp_path, QUICK) as store:
            await make(store, "before", updates(9))
            await make(store, updates=updates(2))

            change(store, "updates", ROW.pack(2, 1), None)

            with pytest.raises(Serialization):
                await store.load("notes")
            for after in (0, 1):
                tail = await store.updates("notes", "first", after)
                assert tail.updates is not None
                assert [each.data for each in tail.updates] == [NO_CHANGE] * (2 - after)


class TestSweeping:
    async def test_a_compacted_log_is_swept_up(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("roomkey.backends.lmdb.documents.commit.SWEEP_ROWS", 7)
        async with opened(tmp_path) as store:
            await make(store)
            for number in range(1, 51):
                await store.append("notes", "first", updates(1, number))

            await store.compact("notes", "first", snapshot=b"s", upto=45, authorship=b"a")
            assert await log_of(store) == updates(5, 46)
            await swept(store)

            assert await log_of(store) == updates(5, 46)
        assert len(contents_of(tmp_path)["updates"]) == 5
        assert contents_of(tmp_path)["orphans"] == {}

    async def test_a_deleted_document_is_swept_up(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("roomkey.backends.lmdb.documents.commit.SWEEP_ROWS", 3)
        async with opened(tmp_path) as store:
            await make(store, "before", updates(2))
            await self._fill(store)
            await make(store, "behind", updates(2))

            await store.delete("notes", "first", NOON)
            await swept(store)

            assert await log_of(store, "before") == updates(2)
            assert await log_of(store, "behind") == updates(2)
        contents = contents_of(tmp_path)
        assert {table: len(rows) for table, rows in contents.items() if rows and table != "meta"} == {
            "names": 2,
            "documents": 2,
            "updates": 2,
            "backlog": 4,
            "graves": 1,
        }

    async def test_what_was_left_when_the_process_ended_is_swept_up_when_it_is_opened(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with opened(tmp_path) as store:
            await self._fill(store)
            await swept(store)
            monkeypatch.setattr(store, "_sweep_soon", lambda: None)
            await store.delete("notes", "first", NOON)
        left = contents_of(tmp_path)

        async with opened(tmp_path) as store:
            await swept(store)

        assert left["pieces"]
        assert left["updates"]
        assert contents_of(tmp_path)["pieces"] == contents_of(tmp_path)["updates"] == {}

    async def _fill(self, store: FileSystemDocumentStore) -> None:
        """A document with a log, a snapshot of pieces and versions."""
        await make(store)
        for number in range(1, 21):
            await store.append("notes", "first", updates(1, number))
        await store.compact("notes", "first", snapshot=bytes(2**20), upto=5, authorship=bytes(2**19))
        for _ in range(5):
            await store.keep_version("notes", "first", version(bytes(2**19)))

    async def test_it_goes_on_while_others_write(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("roomkey.backends.lmdb.documents.commit.SWEEP_ROWS", 1)
        async with opened(tmp_path) as store:
            for number in range(10):
                await make(store, f"{number}", updates(1))
                for turn in range(10):
                    await store.append(f"{number}", "first", updates(1, turn))

            async with asyncio.TaskGroup() as group:
                for number in range(0, 10, 2):
                    group.create_task(store.delete(f"{number}", "first", NOON))
                    group.create_task(store.append(f"{number + 1}", "first", updates(5)))
            await swept(store)

            assert await names_in(store) == ["1", "3", "5", "7", "9"]
            assert (await found(store, "3")).sequence == 16
        assert contents_of(tmp_path)["orphans"] == {}


class TestRoom:
    async def test_content_waits_for_what_is_on_its_way(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("roomkey.backends.lmdb.documents.MAX_IN_FLIGHT_BYTES", 1000)
        most = 0
        async with opened(tmp_path) as store:
            await make(store)

            async def append(number: int) -> None:
                nonlocal most
                await store.append("notes", "first", [update(bytes(600), number)])
                most = max(most, store._in_flight)

            async with asyncio.TaskGroup() as group:
                for number in range(50):
                    group.create_task(append(number))

            assert most <= 1200
            assert store._in_flight == 0
            assert sorted(each.at for each in await log_of(store)) == [update(b"", number).at for number in range(50)]

    async def test_what_is_refused_leaves_its_room_to_others(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("roomkey.backends.lmdb.documents.MAX_IN_FLIGHT_BYTES", 1000)
        async with opened(tmp_path) as store:
            for _ in range(10):
                with pytest.raises(DocumentNotFound):
                    await store.append("nowhere", "first", [update(bytes(2000))])

            await make(store, updates=[update(bytes(2000))])


class TestDamage:
    """What ``corrupt`` of the conformance suite does not reach: content that is missing or is none."""

    @pytest.mark.parametrize("first", [1, 3, 5])
    async def test_a_hole_in_the_log_is_all_that_is_lost(self, tmp_path: Path, first: int) -> None:
        async with FileSystemDocumentStore(tmp_path, QUICK) as store:
            await self._of_three_appends(store)

            change(store, "updates", ROW.pack(1, first), None)

            assert await self._data(store) == self._without(first, first + 1)
            assert (await found(store)).sequence == 6

    async def test_updates_at_a_wrong_place_are_lost(self, tmp_path: Path) -> None:
        async with FileSystemDocumentStore(tmp_path, QUICK, codec=PLAIN_RECORDS) as store:
            await self._of_three_appends(store)

            change(store, "updates", ROW.pack(1, 3), None)
            change(store, "updates", ROW.pack(1, 4), encode_batch(updates(2, 3)))

            assert await self._data(store) == self._without(3, 4)

    async def test_updates_that_are_none_are_lost(self, tmp_path: Path) -> None:
        async with FileSystemDocumentStore(tmp_path, QUICK, codec=PLAIN_RECORDS) as store:
            await self._of_three_appends(store)

            for value in (
                b"",
                b"\x01",
                b"\x01\x92\x90\x90",
                b"\x09" + bytes(20),
                b"\x01\x92\x90\x91\x93\x05\x05\xc4\x00",
            ):
                change(store, "updates", ROW.pack(1, 3), value)
                assert await self._data(store) == self._without(3, 4)

    async def test_a_damaged_row_that_was_compacted_is_kept_aside(self, tmp_path: Path) -> None:
        async with FileSystemDocumentStore(tmp_path, QUICK) as store:
            await self._of_three_appends(store)
            change(store, "updates", ROW.pack(1, 3), b"damaged")

            await store.compact("notes", "first", snapshot=b"s", upto=6, authorship=b"a")
            await swept(store)

        assert contents_of(tmp_path)["updates"] == {}
        (row,) = contents_of(tmp_path)["aside"].values()
        assert b"damaged" in row

    async def test_a_log_of_which_far_too_much_is_missing_is_reported(self, tmp_path: Path) -> None:
        async with FileSystemDocumentStore(tmp_path, QUICK, codec=PLAIN_RECORDS) as store:
            await make(store, updates=updates(2))
            entry = replace(DocumentEntry.new("notes", "first", NOON), sequence=2**40, log_updates=2**40)

            change(store, "documents", DOCUMENT.pack(1), encode_document(entry))

            with pytest.raises(Serialization):
                await store.load("notes")

    @pytest.mark.parametrize("value", [None, b"short"])
    async def test_a_piece_that_is_missing_or_short_is_reported(self, tmp_path: Path, value: bytes | None) -> None:
        async with FileSystemDocumentStore(tmp_path, QUICK) as store:
            await self._of_three_appends(store)
            await store.compact("notes", "first", snapshot=bytes(2**20), upto=4, authorship=bytes(2**20))

            change(store, "pieces", PIECE.pack(1, Part.SNAPSHOT, 0, 1), value)

            with pytest.raises(Serialization):
                await store.load("notes")

    async def test_a_version_whose_content_is_missing_is_reported(self, tmp_path: Path) -> None:
        async with FileSystemDocumentStore(tmp_path, QUICK) as store:
            await make(store)
            await store.keep_version("notes", "first", version(b"content"))

            change(store, "pieces", PIECE.pack(1, Part.VERSION, 1, 0), None)

            with pytest.raises(Serialization):
                await store.version("notes", 1)

    async def test_a_record_that_is_missing_is_reported(self, tmp_path: Path) -> None:
        async with FileSystemDocumentStore(tmp_path, QUICK) as store:
            await make(store)

            change(store, "documents", DOCUMENT.pack(1), None)

            with pytest.raises(Serialization):
                await store.find("notes")
            with pytest.raises(Serialization):
                await store.create("notes", "second", NOON)

    @pytest.mark.parametrize(
        ("field", "number"),
        [
            *((field, -1) for field in ("sequence", "log_updates", "log_bytes", "snapshot_bytes", "last_version")),
            ("sequence", 2**63),
            ("sequence", 7),  # seven updates, but neither a snapshot nor a log
            ("log_updates", 7),
            ("authorship_bytes", 7),
            ("last_version", 2**32),
        ],
    )
    async def test_a_record_of_impossible_numbers_is_reported(self, tmp_path: Path, field: str, number: int) -> None:
        async with FileSystemDocumentStore(tmp_path, QUICK) as store:
            await make(store, updates=updates(2))

            entry = replace(DocumentEntry.new("notes", "first", NOON), **{field: number})
            change(store, "documents", DOCUMENT.pack(1), encode_document(entry))

            with pytest.raises(Serialization):
                await store.find("notes")
            with pytest.raises(Serialization):
                await store.append("notes", "first", updates(1))

    async def test_a_record_of_another_name_is_reported(self, tmp_path: Path) -> None:
        async with FileSystemDocumentStore(tmp_path, QUICK) as store:
            await make(store, "notes")
            await make(store, "other")

            change(store, "names", names.ROOT + b"notes", DOCUMENT.pack(2))

            with pytest.raises(Serialization):
                await store.load("notes")
            with pytest.raises(Serialization):
                await store.append("notes", "first", updates(1))

    async def test_a_compaction_does_not_invent_updates_that_are_missing(self, tmp_path: Path) -> None:
        async with FileSystemDocumentStore(tmp_path, QUICK) as store:
            await self._of_three_appends(store)
            change(store, "updates", ROW.pack(1, 3), None)

            await store.compact("notes", "first", snapshot=b"s", upto=3, authorship=b"a")

            assert await self._data(store) == [NO_CHANGE, b"update 5", b"update 6"]
            assert (await found(store)).log_updates == 3

    async def _data(self, store: FileSystemDocumentStore) -> list[bytes]:
        document = await store.load("notes")
        assert document is not None
        return [each.data for each in document.updates]

    def _without(self, *lost: int) -> list[bytes]:
        return [NO_CHANGE if number in lost else b"update %d" % number for number in range(1, 7)]

    async def _of_three_appends(self, store: FileSystemDocumentStore) -> None:
        """Updates 1 and 2, 3 and 4, 5 and 6."""
        await make(store)
        for start in (1, 3, 5):
            await store.append("notes", "first", updates(2, start))


def change(store: FileSystemDocumentStore, table: str, key: bytes, value: bytes | None) -> None:
    """Replace or remove what lies in the file."""
    file = store._file
    assert file is not None
    where: Table = getattr(file.tables, table)
    with file.environment.begin(write=True) as transaction:
        if value is None:
            assert transaction.delete(key, db=where)
        else:
            transaction.put(key, value, db=where)


def elsewhere(path: Path) -> None:
    """Another process appends a large update to one document and deletes another one."""
    code = """
import asyncio, sys
from roomkey.backends.lmdb.documents import FileSystemDocumentStore
from roomkey.testing.documents.suite import NOON, update

async def main():
    async with FileSystemDocumentStore(sys.argv[1]) as store:
        await store.append("notes", "first", [update(bytes(2**20))])
        await store.delete("gone", "first", NOON)

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", code, path], check=True)


async def swept(store: FileSystemDocumentStore) -> None:
    async with asyncio.timeout(30):
        while store._sweeping:
            await store.ping()
            await asyncio.sleep(0)


def unexpected(key: bytes, error: Serialization) -> None:
    raise AssertionError(key) from error


@contextmanager
def empty(path: Path) -> Generator[DocumentChanges]:
    """Changes that are never committed."""
    file = DocumentFile(path, QUICK, PLAIN_RECORDS)
    transaction = file.environment.begin(write=True)
    try:
        yield DocumentChanges(transaction, file)
    finally:
        transaction.abort()
        file.close()
