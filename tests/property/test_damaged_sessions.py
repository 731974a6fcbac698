"""Whatever is damaged in the file of sessions: nothing but that record suffers, and it can be put aside."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from roomkey.backends.lmdb import FileSystemSessionStorage, FileSystemSettings
from roomkey.backends.lmdb.file import Tables
from roomkey.domain.policy import SessionPolicy
from roomkey.domain.session import Activated, Deleted, Invalidated, Session, SessionFilter, SessionId, Suspended
from roomkey.domain.token_uses import Place, TokenUse
from roomkey.errors import RoomkeyError
from roomkey.ports import CHECKSUMMED_RECORDS, PLAIN_RECORDS, Page, RecordCodec
from roomkey.testing.storage.suite import MINUTE, NOON, ROOMY, change, disagreements, everything, fact, issue, store
from tests.support.damaged_rows import Damage, damages, inflict
from tests.support.effort import examples
from tests.support.lmdb_file import EARLIER, index_faults

SETTINGS = FileSystemSettings(durable=False, map_size=4 * 1024 * 1024)
CODECS = {"checksums": CHECKSUMMED_RECORDS, "plain": PLAIN_RECORDS}
FAILURES = {"storage_change_failed", "storage_writer_failed", "storage_write_failed"}
USERS = ("alice", "bob", "carol")


class House(NamedTuple):
    """A directory with sessions of all kinds, and what they are."""

    path: Path
    codec: RecordCodec
    sessions: dict[SessionId, Session]


@pytest.fixture(scope="module", params=CODECS)
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> House:
    codec = CODECS[request.param]
    path = tmp_path_factory.mktemp("house") / "sessions"
    return House(path, codec, asyncio.run(furnish(path, codec)))


async def furnish(path: Path, codec: RecordCodec) -> dict[SessionId, Session]:
    async with FileSystemSessionStorage(path, SETTINGS, codec=codec) as storage:
        for user in USERS:
            await store(storage, user)
            await change(storage, await store(storage, user, active=True), Suspended, NOON)
            await change(storage, await store(storage, user, active=True), Invalidated, NOON)
        await storage.revoke_user("bob", NOON, actor="x", reason=None, except_session=None)
        for user in USERS:
            await store(storage, user, NOON + MINUTE, active=True)
        await storage.purge_events(NOON, fence=3)
        assert await disagreements(storage) == []
        return {session.id: session for session in await everything(storage)}


@contextmanager
def a_copy(house: House, damage: Damage) -> Generator[tuple[Path, set[SessionId]]]:
    """The directory with the damage, and the sessions that have nothing to do with it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "sessions"
        shutil.copytree(house.path, path)
        touched = inflict(path, Tables._fields, damage)
        others = {
            id
            for id, session in house.sessions.items()
            if not any(id.encode() in key or session.user_id.encode() in key for key in touched)
        }
        yield path, others


def opened(house: House, path: Path) -> FileSystemSessionStorage:
    return FileSystemSessionStorage(path, SETTINGS, codec=house.codec)


def everything_there_is(
    storage: FileSystemSessionStorage, sessions: dict[SessionId, Session]
) -> list[Callable[[], Awaitable[object]]]:
    """Every command that there is, of every user and every session."""
    full = SessionPolicy(cap=2)
    use = TokenUse(Place("192.0.2.1", None), False, NOON, NOON)
    kept = next(iter(sessions))
    later = NOON + timedelta(days=3)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: storage.list(SessionFilter(), Page()),
        lambda: storage.count(SessionFilter()),
        lambda: storage.count(SessionFilter(created_before=later)),
        lambda: storage.overdue(later, 100),
        lambda: storage.ended_before(later, 100),
        lambda: storage.statistics(NOON),
        storage.heads,
        lambda: storage.get_many([*sessions]),
        *((lambda partition=partition: storage.events(partition)) for partition in range(256)),
        storage.ping,
    ]
    for each in sessions:
        calls += [
            lambda each=each: storage.get(each),
            lambda each=each: storage.get_with_secret(each),
            lambda each=each: storage.touch(each, NOON + 2 * MINUTE),
            lambda each=each: storage.note_use(each, use, generation=0, window=MINUTE),
        ]
    for user in USERS:
        calls += [
            lambda user=user: storage.list(SessionFilter(user_id=user), Page()),
            lambda user=user: storage.create([issue(user)], ROOMY, NOON),
            lambda user=user: storage.create([issue(user)], full, NOON + MINUTE),
        ]
    for session in sessions.values():
        calls += [
            lambda session=session: storage.update_many([(session, fact(session, Activated, NOON))]),
            lambda session=session: storage.delete(fact(session, Deleted, NOON)),
        ]
    calls += [
        lambda: storage.purge_events(NOON + timedelta(seconds=1)),
        lambda: storage.purge_events(later, fence=4),
        storage.damaged,
    ]
    for user in USERS:
        calls.append(lambda user=user: storage.revoke_user(user, later, actor="x", reason=None, except_session=kept))
    return calls


@settings(max_examples=examples(100))
@given(damage=damages([name for name in Tables._fields if name != "aside"]))
def test_every_command_goes_on(house: House, damage: Damage) -> None:
    async def main() -> None:
        with a_copy(house, damage) as (path, others):
            async with opened(house, path) as storage:
                found = {id: await storage.get(id) for id in others}
                listed = {session.id for session in await everything(storage)}
                assert found == {id: house.sessions[id] for id in others}
                assert others <= listed

                for call in everything_there_is(storage, house.sessions):
                    try:
                        await call()
                    except RoomkeyError as error:
                        assert error.__cause__ is None, error  # noqa: PT017

    with capture_logs() as logs:
        asyncio.run(main())

    assert [line for line in logs if line["event"] in FAILURES] == []
    named = [(line["kind"], line["key"]) for line in logs if line["event"] == "storage_record_damaged"]
    assert len(named) == len(set(named))


@settings(max_examples=examples(50))
@given(damage=damages([name for name in Tables._fields if name != "aside"]))
def test_nobody_who_was_revoked_comes_back(house: House, damage: Damage) -> None:
    if house.codec is PLAIN_RECORDS:
        return  # without a checksum an epoch is as good as any other

    async def main() -> None:
        with a_copy(house, damage) as (path, _):
            async with opened(house, path) as storage:
                for id, session in house.sessions.items():
                    try:
                        found = await storage.get(id)
                    except RoomkeyError:
                        continue
                    if not session.state.is_live:
                        assert found is None or not found.state.is_live

    with capture_logs():
        asyncio.run(main())


@settings(max_examples=examples(80))
@given(damage=damages([name for name in Tables._fields if name not in ("aside", "meta")]), first=st.booleans())
def test_what_is_named_can_be_set_aside_and_the_rest_is_sound(house: House, damage: Damage, first: bool) -> None:  # noqa: FBT001
    async def main() -> None:
        with a_copy(house, damage) as (path, others):
            async with opened(house, path) as storage:
                if first:
                    await store(storage, "dora", NOON + 60 * MINUTE)
                damaged = await storage.damaged()
                if any(each.is_newer for each in damaged):
                    return  # without checksums a flipped version is taken for a newer one, which stays
                done = await storage.set_aside(damaged)

                assert done == len(damaged)
                assert await storage.damaged() == []
                assert storage.degradations() == {}
                assert {id: await storage.get(id) for id in others} == {id: house.sessions[id] for id in others}
                # By number, not by state: whoever has a new epoch is seen as invalidated before that is stored.
                assert await storage.count(SessionFilter()) == len(await everything(storage))
            faults = index_faults(path, house.codec)
            if house.codec is PLAIN_RECORDS:  # without a checksum a deadline is as good as any other
                faults = [fault for fault in faults if not fault.endswith(EARLIER)]
            assert faults == []

    with capture_logs():
        asyncio.run(main())
