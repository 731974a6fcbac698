"""What is particular to the storage in a directory: its file, its one writer, and its memory map."""

# These tests look at what the class keeps to itself.
# pyright: reportPrivateUsage=false

import asyncio
import gc
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import lmdb
import pytest
from msgspec.structs import replace

from roomkey.backends.lmdb import FileSystemSessionStorage, FileSystemSettings
from roomkey.backends.lmdb.commit import Commit, Stored, stored, update
from roomkey.backends.lmdb.documents import FileSystemDocumentStore
from roomkey.backends.lmdb.layout import FORMAT_KEY
from roomkey.backends.lmdb.writer import Standstill
from roomkey.domain.session import Activated, Session, SessionFilter, SessionState
from roomkey.errors import InvalidInput, NotFound, Storage
from roomkey.ports import RecordKind
from roomkey.testing.storage import disagreements, issue
from roomkey.testing.storage.suite import MINUTE, NOON, ROOMY, change, fact, history, store
from tests.support.lmdb_file import holding_the_lock, index_faults

QUICK = FileSystemSettings(durable=False)


@asynccontextmanager
async def opened(path: Path, settings: FileSystemSettings = QUICK) -> AsyncGenerator[FileSystemSessionStorage]:
    """The storage, whose file must be sound afterwards."""
    async with FileSystemSessionStorage(path, settings) as storage:
        yield storage
        assert await disagreements(storage) == []
    assert index_faults(path) == []


async def refusal(path: Path, settings: FileSystemSettings = QUICK) -> str:
    """The one line that says why the storage cannot be opened."""
    with pytest.raises(Storage) as caught:
        async with FileSystemSessionStorage(path, settings):
            pass
    message = str(caught.value)
    assert "\n" not in message
    return message


class TestTheDirectory:
    async def test_only_its_owner_can_read_it(self, tmp_path: Path) -> None:
        path = tmp_path / "sessions"

        async with opened(path) as storage:
            await store(storage)

        assert modes(path) == {".": 0o700, "data.mdb": 0o600, "lock.mdb": 0o600}

    async def test_it_is_not_opened_twice_in_a_process(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as storage:
            session = await store(storage)

            message = await refusal(tmp_path)

            assert message == f"{tmp_path}: it is already open in this process"
            assert await storage.get(session.id) == session

    async def test_it_can_be_opened_again(self, tmp_path: Path) -> None:
        storage = FileSystemSessionStorage(tmp_path, QUICK)
        async with storage:
            session = await store(storage)

        async with storage:
            assert await storage.get(session.id) == session

    async def test_a_file_is_not_a_directory(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.touch()

        assert await refusal(path) == f"{path}: not a directory; choose another place"
        assert await refusal(path / "below") == f"{path}/below: not a directory; choose another place"

    async def test_a_place_where_nothing_may_be_written_is_refused(self) -> None:
        path = Path("/sys/kernel/roomkey")  # not even for root

        assert await refusal(path) in {
            f"{path}: {reason}; give it to the user that runs Roomkey"
            for reason in ("operation not permitted", "permission denied")
        }

    async def test_what_is_no_data_file_is_refused_and_kept(self, tmp_path: Path) -> None:
        data = tmp_path / "data.mdb"
        data.write_bytes(b"something precious " * 1000)

        message = await refusal(tmp_path)

        assert message == f"{tmp_path}: it has a data file that is not Roomkey's, or is damaged"
        assert data.read_bytes() == b"something precious " * 1000

    async def test_a_file_whose_end_is_missing_is_refused(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as storage:
            for _ in range(20):
                await store(storage)
        os.truncate(tmp_path / "data.mdb", 3 * 4096)

        assert "its end is missing" in await refusal(tmp_path)

    async def test_another_format_is_not_touched(self, tmp_path: Path) -> None:
        async with opened(tmp_path):
            pass
        with lmdb.Environment(str(tmp_path), max_dbs=9) as environment:
            meta = environment.open_db(b"meta")
            with environment.begin(write=True) as transaction:
                transaction.put(FORMAT_KEY, b"roomkey 9", db=meta)

        assert "another version of Roomkey" in await refusal(tmp_path)

    async def test_no_address_space_is_a_clear_error(self, tmp_path: Path) -> None:
        message = await refusal(tmp_path, FileSystemSettings(map_size=2**50))

        assert message == f"{tmp_path}: no address space is left for the memory map"

    async def test_nothing_can_be_done_with_a_closed_storage(self, tmp_path: Path) -> None:
        storage = FileSystemSessionStorage(tmp_path, QUICK)
        async with storage:
            session = await store(storage)

        for call in (
            lambda: storage.get(session.id),
            lambda: storage.create([issue()], ROOMY, NOON),
            lambda: storage.touch(session.id, NOON),
            storage.ping,
        ):
            with pytest.raises(Storage, match="not open"):
                await call()


class TestTheMap:
    async def test_it_grows_by_itself(self, tmp_path: Path) -> None:
        async with opened(tmp_path, FileSystemSettings(map_size=64 * 1024, durable=False)) as storage:
            new = [issue(f"user-{number}") for number in range(2000)]
            async with asyncio.TaskGroup() as group:
                for each in new:
                    group.create_task(storage.create([each], ROOMY, NOON))

            assert await storage.get_many([each.session.id for each in new]) == [each.session for each in new]

    async def test_a_map_that_cannot_grow_refuses_writes_and_goes_on_reading(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with opened(tmp_path, FileSystemSettings(map_size=128 * 1024, durable=False)) as storage:
            assert storage._file is not None
            session = await store(storage)
            file = storage._file
            grow = file.grow

            monkeypatch.setattr(file, "grow", lambda: file._resize(2**50))
            with pytest.raises(Storage, match="no address space"):
                await storage.create([issue(f"user-{number}") for number in range(2000)], ROOMY, NOON)
            assert await storage.get(session.id) == session
            monkeypatch.setattr(file, "grow", grow)
            await storage.create([issue(f"user-{number}") for number in range(2000)], ROOMY, NOON)

            assert await storage.count(SessionFilter()) == 2001


class TestTheWriter:
    async def test_one_bad_change_does_not_spoil_the_others(self, tmp_path: Path) -> None:
        def half_done(commit: Commit) -> None:
            commit.put(commit.tables.sessions, b"half", b"done")
            commit.counters.created(NOON)
            raise NotFound("after all")

        def defective(commit: Commit) -> None:
            commit.put(commit.tables.sessions, b"half", b"done")
            raise ZeroDivisionError

        async with opened(tmp_path) as storage:
            new = [issue(f"user-{number}") for number in range(20)]
            outcomes = await asyncio.gather(
                *(storage.create([each], ROOMY, NOON) for each in new[:10]),
                storage._write(half_done),
                storage._write(defective),
                *(storage.create([each], ROOMY, NOON) for each in new[10:]),
                return_exceptions=True,
            )

            assert [type(outcome) for outcome in outcomes if outcome] == [NotFound, Storage]
            assert await storage.get_many([each.session.id for each in new]) == [each.session for each in new]

    async def test_what_cannot_be_encoded_leaves_no_trace(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as storage:
            session = await store(storage)
            endless = replace(session, metadata={"number": 2**64})

            with pytest.raises(InvalidInput):
                await storage.create([issue(metadata={"what": object()})], ROOMY, NOON)
            with pytest.raises(InvalidInput):
                await change(storage, endless, Activated, NOON)

            assert await storage.count(SessionFilter()) == 1
            assert await storage.get(session.id) == session

    async def test_a_key_that_is_too_long_is_an_error_of_its_owner(self, tmp_path: Path) -> None:
        def overlong(commit: Commit) -> None:
            commit.put(commit.tables.sessions, b"k" * 600)

        async with opened(tmp_path) as storage:
            results = await asyncio.gather(storage._write(overlong), store(storage), return_exceptions=True)

            assert isinstance(results[0], Storage)
            assert isinstance(results[1], Session)

    async def test_waiting_writes_are_bounded(self, tmp_path: Path) -> None:
        most = 0

        async with opened(tmp_path, FileSystemSettings(max_waiting=4, durable=False)) as storage:

            async def create(number: int) -> None:
                nonlocal most
                await store(storage, f"user-{number}")
                most = max(most, len(storage._writer._unanswered))

            async with asyncio.TaskGroup() as group:
                for number in range(100):
                    group.create_task(create(number))

            assert await storage.count(SessionFilter()) == 100
        assert most <= 4

    async def test_a_batch_larger_than_a_commit_is_committed_in_parts(self, tmp_path: Path) -> None:
        async with opened(tmp_path, FileSystemSettings(max_batch=3, durable=False)) as storage:
            async with asyncio.TaskGroup() as group:
                for number in range(50):
                    group.create_task(store(storage, f"user-{number}"))

            assert await storage.count(SessionFilter()) == 50

    async def test_a_change_that_nobody_waits_for_may_fail_without_complaints(self, tmp_path: Path) -> None:
        ghost = issue().session
        complaints: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))

        async with opened(tmp_path) as storage:
            storage._writer.enqueue(partial(update, session=ghost, event=fact(ghost, Activated, NOON), secret=None))
        gc.collect()

        assert complaints == []

    async def test_closing_finishes_what_waits(self, tmp_path: Path) -> None:
        storage = FileSystemSessionStorage(tmp_path, QUICK)
        async with storage:
            new = [issue(f"user-{number}") for number in range(50)]
            tasks = [asyncio.ensure_future(storage.create([each], ROOMY, NOON)) for each in new]
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)

        async with storage:
            assert await storage.count(SessionFilter()) == 50

    async def test_a_neighbour_that_does_not_let_go_is_waited_for_and_reported(self, tmp_path: Path) -> None:
        impatient = FileSystemSettings(durable=False, timeout=timedelta(seconds=1))
        async with opened(tmp_path, impatient) as storage:
            session = await store(storage)
            with holding_the_lock(tmp_path):
                with pytest.raises(Storage, match="does not answer"):
                    await store(storage, "bob")
                assert await storage.get(session.id) == session
            await store(storage, "carol")

            assert await storage.count(SessionFilter()) == 3  # bob's was made after all

    async def test_opening_does_not_wait_for_ever(self, tmp_path: Path) -> None:
        async with opened(tmp_path):
            pass

        with holding_the_lock(tmp_path):
            message = await refusal(tmp_path, FileSystemSettings(timeout=timedelta(milliseconds=200)))

        assert "another process does not let go" in message


class TestStandingStill:
    """What the loop may lose to its writers. ``now`` is moved by those who make it wait."""

    now = 0.0

    def waiting(self, seconds: float, allowed: list[float]) -> Callable[[float], None]:
        """Somebody who needs so long, and notes how long it was allowed to take."""

        def wait(most: float) -> None:
            allowed.append(round(most, 6))
            self.now += min(seconds, most)

        return wait

    async def test_writers_that_ask_one_after_the_other_share_the_time_of_one(self) -> None:
        standstill = Standstill(clock=lambda: self.now)
        allowed: list[float] = []

        for _ in range(3):
            standstill.spend(self.waiting(0.015, allowed))

        assert allowed == [0.02, 0.005, 0]

    async def test_one_that_asks_meanwhile_does_not_come_before_everybody_else(self) -> None:
        standstill = Standstill(clock=lambda: self.now)
        allowed: list[float] = []

        standstill.spend(self.waiting(0.015, allowed))
        asyncio.get_running_loop().call_soon(standstill.spend, self.waiting(0.001, allowed))
        await asyncio.sleep(0)

        assert allowed == [0.02, 0.005]

    async def test_after_a_turn_for_everybody_the_time_is_whole_again(self) -> None:
        standstill = Standstill(clock=lambda: self.now)
        allowed: list[float] = []

        for _ in range(3):
            standstill.spend(self.waiting(0.5, allowed))
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        assert allowed == [0.02, 0.02, 0.02]

    async def test_the_stores_of_a_loop_have_one_budget(self, tmp_path: Path) -> None:
        async with opened(tmp_path / "sessions") as storage, FileSystemDocumentStore(tmp_path / "d", QUICK) as store:
            assert storage._writer._standstill is store._writer._standstill


class TestTouches:
    async def test_a_touch_is_durable_soon(self, tmp_path: Path) -> None:
        quick = FileSystemSettings(durable=False, flush_interval=timedelta(milliseconds=1))
        async with opened(tmp_path, quick) as storage:
            session = await store(storage, active=True)

            await storage.touch(session.id, NOON + MINUTE)
            await until(lambda: not storage._touched)

            found = await storage.get(session.id)
            assert found is not None
            assert found.last_seen_at == NOON + MINUTE

    async def test_touches_beyond_the_bound_are_written_first(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("roomkey.backends.lmdb.MAX_TOUCHED", 3)
        async with opened(tmp_path) as storage:
            sessions = [await store(storage, f"user-{number}", active=True) for number in range(10)]

            for session in sessions:
                await storage.touch(session.id, NOON + MINUTE)

            assert len(storage._touched) <= 3
            found = await storage.get_many([session.id for session in sessions])
            assert {session.last_seen_at for session in found if session} == {NOON + MINUTE}

    async def test_a_touch_on_the_way_to_the_disk_may_be_followed_by_another(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as storage:
            session = await store(storage, active=True)
            await storage.touch(session.id, NOON + MINUTE)
            storage._flush()
            await storage.touch(session.id, NOON + 2 * MINUTE)
            await store(storage, "bob")  # behind the flush

            found = await storage.get(session.id)

            assert found is not None
            assert found.last_seen_at == NOON + 2 * MINUTE


class TestChores:
    async def test_early_entries_are_moved_for_good(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as storage:
            session = await store(storage, active=True)
            await storage.overdue(NOON + 30 * MINUTE, 10)  # after the deadline of a pending one

            await until(lambda: entry_of(storage, session) != NOON + 10 * MINUTE)

            assert entry_of(storage, session) == NOON + 60 * MINUTE

    async def test_the_dead_that_no_index_lists_get_the_event_they_miss(self, tmp_path: Path) -> None:
        async with FileSystemSessionStorage(tmp_path, QUICK) as storage:
            session = await store(storage, active=True)
            forget_sessions_of_users(storage)
            await storage.revoke_user("alice", NOON + MINUTE, actor="system", reason=None, except_session=None)

            await storage.overdue(session.expires_at, 10)
            await until(lambda: stored_now(storage, session).session.state is SessionState.INVALIDATED)

            assert [event.tag() for event in await history(storage, session.id)] == [
                "created",
                "activated",
                "invalidated",
            ]
            (over,) = await storage.ended_before(session.expires_at + MINUTE, 10)
            assert over.id == session.id

    async def test_a_search_through_many_early_entries_gives_others_a_turn(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("roomkey.backends.lmdb.snapshot.SCAN_LIMIT", 10)
        async with opened(tmp_path) as storage:
            for number in range(35):
                await store(storage, f"user-{number}", active=True)
            late = await store(storage, "late", NOON + MINUTE)

            overdue = await storage.overdue(NOON + 30 * MINUTE, 10)

            assert list(overdue) == [late]

    async def test_a_page_may_be_short_where_matches_are_rare(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("roomkey.backends.lmdb.snapshot.SCAN_LIMIT", 10)
        async with opened(tmp_path) as storage:
            sessions = [await store(storage) for _ in range(35)]
            rare = max(sessions, key=lambda session: session.id)
            await change(storage, rare, Activated, NOON)

            # `disagreements` follows the cursors through pages of this kind.
            assert await disagreements(storage) == []


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # nobody tells when it comes true
            await asyncio.sleep(0.001)


def stored_now(storage: FileSystemSessionStorage, session: Session) -> Stored:
    file = storage._file
    assert file is not None
    with file.environment.begin() as transaction:
        value = transaction.get(session.id.encode(), db=file.tables.sessions)
    assert value is not None
    return stored(file.codec.decode(RecordKind.SESSION, session.id.encode(), 0, value))


def entry_of(storage: FileSystemSessionStorage, session: Session) -> datetime:
    """When the index says that the session is due."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=stored_now(storage, session).position)


def forget_sessions_of_users(storage: FileSystemSessionStorage) -> None:
    file = storage._file
    assert file is not None
    with file.environment.begin(write=True) as transaction:
        transaction.drop(file.tables.users, delete=False)


def modes(path: Path) -> dict[str, int]:
    return {".": path.stat().st_mode & 0o777} | {file.name: file.stat().st_mode & 0o777 for file in path.iterdir()}
