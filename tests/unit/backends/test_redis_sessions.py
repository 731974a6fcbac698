"""Sessions in Redis: what is written is done once, whatever becomes of the answer, and costs as little as it should."""

# pyright: reportPrivateUsage=false

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import pytest
from msgspec.structs import replace

from roomkey.backends.memory import MemorySessionStorage
from roomkey.backends.recovery import RecoverySettings
from roomkey.backends.redis import RedisSessionStorage, RedisSettings
from roomkey.backends.redis.layout import Header, id_key, id_of, user_prefix
from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import RedisServer
from roomkey.backends.session_changes import Change
from roomkey.domain.lifecycle import apply
from roomkey.domain.policy import SessionPolicy
from roomkey.domain.session import (
    Activated,
    Deleted,
    Invalidated,
    Session,
    SessionFilter,
    SessionId,
    SessionState,
    Suspended,
    ViolationRecorded,
    partition_of,
)
from roomkey.domain.token_uses import Place, TokenUse
from roomkey.errors import Conflict, OutcomeUnknown, Serialization, Storage
from roomkey.ports import EpochItem, EventItem, Gone, LogStart, PartitionItem
from roomkey.security.tokens import mint_id
from roomkey.testing.storage.suite import (
    MINUTE,
    NOON,
    ROOMY,
    SECOND,
    change,
    disagreements,
    everything,
    fact,
    found,
    history,
    issue,
    store,
    whole_log,
)
from tests.support.cutting_proxy import Cut, CuttingProxy, cutting_proxy
from tests.support.store_servers import RedisProcess
from tests.support.store_servers.fixtures import with_prefix

QUICK: Final = RecoverySettings(timeout=2.0, first_pause=0.001, longest_pause=0.01)
ONCE: Final = replace(QUICK, tries=1)
PATIENT: Final = replace(QUICK, tries=200, longest_pause=0.05, breaks_after=1000)
CAPPED: Final = SessionPolicy(cap=2)

Write = Callable[[RedisSessionStorage, Session], Awaitable[object]]


@asynccontextmanager
async def behind_a_proxy(
    server: RedisProcess, recovery: RecoverySettings = QUICK
) -> AsyncGenerator[tuple[RedisSessionStorage, CuttingProxy]]:
    async with cutting_proxy(server.port) as proxy:
        url = with_prefix(proxy.through(server.url))
        async with RedisSessionStorage(url, RedisSettings(recovery=recovery)) as storage:
            yield storage, proxy


async def create(storage: RedisSessionStorage, session: Session) -> object:
    return await storage.create([issue(session.user_id, NOON + SECOND)], ROOMY, NOON + SECOND)


async def create_and_evict(storage: RedisSessionStorage, session: Session) -> object:
    return await storage.create([issue(session.user_id, NOON + SECOND)], CAPPED, NOON + SECOND)


async def create_for_many(storage: RedisSessionStorage, session: Session) -> object:
    return await storage.create([issue(session.user_id), issue("bob"), issue("carol")], ROOMY, NOON)


async def update(storage: RedisSessionStorage, session: Session) -> object:
    return await change(storage, session, Suspended, NOON + SECOND)


async def update_many(storage: RedisSessionStorage, session: Session) -> object:
    event = fact(session, Invalidated, NOON + SECOND)
    assert await storage.update_many([(apply(session, event), event)]) == [True]
    return None


async def delete(storage: RedisSessionStorage, session: Session) -> object:
    assert await storage.delete(fact(session, Deleted, NOON + SECOND))
    return None


async def revoke(storage: RedisSessionStorage, session: Session) -> object:
    done = await storage.revoke_user(session.user_id, NOON, actor="test", reason=None, except_session=None)
    assert done.epoch == 1
    assert len(done.events) == 3
    return done


async def touch(storage: RedisSessionStorage, session: Session) -> object:
    return await storage.touch(session.id, NOON + MINUTE)


async def note_use(storage: RedisSessionStorage, session: Session) -> object:
    use = TokenUse(Place("Firefox", None), is_current=True, first_at=NOON, last_at=NOON)
    return await storage.note_use(session.id, use, generation=0, window=MINUTE)


WRITES: Final[dict[str, tuple[Write, str, int]]] = {
    "create": (create, "sessions/create", 1),
    "evict": (create_and_evict, "sessions/create", 2),
    "create for many": (create_for_many, "sessions/create", 3),
    "update": (update, "sessions/update", 1),
    "update many": (update_many, "sessions/update", 1),
    "delete": (delete, "sessions/delete", 1),
    "revoke": (revoke, "sessions/revoke", 3),
    "touch": (touch, "sessions/touch", 0),
    "note use": (note_use, "sessions/swap", 0),
}
"""Each kind of write, the script that carries it out, and how many events it has."""

COMMITS: Final = {"evict": 2}
"""Which run of its script writes: of one that has to make room the first only says so."""


@pytest.mark.parametrize("where", Cut)
@pytest.mark.parametrize("kind", WRITES)
async def test_a_write_whose_connection_is_cut_is_done_once(redis_server: RedisProcess, kind: str, where: Cut) -> None:
    write, script, events = WRITES[kind]
    async with behind_a_proxy(redis_server) as (storage, proxy):
        await store(storage, active=True)
        session = await store(storage, active=True)
        before = len(await whole_log(storage))
        await learn_scripts(storage)

        proxy.cut(where, request=COMMITS.get(kind, 1), containing=Script(script).digest)
        await write(storage, session)

        assert proxy.cuts == 1
        assert len(await whole_log(storage)) == before + events
        assert await disagreements(storage) == []


async def learn_scripts(storage: RedisSessionStorage) -> None:
    """So that the first request that has the digest of a script is the write itself."""
    for name in ("create", "update", "delete", "revoke", "touch", "swap"):
        for node in storage._server._opened().nodes():
            await node.load(Script(f"sessions/{name}"))


@pytest.mark.parametrize("kind", [kind for kind, (_, _, events) in WRITES.items() if events])
async def test_a_write_that_cannot_be_repeated_any_more_says_that_its_outcome_is_unknown(
    redis_server: RedisProcess, kind: str
) -> None:
    write, script, events = WRITES[kind]
    async with behind_a_proxy(redis_server, ONCE) as (storage, proxy):
        await store(storage, active=True)
        session = await store(storage, active=True)
        before = len(await whole_log(storage))
        await learn_scripts(storage)

        proxy.cut(Cut.BEFORE_ANSWER, request=COMMITS.get(kind, 1), containing=Script(script).digest)
        proxy.refuses = True
        with pytest.raises(OutcomeUnknown):
            await write(storage, session)
        proxy.refuses = False

        assert len(await whole_log(storage)) == before + events
        assert await disagreements(storage) == []


async def test_a_repeat_that_comes_after_the_change_of_another_is_done_once(redis_server: RedisProcess) -> None:
    async with (
        behind_a_proxy(redis_server, replace(QUICK, tries=200, longest_pause=0.05, breaks_after=1000)) as (
            storage,
            proxy,
        ),
        RedisSessionStorage(proxy_free(storage, redis_server, proxy)) as other,
    ):
        session = await store(storage, active=True)
        await learn_scripts(storage)

        proxy.cut(Cut.BEFORE_ANSWER, containing=Script("sessions/update").digest)
        proxy.refuses = True
        task = asyncio.ensure_future(change(storage, session, ViolationRecorded, NOON))
        await proxy.wait_cut()
        await change(other, await found(other, session.id), Suspended, NOON)
        proxy.refuses = False
        await task

        assert [event.tag() for event in await history(other, session.id)] == [
            "created",
            "activated",
            "violation_recorded",
            "suspended",
        ]
        assert await disagreements(other) == []


def proxy_free(storage: RedisSessionStorage, server: RedisProcess, proxy: CuttingProxy) -> str:
    """The URL of the same sessions without the proxy."""
    del proxy
    return f"{server.url}?prefix={storage._server.prefix.decode()}"


async def test_the_same_change_by_two_callers_has_one_winner(redis_url: str) -> None:
    async with RedisSessionStorage(redis_url) as storage:
        session = await store(storage)
        await change(storage, session, Activated, NOON)

        with pytest.raises(Conflict):
            await change(storage, session, Activated, NOON)


# --- what happens between reading and writing ---------------------------------------------------------


async def test_a_session_that_is_revoked_after_it_was_read_is_not_changed(redis_url: str) -> None:
    async with RedisSessionStorage(redis_url) as storage:
        session = await store(storage, active=True)
        read = await storage._writes._found(session.id)
        assert read is not None
        await forget_index(storage)
        await storage.revoke_user("alice", NOON, actor="test", reason=None, except_session=None)

        outcome = await storage._writes.change(read, Change.by(read.held, fact(session, Suspended, NOON)))

        assert outcome == -1
        assert (await found(storage, session.id)).state is SessionState.INVALIDATED


async def test_a_session_that_is_seen_after_it_was_read_stays_seen(redis_url: str) -> None:
    async with RedisSessionStorage(redis_url) as storage:
        session = await store(storage, active=True)
        read = await storage._writes._found(session.id)
        assert read is not None
        await storage.touch(session.id, NOON + MINUTE)

        await storage._writes.change(read, Change.by(read.held, fact(session, ViolationRecorded, NOON)))

        assert (await found(storage, session.id)).last_seen_at == NOON + MINUTE
        assert await disagreements(storage) == []


async def test_the_dead_are_not_seen_any_more(redis_url: str) -> None:
    async with RedisSessionStorage(redis_url) as storage:
        session = await store(storage, active=True)
        await forget_index(storage)
        await storage.revoke_user("alice", NOON, actor="test", reason=None, except_session=None)

        await storage.touch(session.id, NOON + MINUTE)

        assert (await found(storage, session.id)).last_seen_at == NOON


async def test_uses_that_are_noted_at_once_are_all_kept(redis_url: str) -> None:
    uses = [TokenUse(Place(f"Browser {n}", None), is_current=True, first_at=NOON, last_at=NOON) for n in range(4)]
    async with RedisSessionStorage(redis_url) as storage:
        session = await store(storage, active=True)

        await asyncio.gather(*(storage.note_use(session.id, use, generation=0, window=MINUTE) for use in uses))

        kept = await storage.get_with_secret(session.id)
        assert kept is not None
        assert set(kept[1].uses) == set(uses)


async def forget_index(storage: RedisSessionStorage) -> None:
    _, live, *_ = storage._partitions[partition_of("alice")].all
    await storage._server.ask("DEL", live)


# --- revoking -----------------------------------------------------------------------------------------


async def test_a_user_with_thousands_of_sessions_is_revoked_in_steps(redis_url: str) -> None:
    async with RedisSessionStorage(redis_url) as storage:
        new = [issue(at=NOON + number * SECOND) for number in range(1000)]
        await storage.create(new, ROOMY, NOON)
        kept = new[500].session

        done = await storage.revoke_user("alice", NOON, actor="test", reason=None, except_session=kept.id)

        assert len(done.events) == 1000
        assert await storage.count(SessionFilter(user_id="alice", state=SessionState.PENDING)) == 1
        assert await storage.get(kept.id) == kept
        assert await disagreements(storage) == []


async def test_a_revocation_waits_for_replicas_if_it_is_told_to(redis_url: str) -> None:
    settings = RedisSettings(wait_replicas=1, wait_seconds=0.01)
    async with RedisSessionStorage(redis_url, settings) as storage:
        session = await store(storage, active=True)

        with pytest.raises(OutcomeUnknown):
            await storage.revoke_user("alice", NOON, actor="test", reason=None, except_session=None)

        assert (await found(storage, session.id)).state is SessionState.INVALIDATED


async def test_a_revocation_returns_when_a_replica_has_it(sentinel_url: str) -> None:
    async with RedisSessionStorage(sentinel_url, RedisSettings(wait_replicas=1, wait_seconds=5)) as storage:
        await store(storage, active=True)

        done = await storage.revoke_user("alice", NOON, actor="test", reason=None, except_session=None)

        assert len(done.events) == 2


# --- full, foreign ------------------------------------------------------------------------------------


async def test_when_memory_is_full_nothing_is_half_done_and_deleting_goes_on(
    redis_server: RedisProcess, redis_url: str
) -> None:
    async with RedisSessionStorage(redis_url, RedisSettings(recovery=ONCE)) as storage:
        session = await store(storage, active=True)
        redis_server.ask("CONFIG", "SET", "maxmemory", 1)
        try:
            with pytest.raises(Storage, match="full"):
                await store(storage, "bob")
            with pytest.raises(Storage, match="full"):
                await change(storage, session, Suspended, NOON)
            with pytest.raises(Storage, match="full"):
                await storage.revoke_user("alice", NOON, actor="test", reason=None, except_session=None)
            assert await storage.delete(fact(session, Deleted, NOON))
        finally:
            redis_server.ask("CONFIG", "SET", "maxmemory", 0)

        assert [event.tag() for event in await whole_log(storage)] == ["created", "activated", "deleted"]
        assert await disagreements(storage) == []


@pytest.mark.parametrize("name", ["e", "l", "o", "d", "n", "m", "x"])
async def test_a_foreign_key_under_one_of_our_names_refuses_writes_whole(redis_url: str, name: str) -> None:
    async with RedisSessionStorage(redis_url) as storage:
        session = await store(storage, active=True)
        partition = storage._partitions[partition_of("alice")]
        key = next(key for key in partition.all if key.endswith(b"}" + name.encode()))
        await storage._server.ask("DEL", key)
        await storage._server.ask("SET", key, "foreign")
        before = await storage._server.ask("HGETALL", storage._writes._single(session.id)[-1])

        with pytest.raises(Storage):
            await change(storage, session, Invalidated, NOON)
        other = await store(storage, "bob")

        assert await storage._server.ask("HGETALL", storage._writes._single(session.id)[-1]) == before
        assert await storage.get(other.id) == other


@pytest.mark.parametrize("place", range(24))
async def test_a_bit_that_flips_in_a_header_is_noticed(redis_url: str, place: int) -> None:
    async with RedisSessionStorage(redis_url) as storage:
        session = await store(storage, active=True)
        key = id_key(session.id)
        assert key is not None
        shelf = storage._writes._single(session.id)[-1]
        value = bytearray(await storage._server.ask("HGET", shelf, key))
        value[place] ^= 0x10
        await storage._server.ask("HSET", shelf, key, bytes(value))

        with pytest.raises(Serialization):
            await storage.get(session.id)
        with pytest.raises(Serialization):
            await change(storage, session, Suspended, NOON)


# --- layout -------------------------------------------------------------------------------------------


def test_ids_sort_alike_in_either_form() -> None:
    ids = sorted(mint_id(7) for _ in range(500))
    keys = [id_key(id) for id in ids]

    assert [id_of(7, key or b"") for key in keys] == ids
    assert keys == sorted(key for key in keys if key is not None)


@pytest.mark.parametrize("id", ["", "3a" + "z" * 26, "3a" + "i" + "a" * 25, "3a" + "2" * 26, "3A" + "a" * 26])
def test_what_was_never_minted_has_no_key(id: str) -> None:
    assert id_key(SessionId(id)) is None


def test_what_a_user_s_places_begin_with_begins_nobody_else_s() -> None:
    users = ["a", "aa", "a\0", "b", "x" * 256]
    prefixes = [user_prefix(user) or b"" for user in users]

    assert not [1 for one in prefixes for other in prefixes if one is not other and other.startswith(one)]
    assert user_prefix("x" * 257) is None
    assert user_prefix("") is None


def test_a_header_that_is_cut_short_is_damaged() -> None:
    with pytest.raises(Serialization):
        Header.of(b"short")


# --- costs --------------------------------------------------------------------------------------------


async def requests_of(server: RedisServer, call: Awaitable[Any]) -> int:
    """How many writes to the server the call takes: one is a round trip."""
    (node,) = server._opened().nodes()
    connection = node.connection
    assert connection is not None
    writes: list[int] = []
    write = connection._write
    connection._write = lambda: (writes.append(1), write())[1]  # pyright: ignore[reportAttributeAccessIssue]
    await call
    connection._write = write
    return len(writes)


async def test_reading_is_one_round_trip_and_changing_two_also_for_many(redis_url: str) -> None:
    async with RedisSessionStorage(redis_url) as storage:
        new = [issue(f"user-{number}") for number in range(100)]
        await storage.create(new, ROOMY, NOON)
        ids = [each.session.id for each in new]
        await storage.get(ids[0])
        events = [fact(each.session, Activated, NOON) for each in new]
        changes = [(apply(each.session, event), event) for each, event in zip(new, events, strict=True)]
        await storage.update(*changes.pop())

        assert await requests_of(storage._server, storage.get(ids[0])) == 1
        assert await requests_of(storage._server, storage.get_many(ids)) == 1
        assert await requests_of(storage._server, storage.create([issue()], ROOMY, NOON)) == 1
        assert await requests_of(storage._server, storage.create([issue(f"u{n}") for n in range(99)], ROOMY, NOON)) == 1
        assert await requests_of(storage._server, storage.update(*changes.pop())) == 2
        assert await requests_of(storage._server, storage.update_many(changes)) == 2
        assert await requests_of(storage._server, storage.statistics(NOON)) == 1
        assert await requests_of(storage._server, storage.heads()) == 1


async def test_many_that_are_overdue_are_found_in_order_across_partitions(redis_url: str) -> None:
    async with RedisSessionStorage(redis_url) as storage:
        new = [issue(f"user-{number % 900}", NOON + number * SECOND) for number in range(3000)]
        await storage.create(new, ROOMY, NOON)

        overdue = await storage.overdue(NOON + timedelta(days=9), 2500)

        assert [session.id for session in overdue] == [each.session.id for each in new[:2500]]
        assert len(await everything(storage, limit=500)) == 3000


@pytest.mark.parametrize("where", Cut)
@pytest.mark.parametrize("script", ["place", "take_events", "take_out", "raise_epoch", "begin_log"])
async def test_what_is_taken_in_is_so_once(redis_server: RedisProcess, script: str, where: Cut) -> None:
    source = MemorySessionStorage()
    for user in ("alice", "bob"):
        await change(source, await store(source, user), Activated, NOON + SECOND)
    async with behind_a_proxy(redis_server) as (storage, proxy):
        await storage.take_in(partition_of("alice"), await items_of(source, "alice"))
        items = await items_of(source, "bob")
        proxy.cut(where, containing=Script(f"sessions/{script}").digest)

        await storage.take_in(partition_of("bob"), items)
        await storage.take_in(partition_of("bob"), items)

        assert proxy.cuts == 1
        assert await whole_log(storage) == await whole_log(source)
        assert [each.state for each in await everything(storage)] == ["invalidated"] * 2  # by the epoch
        assert await storage.count(SessionFilter()) == 2
        assert await storage.damaged() == []


async def items_of(source: MemorySessionStorage, user: str) -> list[PartitionItem]:
    partition = partition_of(user)
    (session,) = [item async for batch in source.export_sessions(partition) for item in batch]
    events = [EventItem(each.sequence, each.event) for each in await source.events(partition)]
    return [LogStart(0), session, Gone(session.session.id), session, *events, EpochItem(user, 3)]


async def test_a_newer_record_that_is_taken_in_leaves_nothing_of_the_older_one(redis_url: str) -> None:
    source = MemorySessionStorage()
    async with RedisSessionStorage(redis_url) as storage:
        session = await store(source, "bob", active=True)
        await storage.take_in(partition_of("bob"), await items_of(source, "bob"))
        await change(source, session, Invalidated, NOON + 2 * SECOND)
        items = await items_of(source, "bob")

        await storage.take_in(partition_of("bob"), [item for item in items if not isinstance(item, Gone)])

        assert await storage.count(SessionFilter()) == 1
        assert await storage.damaged() == []
        assert [each.id for each in await storage.ended_before(NOON + MINUTE, 10)] == [session.id]
