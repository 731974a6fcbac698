"""A copy is equal to its source, whatever is copied where and however often it was interrupted."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from msgspec.structs import replace

from roomkey.backends.lmdb import FileSystemSessionStorage, FileSystemSettings
from roomkey.backends.lmdb.documents import FileSystemDocumentStore
from roomkey.backends.lmdb.objects import FileSystemObjectStore
from roomkey.backends.memory import MemorySessionStorage
from roomkey.backends.memory.documents import MemoryDocumentStore
from roomkey.backends.memory.objects import MemoryObjectStore
from roomkey.backends.moving import Examination, Foreign, House, Report, copy, examine
from roomkey.backends.moving.documents import DocumentsCopy
from roomkey.backends.moving.objects import ObjectsCopy
from roomkey.backends.moving.sessions import SessionsCopy
from roomkey.backends.redis import RedisServer, RedisSessionStorage
from roomkey.backends.redis.documents import RedisDocumentStore
from roomkey.backends.redis.objects import RedisObjectStore
from roomkey.backends.sql import Database, DatabaseSessionStorage, DatabaseSettings
from roomkey.backends.sql.documents import DatabaseDocumentStore
from roomkey.backends.sql.objects import DatabaseObjectStore
from roomkey.domain.session import Activated, Deleted, Invalidated, SessionState, partition_of
from roomkey.errors import Conflict
from roomkey.ports import (
    PLAIN_RECORDS,
    CheckpointItem,
    DocumentItem,
    EpochItem,
    EventItem,
    Gone,
    LogStart,
    MovableDocuments,
    MovableSessions,
    Page,
    PartitionItem,
    SessionItem,
    SystemClock,
    VersionItem,
)
from roomkey.testing.documents.suite import NOON as MIDDAY
from roomkey.testing.documents.suite import loaded, make, updates, version, was_deleted
from roomkey.testing.storage.suite import (
    NOON,
    SECOND,
    change,
    disagreements,
    everything,
    fact,
    found,
    issue,
    store,
    whole_log,
)
from tests.support.document_file import document_faults
from tests.support.effort import examples
from tests.support.histories import (
    NAMES,
    Step,
    document_steps,
    furnish,
    live_documents,
    live_sessions,
    session_steps,
    users_of,
)
from tests.support.lmdb_file import index_faults
from tests.support.store_servers.fixtures import with_prefix

QUICK = FileSystemSettings(durable=False)


def unseen(what: str, done: int, of: int) -> None:
    pass


@asynccontextmanager
async def in_memory(folder: Path) -> AsyncGenerator[House]:
    del folder
    yield House(MemorySessionStorage(events_per_partition=10_000), MemoryDocumentStore(), MemoryObjectStore())


@asynccontextmanager
async def in_files(folder: Path) -> AsyncGenerator[House]:
    async with (
        FileSystemSessionStorage(folder, QUICK) as sessions,
        FileSystemDocumentStore(folder / "documents", QUICK) as documents,
        FileSystemObjectStore(folder / "objects", QUICK) as objects,
    ):
        yield House(sessions, documents, objects)
    assert index_faults(folder) == []
    assert document_faults(folder / "documents") == []


@asynccontextmanager
async def in_sqlite(folder: Path) -> AsyncGenerator[House]:
    async with in_database(f"sqlite:///{folder.parent}/{folder.name}.db") as house:
        yield house


@asynccontextmanager
async def in_database(url: str) -> AsyncGenerator[House]:
    database = Database(url, DatabaseSettings(migrate=True))
    async with (
        DatabaseSessionStorage(database) as sessions,
        DatabaseDocumentStore(database) as documents,
        DatabaseObjectStore(database) as objects,
    ):
        yield House(sessions, documents, objects)


@asynccontextmanager
async def in_redis(folder: Path, *, url: str) -> AsyncGenerator[House]:
    del folder
    server = RedisServer(with_prefix(url))
    async with (
        RedisSessionStorage(server) as sessions,
        RedisDocumentStore(server) as documents,
        RedisObjectStore(server) as objects,
    ):
        yield House(sessions, documents, objects)


Opening = Callable[[Path], AbstractAsyncContextManager[House]]
"""What opens a house that has nothing in it; a directory is its own."""

KINDS = ("memory", "lmdb", "sqlite", "redis", "cluster")
EACH = (
    *(("memory", "lmdb"), ("lmdb", "memory"), ("memory", "sqlite")),
    *(("sqlite", "lmdb"), ("redis", "lmdb"), ("sqlite", "redis")),
)
"""Each is a source and a target: what one side does does not depend on the other."""

OTHERS = (("lmdb", "lmdb"), ("redis", "redis"))
WAYS = (*EACH, *(pytest.param(*way, marks=pytest.mark.slow) for way in OTHERS))

both_ways = pytest.mark.parametrize(("here", "there"), WAYS, indirect=True)
some_ways = pytest.mark.parametrize(("here", "there"), EACH[:3], indirect=True)
"""For histories: a copy asks a server thousands of times."""


def opening(request: pytest.FixtureRequest) -> Opening:
    match request.param:
        case "memory":
            return in_memory
        case "lmdb":
            return in_files
        case "sqlite":
            return in_sqlite
        case "redis":
            return partial(in_redis, url=request.getfixturevalue("redis_server").url)
        case _:
            return partial(in_redis, url=request.getfixturevalue("cluster_servers").url)


@pytest.fixture(scope="module")
def here(request: pytest.FixtureRequest) -> Opening:
    return opening(request)


@pytest.fixture(scope="module")
def there(request: pytest.FixtureRequest) -> Opening:
    return opening(request)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Opening:
    return opening(request)


@asynccontextmanager
async def two_houses(here: Opening, there: Opening, folder: Path) -> AsyncGenerator[tuple[House, House]]:
    async with here(folder / "here") as source, there(folder / "there") as target:
        yield source, target


async def copied(source: House, target: House) -> Report:
    report = await copy(source, target, unseen)
    assert (report.differences, report.unreadable) == ([], [])
    assert report.is_identical
    return report


async def examined(house: House) -> Examination:
    return await examine(*house, clock=SystemClock(), progress=unseen)


# --- whatever it is -----------------------------------------------------------------------------------


@some_ways
@settings(max_examples=examples(15))
@given(first=session_steps, then=session_steps)
def test_any_history_of_sessions_arrives_and_so_does_what_follows(
    here: Opening, there: Opening, first: Sequence[Step], then: Sequence[Step]
) -> None:
    async def check(source: House, target: House) -> None:
        await live_sessions(source.sessions, first)
        await copied(source, target)
        await agree(source.sessions, target.sessions)

        await live_sessions(source.sessions, then, begin=len(first))
        await copied(source, target)
        await agree(source.sessions, target.sessions)

        assert not (await copied(source, target)).changed

    in_two_houses(here, there, check)


async def agree(source: MovableSessions, target: MovableSessions) -> None:
    mine, theirs = await everything(source), await everything(target)
    assert {each.id: each for each in theirs} == {each.id: each for each in mine}
    for session in mine:
        assert await target.get_with_secret(session.id) == await source.get_with_secret(session.id)
    assert await whole_log(target) == await whole_log(source)
    assert await target.heads() == await source.heads()
    now = NOON + timedelta(days=3)
    assert (await target.statistics(now)).states == (await source.statistics(now)).states
    assert await users_of(target) == await users_of(source)
    for at in (NOON + timedelta(hours=20), NOON + timedelta(days=400)):
        ended = {each.id for each in await source.ended_before(at, 1000)}
        assert {each.id for each in await target.ended_before(at, 1000)} == ended


@some_ways
@settings(max_examples=examples(15))
@given(first=document_steps, then=document_steps)
def test_any_history_of_documents_arrives_and_so_does_what_follows(
    here: Opening, there: Opening, first: Sequence[Step], then: Sequence[Step]
) -> None:
    async def check(source: House, target: House) -> None:
        await live_documents(source.documents, first)
        await copied(source, target)
        await live_documents(source.documents, then, begin=len(first))
        await copied(source, target)

        for name in NAMES:
            if await source.documents.find(name) is not None:
                mine, theirs = await loaded(source.documents, name), await loaded(target.documents, name)
                assert list(theirs.updates) == list(mine.updates)
                assert theirs.record == mine.record
                assert (theirs.snapshot, theirs.authorship) == (mine.snapshot, mine.authorship)
                # Numbers of versions are never given twice, wherever the document lives.
                kept = [
                    await each.documents.keep_version(name, mine.record.lineage, version()) for each in (source, target)
                ]
                assert kept[0] == kept[1]
            else:
                assert await target.documents.find(name) is None

    in_two_houses(here, there, check)


def in_two_houses(here: Opening, there: Opening, check: Callable[[House, House], Awaitable[None]]) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with two_houses(here, there, Path(folder)) as houses:
                await check(*houses)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


@both_ways
async def test_a_copy_of_everything_is_sound(here: Opening, there: Opening, tmp_path: Path) -> None:
    async with two_houses(here, there, tmp_path) as (source, target):
        await furnish(source.sessions, source.documents)
        report = await copied(source, target)

        assert (await examined(target)).problems == []
        assert (await examined(source)).problems == []
        assert await disagreements(target.sessions) == []
        assert not report.changed
        for section in report.sections.values():
            assert section.source == section.target
        assert report.sections["sessions"].written > 20
        assert report.sections["versions"].source.count > 0
        assert report.sections["graves"].source.count > 0


@both_ways
async def test_a_second_run_writes_nothing(here: Opening, there: Opening, tmp_path: Path) -> None:
    async with two_houses(here, there, tmp_path) as (source, target):
        await furnish(source.sessions, source.documents)
        await copied(source, target)

        again = await copied(source, target)

    assert {name: section.written for name, section in again.sections.items() if section.written} == {}


@both_ways
async def test_who_was_revoked_stays_revoked(here: Opening, there: Opening, tmp_path: Path) -> None:
    async with two_houses(here, there, tmp_path) as (source, target):
        session = await store(source.sessions, "alice", active=True)
        await source.sessions.revoke_user("alice", NOON, actor="system", reason=None, except_session=None)
        await copied(source, target)

        # The record as it was before, which some backup brings back: its user's epoch has passed it.
        partition = partition_of("alice")
        (item,) = [each async for batch in source.sessions.export_sessions(partition) for each in batch]
        assert isinstance(item, SessionItem)
        revived = replace(item, session=replace(item.session, state=SessionState.ACTIVE), epoch=0, ended_at=None)
        await target.sessions.take_in(partition, [Gone(session.id), revived])

        assert (await found(target.sessions, session.id)).state == "invalidated"
        revocation = await target.sessions.revoke_user("alice", NOON, actor="s", reason=None, except_session=None)
        assert revocation.epoch == 2


@both_ways
async def test_who_was_kept_in_a_revocation_is_kept(here: Opening, there: Opening, tmp_path: Path) -> None:
    async with two_houses(here, there, tmp_path) as (source, target):
        kept = await store(source.sessions, "alice", active=True)
        await copied(source, target)
        await source.sessions.revoke_user("alice", NOON, actor="s", reason=None, except_session=kept.id)

        await copied(source, target)

        assert await found(target.sessions, kept.id) == kept


@both_ways
async def test_a_session_that_was_deleted_meanwhile_is_gone(here: Opening, there: Opening, tmp_path: Path) -> None:
    async with two_houses(here, there, tmp_path) as (source, target):
        session = await store(source.sessions, "alice")
        await copied(source, target)
        await source.sessions.delete(fact(session, Deleted, NOON))

        await copied(source, target)

        assert await everything(target.sessions) == []
        assert await disagreements(target.sessions) == []


@both_ways
async def test_what_ended_first_is_purged_first(here: Opening, there: Opening, tmp_path: Path) -> None:
    async with two_houses(here, there, tmp_path) as (source, target):
        sessions = [await store(source.sessions, "alice") for _ in range(9)]
        sessions.sort(key=lambda session: session.id, reverse=True)
        for number, session in enumerate(sessions):
            await change(source.sessions, session, Invalidated, NOON + number * SECOND)
        await copied(source, target)

        ripe = await target.sessions.ended_before(NOON + 5 * SECOND, 3)

        assert [each.id for each in ripe] == [each.id for each in sessions[:3]]


@both_ways
async def test_a_deleted_document_stays_deleted(here: Opening, there: Opening, tmp_path: Path) -> None:
    async with two_houses(here, there, tmp_path) as (source, target):
        await make(source.documents, "notes", updates(3), lineage="old")
        await copied(source, target)
        await source.documents.delete("notes", "old", MIDDAY)
        await copied(source, target)

        assert await was_deleted(target.documents, "notes", "old")


@both_ways
async def test_a_fencing_token_stays_where_its_lease_is(here: Opening, there: Opening, tmp_path: Path) -> None:
    async with two_houses(here, there, tmp_path) as (source, target):
        await make(source.documents, "notes", updates(3))
        await source.documents.compact("notes", "first", snapshot=b"s", upto=1, authorship=b"a", fence=1000)
        await copied(source, target)

        assert await target.documents.compact("notes", "first", snapshot=b"s", upto=2, authorship=b"a", fence=1)


@both_ways
async def test_checkpoints_go_along(here: Opening, there: Opening, tmp_path: Path) -> None:
    async with two_houses(here, there, tmp_path) as (source, target):
        items = [CheckpointItem("audit", 3, 17), CheckpointItem("audit", 4, 2), CheckpointItem("metrics", 3, 1)]
        await source.sessions.take_in_checkpoints(items)
        await copied(source, target)
        await source.sessions.take_in_checkpoints([CheckpointItem("audit", 3, 18)])

        await copied(source, target)

        arrived = [item async for batch in target.sessions.export_checkpoints() for item in batch]
        assert sorted(arrived, key=lambda item: (item.consumer, item.partition)) == [
            CheckpointItem("audit", 3, 18),
            *items[1:],
        ]


# --- in the middle ------------------------------------------------------------------------------------


class Stopped(Exception):
    pass


@both_ways
@pytest.mark.parametrize(
    "writes", [1, pytest.param(2, marks=pytest.mark.slow), 5, pytest.param(9, marks=pytest.mark.slow), 14]
)
async def test_a_copy_that_was_stopped_is_finished_by_the_next(
    here: Opening, there: Opening, writes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two_houses(here, there, tmp_path) as (source, target):
        await furnish(source.sessions, source.documents)
        left = writes

        def stopping(take_in: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
            async def limited(*arguments: Any) -> None:
                nonlocal left
                left -= 1
                if left < 0:
                    raise Stopped
                await take_in(*arguments)

            return limited

        with monkeypatch.context() as patch:
            for each in (target.sessions, target.documents):
                patch.setattr(each, "take_in", stopping(each.take_in))
            with pytest.raises(Stopped):
                await copy(source, target, unseen)

        await copied(source, target)
        await agree(source.sessions, target.sessions)


async def test_what_is_written_to_the_source_meanwhile_is_brought_by_the_next_run(tmp_path: Path) -> None:
    async with two_houses(in_files, in_memory, tmp_path) as (source, target):
        await furnish(source.sessions, source.documents)
        first = Report()
        copying = SessionsCopy(source.sessions, target.sessions, first, unseen)
        await copying.bring()
        await store(source.sessions, "erin")

        await copying.compare()
        second = await copied(source, target)

        assert first.changed
        assert not first.is_identical
        assert not second.changed


@pytest.mark.parametrize("meanwhile", ["append", "compact", "create", "delete"])
async def test_a_change_of_a_document_meanwhile_is_said(meanwhile: str, tmp_path: Path) -> None:
    async with two_houses(in_files, in_memory, tmp_path) as (source, target):
        await make(source.documents, "notes", updates(3))
        report = Report()
        copying = DocumentsCopy(source.documents, target.documents, report, unseen)
        await copying.bring()
        match meanwhile:
            case "append":
                await source.documents.append("notes", "first", updates(1))
            case "compact":
                await source.documents.compact("notes", "first", snapshot=b"s", upto=1, authorship=b"a")
            case "create":
                await make(source.documents, "other")
            case _:
                await source.documents.delete("notes", "first", MIDDAY)

        await copying.compare()

        assert report.changed
        assert not report.is_identical


async def test_what_was_changed_in_the_target_alone_is_named(tmp_path: Path) -> None:
    async with two_houses(in_memory, in_files, tmp_path) as (source, target):
        await furnish(source.sessions, source.documents)
        lost, seen = await store(source.sessions, "zoe"), await store(source.sessions, "yan", active=True)
        await copied(source, target)
        await target.sessions.take_in(partition_of("zoe"), [Gone(lost.id), EpochItem("zoe", 1)])
        await target.sessions.touch(seen.id, NOON + SECOND)
        await target.documents.keep_version("a", (await documents_of(target))["a"], version(b"tampered"))
        report = Report()

        await SessionsCopy(source.sessions, target.sessions, report, unseen).compare()
        await DocumentsCopy(source.documents, target.documents, report, unseen).compare()

        assert not report.changed
        assert set(report.differences) == {
            "document 'a' is not what it is in the source",
            f"session {seen.id} is not what it is in the source",
            f"session {lost.id} is missing",
            "the epoch of user 'zoe' is not in the source",
            "version 3 of 'a' is not in the source",
        }


async def documents_of(house: House) -> dict[str, str]:
    return {record.name: record.lineage for record in (await house.documents.list("", Page())).documents}


# --- what is refused ----------------------------------------------------------------------------------


@both_ways
async def test_a_target_with_sessions_of_its_own_is_refused(here: Opening, there: Opening, tmp_path: Path) -> None:
    async with two_houses(here, there, tmp_path) as (source, target):
        await furnish(source.sessions, source.documents)
        own = await store(target.sessions, "alice")

        with pytest.raises(Foreign, match="sessions of its own"):
            await copy(source, target, unseen)

        assert [each.id for each in await everything(target.sessions)] == [own.id]


@both_ways
async def test_a_target_that_went_on_by_itself_is_refused(here: Opening, there: Opening, tmp_path: Path) -> None:
    async with two_houses(here, there, tmp_path) as (source, target):
        session = await store(source.sessions, "alice")
        await copied(source, target)
        await change(target.sessions, session, Activated, NOON)

        with pytest.raises(Foreign):
            await copy(source, target, unseen)

        # Nor if the source has gone on as well, another way.
        await source.sessions.revoke_user("alice", NOON, actor="system", reason=None, except_session=None)
        with pytest.raises(Foreign):
            await copy(source, target, unseen)


@both_ways
async def test_a_target_with_documents_of_its_own_is_refused(here: Opening, there: Opening, tmp_path: Path) -> None:
    async with two_houses(here, there, tmp_path) as (source, target):
        await make(source.documents, "notes", updates(3))
        await make(target.documents, "notes", lineage="other")

        with pytest.raises(Foreign, match="documents of its own"):
            await copy(source, target, unseen)

        await target.documents.delete("notes", "other", MIDDAY)
        with pytest.raises(Foreign, match="documents of its own"):
            await copy(source, target, unseen)


@both_ways
async def test_a_document_that_was_edited_in_the_target_is_not_written_over(
    here: Opening, there: Opening, tmp_path: Path
) -> None:
    async with two_houses(here, there, tmp_path) as (source, target):
        await make(source.documents, "notes", updates(3))
        await copied(source, target)
        await target.documents.append("notes", "first", updates(1))

        with pytest.raises(Foreign):
            await copy(source, target, unseen)


# --- items --------------------------------------------------------------------------------------------


async def test_items_that_contradict_what_is_there_are_conflicts(kind: Opening, tmp_path: Path) -> None:
    async with in_memory(tmp_path / "here") as source, kind(tmp_path / "there") as target:
        old, partition = await store(source.sessions, "alice"), partition_of("alice")
        (older,) = [each async for batch in source.sessions.export_sessions(partition) for each in batch]
        await change(source.sessions, old, Activated, NOON + SECOND)
        (newer,) = [each async for batch in source.sessions.export_sessions(partition) for each in batch]
        log = [EventItem(each.sequence, each.event) for each in await source.sessions.events(partition)]
        take_in = target.sessions.take_in
        assert newer is not None
        await take_in(partition, [newer, EpochItem("alice", 3), *log])  # pyright: ignore[reportArgumentType]
        before = await whole_log(target.sessions), await everything(target.sessions)

        contradictions: list[PartitionItem] = [
            older,  # pyright: ignore[reportAssignmentType, reportArgumentType]
            EpochItem("alice", 2),
            EventItem(1, log[1].event),
            EventItem(4, log[1].event),
        ]
        for item in contradictions:
            with pytest.raises(Conflict):
                await take_in(partition, [item])
        await take_in(partition, [*log, EpochItem("alice", 3)])

        assert (await whole_log(target.sessions), await everything(target.sessions)) == before


async def test_a_log_whose_beginning_was_forgotten_keeps_its_numbers(kind: Opening, tmp_path: Path) -> None:
    async with kind(tmp_path) as (sessions, *_):
        event = issue("alice").event
        partition = partition_of("alice")
        await sessions.take_in(partition, [LogStart(41), EventItem(42, event)])
        await sessions.take_in(partition, [LogStart(41), EventItem(42, event), EventItem(43, event)])
        behind_41 = [each.sequence for each in await sessions.events(partition)]
        await sessions.take_in(partition, [LogStart(42)])

        assert behind_41 == [42, 43]
        assert [each.sequence for each in await sessions.events(partition)] == [43]
        assert await sessions.heads() == {partition: 43}


async def test_documents_that_contradict_what_is_there_are_conflicts(kind: Opening, tmp_path: Path) -> None:
    async with in_memory(tmp_path / "here") as source, kind(tmp_path / "there") as target:
        await make(source.documents, "notes", updates(3))
        kept = await source.documents.keep_version("notes", "first", version())
        item = await item_of(source.documents)
        await target.documents.take_in(item)
        await target.documents.take_in(VersionItem("notes", "first", kept, b"content"))
        await target.documents.append("notes", "first", updates(1))

        for wrong in (item, VersionItem("notes", "first", await other_version(source.documents), b"another")):
            with pytest.raises(Conflict):
                await target.documents.take_in(wrong)
        await target.documents.delete("notes", "first", MIDDAY)
        with pytest.raises(Conflict):
            await target.documents.take_in(item)


async def item_of(documents: MovableDocuments, name: str = "notes") -> DocumentItem:
    stored = await loaded(documents, name)
    return DocumentItem(stored, await documents.last_version(name, stored.record.lineage))


async def other_version(documents: MovableDocuments) -> Any:
    found = await documents.version("notes", 1)
    assert found is not None
    return replace(found[0], label="another")


# --- what an examination finds ------------------------------------------------------------------------


async def test_an_examination_names_what_contradicts(kind: Opening, tmp_path: Path) -> None:
    async with kind(tmp_path) as house:
        await furnish(house.sessions, house.documents)
        kept = await store(house.sessions, "zoe", active=True)
        partition = partition_of("zoe")
        await house.sessions.take_in(partition, [Gone(kept.id)])

        lost = await examined(house)
        await house.sessions.take_in(partition, [EventItem(3, issue("zoe").event)])
        invented = await examined(house)

        assert lost.problems == [f"session {kept.id}: the log and the records do not agree on whether it was deleted"]
        assert len(invented.problems) == 2
        assert lost.counts["documents"] == len(NAMES)


async def test_a_session_that_is_behind_its_log_is_found_even_if_the_log_was_cut(kind: Opening, tmp_path: Path) -> None:
    async with kind(tmp_path) as house:
        session = await store(house.sessions, "zoe", active=True)
        await house.sessions.purge_events(NOON + SECOND, 1)
        late = fact(session, Invalidated, NOON + SECOND)
        before = await examined(house)
        await house.sessions.take_in(partition_of("zoe"), [EventItem(3, late)])

        after = await examined(house)

        assert before.problems == []
        assert after.problems == [f"session {session.id} has version 2, and the log ends with version 3"]


# --- objects ------------------------------------------------------------------------------------------


async def values_of(house: House) -> dict[str, bytes]:
    listed = await house.objects.list("audit", limit=1000)
    return {each.name: each.value for each in listed}


@both_ways
async def test_objects_arrive_and_those_that_are_gone_by_the_next_time_go(
    here: Opening, there: Opening, tmp_path: Path
) -> None:
    async with two_houses(here, there, tmp_path) as (source, target):
        await source.objects.commit("audit", {f"batch/{number}": b"%d" % number for number in range(450)})
        await source.objects.commit("subjects", {"current": b"1"})
        assert (await copied(source, target)).sections["objects"].written == 451

        await source.objects.commit("audit", {"batch/7": None, "batch/8": b"another", "head": b"x"})
        await copied(source, target)

        assert await values_of(target) == await values_of(source)
        assert (await copied(source, target)).sections["objects"].written == 0


async def test_a_target_whose_objects_somebody_has_changed_since_is_left_alone(tmp_path: Path) -> None:
    async with two_houses(in_memory, in_files, tmp_path) as (source, target):
        await source.objects.commit("subjects", {"current": b"1"})
        await copied(source, target)
        await target.objects.commit("subjects", {"of the target": b"2"})

        with pytest.raises(Foreign):
            await copy(source, target, unseen)

        assert await target.objects.get("subjects", "of the target") is not None


async def test_a_copy_that_was_interrupted_goes_on_whatever_happened_to_the_objects(tmp_path: Path) -> None:
    async with two_houses(in_memory, in_files, tmp_path) as (source, target):
        await source.objects.commit("audit", {"one": b"1"})
        await ObjectsCopy(source.objects, target.objects, Report(), unseen).bring()
        await source.objects.commit("audit", {"one": None, "two": b"2"})

        await copied(source, target)

        assert await values_of(target) == {"two": b"2"}


async def test_objects_that_cannot_be_read_are_named_and_the_others_arrive(tmp_path: Path) -> None:
    async with FileSystemObjectStore(tmp_path / "here" / "objects", QUICK, codec=PLAIN_RECORDS) as objects:
        await objects.commit("audit", {"damaged": b"without a checksum"})
    async with two_houses(in_files, in_memory, tmp_path) as (source, target):
        await source.objects.commit("audit", {"sound": b"1"})

        report = await copy(source, target, unseen)
        examination = await examined(source)

        assert report.unreadable == ["object audit/damaged"]
        assert await values_of(target) == {"sound": b"1"}
        assert any("audit/damaged" in problem for problem in examination.problems)
