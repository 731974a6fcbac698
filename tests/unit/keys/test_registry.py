"""API keys that are stored: found without asking storage, the same on every node, and never kept in the clear."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from msgspec.structs import replace

from roomkey.backends.memory.objects import MemoryObjectStore
from roomkey.domain.access import Role
from roomkey.errors import (
    Conflict,
    InvalidInput,
    KeyConfigured,
    KeyExists,
    KeyNotFound,
    KeyRefused,
    Storage,
    TooManyKeys,
)
from roomkey.keys import MAX_KEYS, REVOKED_WITHIN, KeyRegistry
from roomkey.keys.records import GENERATION, KEY_PREFIX, SPACE, USE_PREFIX, decode, encode
from roomkey.security.apikeys import ApiKey, ApiKeys, mint
from roomkey.security.narrowing import Narrowing, Scope
from roomkey.testing.clock import ManualClock

NOON: Final = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Watched:
    """An ``ObjectStore`` that counts what it is asked, can be away, and lets a test step in."""

    def __init__(self, store: MemoryObjectStore) -> None:
        self._store = store
        self.asked: list[str] = []
        self.is_away = False
        self.pause: asyncio.Event | None = None
        self.before_commit: Callable[[], None] | None = None

    def __getattr__(self, name: str) -> Any:
        async def call(*given: Any, **named: Any) -> Any:
            self.asked.append(name)
            if self.is_away:
                raise Storage("away")
            step, self.before_commit = self.before_commit, None if name == "commit" else self.before_commit
            if name == "commit" and step is not None:
                step()
            found = await getattr(self._store, name)(*given, **named)
            if self.pause is not None and name == "list":
                await self.pause.wait()
            return found

        return call


class Node:
    """A node on ``store`` with a clock of its own, in seconds."""

    def __init__(self, store: MemoryObjectStore, clock: ManualClock, *configured: ApiKey) -> None:
        self.seconds = 0.0
        self.objects = Watched(store)
        self.registry = KeyRegistry(ApiKeys(configured), self.objects, clock, now=lambda: self.seconds)  # type: ignore[arg-type]

    async def opens(self, secret: str) -> bool:
        try:
            await self.registry.find(secret)
        except KeyRefused:
            return False
        return True


def nodes(count: int = 1, *configured: ApiKey) -> tuple[MemoryObjectStore, ManualClock, list[Node]]:
    store, clock = MemoryObjectStore(), ManualClock(NOON)
    return store, clock, [Node(store, clock, *configured) for _ in range(count)]


async def made(node: Node, name: str = "backend", **details: Any) -> str:
    return (await node.registry.create(name, Role.SERVICE, actor="key:operator", **details)).secret


async def test_a_stored_key_is_what_it_was_made_as() -> None:
    _, _, (node,) = nodes()
    only = Narrowing(scopes=(Scope.SESSIONS_READ,), documents=("notes/**",), users=("tenant-1:",))

    minted = await node.registry.create("backend", Role.SUPPORT, only=only, actor="key:operator")
    key = await node.registry.find(minted.secret)
    listed = await node.registry.get("backend")

    assert (key.name, key.role, key.only, key.actor) == ("backend", Role.SUPPORT, only, "key:backend")
    assert (listed.created_at, listed.created_by, listed.last_used_at) == (NOON, "key:operator", NOON)
    assert minted.secret not in repr(minted)


async def test_no_secret_is_stored() -> None:
    store, _, (node,) = nodes()
    secrets = [await made(node), (await node.registry.rotate("backend", actor="x")).secret]
    everything = b"".join(entry.value for entry in await store.list(SPACE, limit=1000))

    assert all(secret.encode() not in everything for secret in secrets)
    assert all(secret.removeprefix("rkey_").encode() not in everything for secret in secrets)


async def test_what_is_known_is_answered_without_asking_storage() -> None:
    _, _, (node,) = nodes()
    secret = await made(node)
    node.objects.asked.clear()

    assert [await node.opens(secret) for _ in range(100)] == [True] * 100
    assert node.objects.asked == []


async def test_ten_thousand_wrong_keys_cost_no_more_reads_than_one() -> None:
    _, _, (node,) = nodes()

    opened = [await node.opens(f"rkey_{number}") for number in range(10_000)]

    assert not any(opened)
    assert node.objects.asked == ["get", "list"]


async def test_those_who_come_while_it_is_read_wait_for_the_same() -> None:
    _, _, (node,) = nodes()
    node.objects.pause = asyncio.Event()

    asking = [asyncio.ensure_future(node.opens(f"rkey_{number}")) for number in range(50)]
    await asyncio.sleep(0)
    asking[0].cancel()  # the one who reads
    await asyncio.sleep(0)
    node.objects.pause.set()
    answers = await asyncio.gather(*asking[1:])

    assert not any(answers)
    assert node.objects.asked.count("list") == 2  # once more for those whose reader went away


async def test_a_key_is_revoked_on_this_node_at_once_and_on_others_within_a_second() -> None:
    _, _, (here, there) = nodes(2)
    secret = await made(here)
    assert await there.opens(secret)

    await here.registry.revoke("backend")
    at_once = await here.opens(secret), await there.opens(secret)
    there.seconds += REVOKED_WITHIN.total_seconds()
    later = await there.opens(secret)

    assert at_once == (False, True)
    assert later is False


async def test_a_node_whose_table_is_kept_fresh_knows_without_being_asked() -> None:
    _, _, (here, there) = nodes(2)
    secret = await made(here)
    assert await there.opens(secret)
    await here.registry.revoke("backend")
    there.seconds += 0.5

    await there.registry.refresh()
    there.objects.asked.clear()

    assert await there.opens(secret) is False
    assert there.objects.asked == []


async def test_as_long_as_nothing_changes_one_small_object_is_read() -> None:
    _, _, (node,) = nodes()
    secret = await made(node)
    await node.opens(secret)
    node.seconds += 0.5
    node.objects.asked.clear()

    await node.registry.refresh()

    assert node.objects.asked == ["get"]


async def test_a_node_that_nobody_asks_reads_nothing() -> None:
    _, _, (node,) = nodes()

    await node.registry.refresh()

    assert node.objects.asked == []


async def test_while_storage_is_away_stored_keys_open_nothing_and_those_of_the_configuration_go_on() -> None:
    secret, hashed = mint()
    _, _, (node,) = nodes(1, ApiKey("operator", Role.ADMIN, hashed))
    stored = await made(node)
    node.seconds += REVOKED_WITHIN.total_seconds()
    node.objects.is_away = True
    node.objects.asked.clear()

    for _ in range(100):
        with pytest.raises(Storage):
            await node.registry.find(stored)

    assert node.objects.asked == ["get"]  # who comes a moment later is told without asking again
    assert (await node.registry.find(secret)).name == "operator"
    node.objects.is_away = False
    node.seconds += 1
    assert await node.opens(stored)


async def test_a_read_that_began_before_a_change_does_not_undo_it() -> None:
    _, _, (other, node) = nodes(2)
    secret = await made(other)
    pause = node.objects.pause = asyncio.Event()
    asking = asyncio.ensure_future(node.opens(secret))
    await asyncio.sleep(0)
    node.objects.pause = None

    await node.registry.revoke("backend")
    pause.set()
    await asking

    assert await node.opens(secret) is False


async def test_a_slow_read_does_not_undo_what_a_later_one_has_seen() -> None:
    _, _, (other, node) = nodes(2)
    secret = await made(other)
    pause = node.objects.pause = asyncio.Event()
    asking = asyncio.ensure_future(node.opens(secret))
    await asyncio.sleep(0)
    node.objects.pause = None
    await other.registry.revoke("backend")
    node.seconds += 0.1

    await node.registry.list()
    pause.set()
    await asking

    assert await node.opens(secret) is False


async def test_after_a_rotation_both_secrets_open_until_the_overlap_is_over() -> None:
    _, clock, (node,) = nodes()
    old = await made(node)

    new = (await node.registry.rotate("backend", overlap=timedelta(hours=1), actor="key:operator")).secret
    during = await node.opens(old), await node.opens(new)
    clock.advance(hours=1)
    after = await node.opens(old), await node.opens(new)

    assert (during, after) == ((True, True), (False, True))


async def test_two_rotations_leave_two_secrets() -> None:
    _, _, (node,) = nodes()
    secrets = [await made(node)]
    secrets += [(await node.registry.rotate("backend", actor="x")).secret for _ in range(2)]

    assert [await node.opens(secret) for secret in secrets] == [False, True, True]


async def test_without_an_overlap_the_former_secret_is_dead_at_once() -> None:
    _, _, (node,) = nodes()
    old = await made(node)

    await node.registry.rotate("backend", overlap=timedelta(), actor="x")

    assert await node.opens(old) is False


@pytest.mark.parametrize("overlap", [timedelta(seconds=-1), timedelta(days=30, seconds=1)])
async def test_an_overlap_has_a_limit(overlap: timedelta) -> None:
    _, _, (node,) = nodes()
    secret = await made(node)

    with pytest.raises(InvalidInput):
        await node.registry.rotate("backend", overlap=overlap, actor="x")

    assert await node.opens(secret)


async def test_a_key_ends_with_its_lifetime_with_both_secrets() -> None:
    _, clock, (node,) = nodes()
    old = await made(node, lifetime=timedelta(minutes=1))
    new = (await node.registry.rotate("backend", actor="x")).secret

    clock.advance(seconds=59)
    before = await node.opens(old), await node.opens(new)
    clock.advance(seconds=1)
    with pytest.raises(KeyRefused) as refused:
        await node.registry.find(new)

    assert before == (True, True)
    assert refused.value.key == "backend"
    assert not await node.opens(old)


async def test_names_are_given_once_and_those_of_the_configuration_are_taken() -> None:
    _, hashed = mint()
    _, _, (node,) = nodes(1, ApiKey("operator", Role.ADMIN, hashed))
    await made(node)

    for name in ("backend", "operator"):
        with pytest.raises(KeyExists):
            await made(node, name)
    for command in (node.registry.revoke("operator"), node.registry.rotate("operator", actor="x")):
        with pytest.raises(KeyConfigured):
            await command
    for command in (node.registry.revoke("none"), node.registry.rotate("none", actor="x"), node.registry.get("none")):
        with pytest.raises(KeyNotFound):
            await command
    assert [key.name for key in await node.registry.list()] == ["operator", "backend"]


@pytest.mark.parametrize("name", ["", "x" * 65, "a/b", "a b", ".a", "é", "a\n"])
async def test_a_name_is_fit_for_paths_and_logs(name: str) -> None:
    _, _, (node,) = nodes()

    with pytest.raises(InvalidInput):
        await made(node, name)


async def test_there_are_only_so_many_keys() -> None:
    store, _, (node,) = nodes()
    await made(node, "first")
    record = await store.get(SPACE, KEY_PREFIX + "first")
    assert record is not None
    one = decode(record.value)
    others = {f"{KEY_PREFIX}{number}": encode(replace(one, name=str(number))) for number in range(MAX_KEYS - 1)}
    await store.commit(SPACE, {**others, GENERATION: b""})

    with pytest.raises(TooManyKeys):
        await made(node)
    await node.registry.revoke("first")
    await made(node)


async def test_whoever_was_overtaken_decides_again() -> None:
    _, _, (here, there) = nodes(2)
    secrets = await asyncio.gather(made(here, "a"), made(there, "b"))
    with pytest.raises(KeyExists):
        await asyncio.gather(made(here, "c"), made(there, "c"))

    here.seconds = there.seconds = 10.0
    assert [await node.opens(secret) for node in (here, there) for secret in secrets] == [True] * 4


async def test_a_change_that_is_overtaken_again_and_again_is_given_up() -> None:
    store, _, (node,) = nodes()

    def overtake() -> None:
        node.objects.before_commit = overtake
        _change(store)

    node.objects.before_commit = overtake
    with pytest.raises(Conflict):
        await made(node)


def _change(store: MemoryObjectStore) -> None:
    with suppress(StopIteration):
        store.commit(SPACE, {GENERATION: b""}).send(None)  # it does not suspend


async def test_last_uses_are_written_down_together_and_the_latest_counts() -> None:
    _, clock, (here, there) = nodes(2)
    secret, other = await made(here), await made(here, "other")
    await here.opens(secret)
    await here.opens(other)
    later = clock.advance(minutes=1)
    await there.opens(secret)
    await there.registry.write_uses()
    here.objects.asked.clear()

    await here.registry.write_uses()
    commits = here.objects.asked.count("commit")
    here.objects.asked.clear()
    await here.registry.write_uses()

    assert commits == 1
    assert here.objects.asked == []
    assert (await here.registry.get("backend")).last_used_at == later
    assert {key.name: key.last_used_at for key in await there.registry.list()} == {"backend": later, "other": NOON}


async def test_nothing_stays_of_a_key_that_is_revoked() -> None:
    store, _, (here, there) = nodes(2)
    secret = await made(here)
    await there.opens(secret)
    await there.registry.write_uses()
    await there.opens(secret)

    await here.registry.revoke("backend")
    await there.registry.write_uses()
    there.objects.asked.clear()
    await there.registry.write_uses()

    assert [entry.name for entry in await store.list(SPACE, limit=1000)] == [GENERATION]
    assert there.objects.asked == []  # nor is it remembered


async def test_last_uses_are_written_down_when_a_node_stops() -> None:
    store, _, (node,) = nodes()
    secret = await made(node)

    async with node.registry.at_work():
        await node.opens(secret)

    assert await store.get(SPACE, USE_PREFIX + "backend") is not None


async def test_a_key_that_cannot_be_read_opens_nothing_and_harms_no_other() -> None:
    store, _, (node,) = nodes()
    broken, whole = await made(node, "broken"), await made(node, "whole")
    await store.commit(SPACE, {KEY_PREFIX + "broken": b'{"name":', GENERATION: b""})
    node.seconds += 1

    assert (await node.opens(broken), await node.opens(whole)) == (False, True)


async def test_a_record_that_was_put_under_another_name_opens_nothing() -> None:
    store, _, (node,) = nodes()
    secret = await made(node)
    record = await store.get(SPACE, KEY_PREFIX + "backend")
    assert record is not None
    await store.commit(SPACE, {KEY_PREFIX + "backend": None, KEY_PREFIX + "other": record.value, GENERATION: b""})
    node.seconds += 1

    assert not await node.opens(secret)
