"""Databases hand over and take in what memory and LMDB do, and what is damaged in them is named and put aside."""

# The damage is done where nobody else may touch.
# pyright: reportPrivateUsage=false

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from roomkey.backends.document_records import NO_CHANGE
from roomkey.backends.moving import House
from roomkey.backends.sql import DatabaseSessionStorage
from roomkey.backends.sql.database import Database
from roomkey.backends.sql.documents import DatabaseDocumentStore
from roomkey.backends.sql.moving import BATCH
from roomkey.backends.sql.objects import DatabaseObjectStore
from roomkey.backends.sql.statements import Query, run
from roomkey.domain.session import Activated, Invalidated, SessionFilter, partition_of
from roomkey.errors import Serialization
from roomkey.ports import CheckpointItem, DamagedRecord, Page, RecordKind, SessionItem
from roomkey.testing.documents.suite import loaded, make, updates, version
from roomkey.testing.storage.suite import MINUTE, NOON, SECOND, change, disagreements, everything, store
from tests.support.databases import empty_database
from tests.support.histories import furnish
from tests.unit.backends import test_moving as whatever
from tests.unit.backends.test_moving import agree, copied, examined, in_database, in_files, in_memory


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def new(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Makes URLs of empty databases."""

    def make_one() -> str:
        folder = tmp_path / f"database-{len([*tmp_path.iterdir()])}"
        folder.mkdir()
        return empty_database(request.param, folder, request)

    return make_one


@pytest.fixture
def url(new: Callable[[], str]) -> str:
    return new()


# --- moving -------------------------------------------------------------------------------------------


async def test_from_memory_to_a_database_to_another_to_files_nothing_gets_lost(
    new: Callable[[], str], tmp_path: Path
) -> None:
    async with (
        in_memory(tmp_path) as memory,
        in_database(new()) as first,
        in_database(new()) as second,
        in_files(tmp_path / "files") as files,
    ):
        await furnish(memory.sessions, memory.documents)
        await memory.objects.commit("subjects", {"somebody": b"a key"})
        await memory.sessions.take_in_checkpoints([CheckpointItem("audit", 3, 17), CheckpointItem("metrics", 9, 1)])
        hashes: list[dict[str, str]] = []
        for source, target in ((memory, first), (first, second), (second, files)):
            report = await copied(source, target)
            hashes.append({name: section.target.hash for name, section in report.sections.items()})
            again = await copied(source, target)

            assert {name: section.written for name, section in again.sections.items() if section.written} == {}
            assert (await examined(target)).problems == []
            assert await disagreements(target.sessions) == []
            await agree(source.sessions, target.sessions)
        assert hashes[0] == hashes[1] == hashes[2]
        assert all(int(hash, 16) for hash in hashes[0].values())


SCENARIOS: list[Callable[..., Any]] = [
    partial(whatever.test_who_was_revoked_stays_revoked, whatever.in_files),
    partial(whatever.test_a_deleted_document_stays_deleted, whatever.in_files),
    partial(whatever.test_a_fencing_token_stays_where_its_lease_is, whatever.in_files),
    partial(whatever.test_checkpoints_go_along, whatever.in_files),
    partial(whatever.test_a_target_with_sessions_of_its_own_is_refused, whatever.in_files),
    partial(whatever.test_a_document_that_was_edited_in_the_target_is_not_written_over, whatever.in_files),
    whatever.test_items_that_contradict_what_is_there_are_conflicts,
    whatever.test_a_log_whose_beginning_was_forgotten_keeps_its_numbers,
    whatever.test_documents_that_contradict_what_is_there_are_conflicts,
    whatever.test_an_examination_names_what_contradicts,
]


def _name(scenario: Any) -> str:
    return getattr(scenario, "func", scenario).__name__.removeprefix("test_")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=_name)
async def test_as_elsewhere(scenario: Callable[..., Any], url: str, tmp_path: Path) -> None:
    def here(_: Path) -> AbstractAsyncContextManager[House]:
        return in_database(url)

    await scenario(here, tmp_path=tmp_path)


async def test_an_export_has_every_session_once_though_it_is_of_many_batches(url: str) -> None:
    async with in_database(url) as (sessions, *_):
        made = {(await store(sessions, "alice", NOON + number * SECOND)).id for number in range(3)}
        partition = partition_of("alice")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("roomkey.backends.sql.moving.BATCH", 2)
            batches = [batch async for batch in sessions.export_sessions(partition)]

    exported = [item.session.id for batch in batches for item in batch if isinstance(item, SessionItem)]
    assert [len(batch) for batch in batches] == [2, 1]
    assert len(exported) == 3
    assert {*exported} == made
    assert BATCH <= 1000


async def test_what_was_taken_in_before_a_conflict_stays(url: str) -> None:
    async with in_memory(Path()) as (source, *_), in_database(url) as (target, *_):
        partition = partition_of("alice")
        old, fine = await store(source, "alice"), await store(source, "alice")
        older = await _item(source, old.id)
        await change(source, old, Activated, NOON + SECOND)
        await target.take_in(partition, [await _item(source, old.id)])

        with pytest.raises(whatever.Conflict):
            await target.take_in(partition, [await _item(source, fine.id), older])

        assert {each.id for each in await everything(target)} == {old.id, fine.id}
        assert await target.count(SessionFilter()) == 2


async def _item(sessions: Any, id: str) -> SessionItem:
    partition = partition_of("alice")
    items = [item async for batch in sessions.export_sessions(partition) for item in batch]
    return next(item for item in items if isinstance(item, SessionItem) and item.session.id == id)


# --- repair -------------------------------------------------------------------------------------------


async def ask(database: Database, text: str, *parameters: Any) -> list[Any]:
    query = Query(text, database.dialect)
    return await database.write(lambda connection: run(connection, query, *parameters), may_repeat=True)


async def flip(database: Database, table: str, where: str, *place: Any) -> None:
    """Change one bit of a record."""
    ((record,),) = await ask(database, f"SELECT record FROM {table} WHERE {where}", *place)
    broken = record[:-3] + bytes([record[-3] ^ 4]) + record[-2:]
    await ask(database, f"UPDATE {table} SET record = ? WHERE {where}", broken, *place)


async def aside(database: Database) -> list[str]:
    return [row[0] for row in await ask(database, "SELECT origin FROM roomkey_aside ORDER BY number")]


def kinds(damaged: Any) -> list[RecordKind]:
    return [each.kind for each in damaged]


async def test_a_damaged_session_is_named_and_put_aside(url: str) -> None:
    async with in_database(url) as (sessions, *_):
        assert isinstance(sessions, DatabaseSessionStorage)
        database = sessions._database
        lost, other = await store(sessions, "alice", active=True), await store(sessions, "alice")
        await flip(database, "roomkey_sessions", "id = ?", lost.id.encode())

        damaged = await sessions.damaged()
        exported = [item async for batch in sessions.export_sessions(partition_of("alice")) for item in batch]
        done = await sessions.set_aside(damaged)

        assert [(each.kind, each.key) for each in damaged] == [(RecordKind.SESSION, lost.id)]
        assert sorted(type(item).__name__ for item in exported) == ["SessionItem", "Unreadable"]
        assert done == 1
        assert await sessions.damaged() == []
        assert await sessions.set_aside(damaged) == 0
        assert await sessions.get(lost.id) is None
        assert [each.id for each in await everything(sessions)] == [other.id]
        assert await sessions.count(SessionFilter()) == 1
        assert await aside(database) == ["roomkey_sessions"]


@pytest.mark.parametrize("wrong", ["user_id = 'bob'", "state = 3", "created = 5", "deadline = NULL", "ended = 7"])
async def test_a_session_that_is_not_found_by_what_it_says_is_put_right(wrong: str, url: str) -> None:
    async with in_database(url) as (sessions, *_):
        assert isinstance(sessions, DatabaseSessionStorage)
        session = await store(sessions, "alice", active=True)
        if wrong.startswith("user_id"):
            await ask(sessions._database, "UPDATE roomkey_sessions SET user_id = ?", b"bob")
        else:
            await ask(sessions._database, f"UPDATE roomkey_sessions SET {wrong}")

        damaged = await sessions.damaged()
        done = await sessions.set_aside(damaged)

        assert (kinds(damaged), done) == ([RecordKind.SESSION], 1)
        assert await sessions.damaged() == []
        assert [each.id for each in await everything(sessions, SessionFilter(user_id="alice"))] == [session.id]
        assert [each.id for each in await sessions.overdue(session.expires_at, 5)] == [session.id]
        assert await sessions.ended_before(session.expires_at, 5) == []
        assert await aside(sessions._database) == []


async def test_sound_sessions_of_all_kinds_are_left_alone(url: str) -> None:
    async with in_database(url) as house:
        await furnish(house.sessions, house.documents)
        session = await store(house.sessions, "zoe", active=True)
        await house.sessions.touch(session.id, NOON + MINUTE)
        await change(house.sessions, await store(house.sessions, "yan", active=True), Invalidated, NOON)

        for each in house:
            assert isinstance(each, DatabaseSessionStorage | DatabaseDocumentStore | DatabaseObjectStore)
            assert await each.damaged() == []
            assert await each.has_checksums()


async def test_a_damaged_event_is_put_aside_and_the_log_goes_on(url: str) -> None:
    async with in_database(url) as (sessions, *_):
        assert isinstance(sessions, DatabaseSessionStorage)
        for _ in range(3):
            await store(sessions, "alice")
        partition = partition_of("alice")
        await flip(sessions._database, "roomkey_events", "partition_id = ? AND sequence = 1", partition)
        with pytest.raises(Serialization):
            await sessions.events(partition)

        damaged = await sessions.damaged()
        done = await sessions.set_aside(damaged)

        assert (kinds(damaged), done) == ([RecordKind.EVENT], 1)
        assert [each.sequence for each in await sessions.events(partition)] == [2, 3]
        # What is behind it is forgotten in its time all the same.
        assert await sessions.purge_events(NOON + MINUTE) == 2


async def test_a_record_of_a_newer_roomkey_stays(url: str) -> None:
    async with in_database(url) as (sessions, *_):
        assert isinstance(sessions, DatabaseSessionStorage)
        session = await store(sessions, "alice")
        record = sessions._records._codec.encode(RecordKind.SESSION, session.id.encode(), session.version, b"\x09")
        await ask(sessions._database, "UPDATE roomkey_sessions SET record = ?", record)

        damaged = await sessions.damaged()

        assert [each.is_newer for each in damaged] == [True]
        assert await sessions.set_aside(damaged) == 0
        assert await aside(sessions._database) == []


async def test_damaged_updates_leave_some_that_change_nothing(url: str) -> None:
    async with in_database(url) as house:
        documents = house.documents
        assert isinstance(documents, DatabaseDocumentStore)
        await make(documents, "notes", updates(3))
        await documents.append("notes", "first", updates(2, 4))
        before = await loaded(documents, "notes")
        await flip(documents._database, "roomkey_document_updates", "last = 3")

        damaged = await documents.damaged()
        done = await documents.set_aside(damaged)

        after = await loaded(documents, "notes")
        assert (kinds(damaged), done) == ([RecordKind.UPDATES], 1)
        assert await documents.damaged() == []
        assert documents.degradations() == {}
        assert [each.data for each in after.updates[:3]] == [NO_CHANGE] * 3
        assert list(after.updates[3:]) == list(before.updates[3:])
        assert (await examined(house)).problems == []
        assert await aside(documents._database) == ["roomkey_document_updates"]


@pytest.mark.parametrize(
    ("table", "kind", "gone"),
    [
        ("roomkey_document_versions", RecordKind.VERSION, ["roomkey_document_versions"]),
        ("roomkey_document_pieces", RecordKind.CONTENT, ["roomkey_document_pieces", "roomkey_document_versions"]),
    ],
)
async def test_a_damaged_version_is_put_aside(table: str, kind: RecordKind, gone: list[str], url: str) -> None:
    async with in_database(url) as house:
        documents = house.documents
        assert isinstance(documents, DatabaseDocumentStore)
        await make(documents, "notes", updates(3))
        await documents.keep_version("notes", "first", version(b"content"))
        await flip(documents._database, table, "document = 1")
        await documents.keep_version("notes", "first", version(b"another"))

        damaged = await documents.damaged()
        done = await documents.set_aside(damaged)

        assert (kinds(damaged), done) == ([kind], 1)
        assert await documents.damaged() == []
        assert [each.number for each in (await documents.versions("notes", Page())).versions] == [2]
        assert (await examined(house)).problems == []
        assert await aside(documents._database) == gone


async def test_a_damaged_snapshot_is_named_and_stays(url: str) -> None:
    async with in_database(url) as (_, documents, _):
        assert isinstance(documents, DatabaseDocumentStore)
        await make(documents, "notes", updates(3))
        await documents.compact("notes", "first", snapshot=b"snapshot", upto=3, authorship=b"who")
        await flip(documents._database, "roomkey_document_pieces", "part = 0")

        damaged = await documents.damaged()

        assert kinds(damaged) == [RecordKind.CONTENT]
        assert await documents.set_aside(damaged) == 0
        assert await documents.find("notes") is not None


async def test_a_damaged_document_goes_out_of_sight(url: str) -> None:
    async with in_database(url) as (_, documents, _):
        assert isinstance(documents, DatabaseDocumentStore)
        await make(documents, "notes", updates(3))
        await make(documents, "other", updates(3))
        await flip(documents._database, "roomkey_documents", "name = ?", b"notes")
        with capture_logs() as logs:
            damaged = await documents.damaged()
            done = await documents.set_aside(damaged)

        assert [(each.kind, each.key, done) for each in damaged] == [(RecordKind.DOCUMENT, "notes", 1)]
        assert [line["event"] for line in logs] == ["storage_record_set_aside"]
        assert await documents.damaged() == []
        assert await documents.find("notes") is None
        assert (await make(documents, "notes", lineage="second")) is not None
        assert await aside(documents._database) == ["roomkey_documents"]


async def test_places_that_are_none_are_left_alone(url: str) -> None:
    async with in_database(url) as house:
        await furnish(house.sessions, house.documents)
        for each in house:
            assert isinstance(each, DatabaseSessionStorage | DatabaseDocumentStore | DatabaseObjectStore)
            places = (b"", b"roomkey_sessions\0zz", b"roomkey_events\0x", b"roomkey_documents\0\0", b"\xff\0key")
            records = [
                DamagedRecord(kind=RecordKind.SESSION, key="", reason="", place=place)
                for place in (*places, b"roomkey_documents\0" + bytes(8), b"roomkey_document_updates\0" + bytes(16))
            ]
            assert await each.set_aside(records) == 0
