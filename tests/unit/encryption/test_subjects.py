"""What is sealed for a person can be read until that person's key is destroyed, on every node."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkey.backends.memory.objects import MemoryObjectStore
from roomkey.encryption.subjects import MAX_AGE, SPACE, SubjectErased, SubjectKey, SubjectKeys, blind_index
from roomkey.errors import Serialization
from roomkey.ports import ObjectStore, StoredObject
from roomkey.ports.objects import MAX_CHANGES, NOTHING_EXPECTED, Changes
from roomkey.testing.clock import ManualClock
from tests.support.sessions import NOON


class CountingObjects(MemoryObjectStore):
    """Objects that say how often they were asked; before each commit, others have a turn."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.commits = 0

    async def get_many(self, space: str, names: Sequence[str]) -> list[StoredObject | None]:
        self.reads += 1
        return await super().get_many(space, names)

    async def commit(self, space: str, changes: Changes, *, expected: Mapping[str, int] = NOTHING_EXPECTED) -> None:
        self.commits += 1
        await asyncio.sleep(0)
        await super().commit(space, changes, expected=expected)


class InterruptedObjects(MemoryObjectStore):
    """Objects that somebody else changes between a read and its answer."""

    then: Callable[[], Awaitable[object]] | None = None

    async def get_many(self, space: str, names: Sequence[str]) -> list[StoredObject | None]:
        found = await super().get_many(space, names)
        if self.then is not None:
            await self.then()
        return found


def keys_on(objects: ObjectStore, clock: ManualClock | None = None, *, capacity: int = 100) -> SubjectKeys:
    return SubjectKeys(objects, clock or ManualClock(NOON), blind_index(b"key"), capacity=capacity)


async def test_what_is_sealed_on_one_node_opens_on_another() -> None:
    objects = MemoryObjectStore()

    sealed = await keys_on(objects).seal("ada", b"192.0.2.1", b"record 1")

    assert b"192.0.2.1" not in sealed
    assert await keys_on(objects).open("ada", sealed, b"record 1") == b"192.0.2.1"


async def test_it_opens_neither_for_another_person_nor_at_another_place_nor_altered() -> None:
    keys = keys_on(MemoryObjectStore())
    sealed = await keys.seal("ada", b"value", b"here")
    await keys.seal("bob", b"value", b"here")

    with pytest.raises(SubjectErased):
        await keys.open("bob", sealed, b"here")
    with pytest.raises(Serialization):
        await keys.open("ada", sealed, b"there")
    for bit in range(64, 8 * len(sealed)):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Serialization):
            await keys.open("ada", bytes(flipped), b"here")
    for size in range(len(sealed)):
        with pytest.raises((Serialization, SubjectErased)):
            await keys.open("ada", sealed[:size], b"here")


async def test_once_the_key_is_destroyed_nothing_opens_any_more_and_what_comes_later_does() -> None:
    objects = MemoryObjectStore()
    keys = keys_on(objects)
    before = await keys.seal("ada", b"before")

    assert await keys.destroy("ada")

    with pytest.raises(SubjectErased):
        await keys.open("ada", before)
    assert list(await objects.list(SPACE)) == []
    after = await keys.seal("ada", b"after")
    assert await keys.open("ada", after) == b"after"
    with pytest.raises(SubjectErased):
        await keys.open("ada", before)


async def test_who_had_no_key_has_none_to_destroy() -> None:
    assert not await keys_on(MemoryObjectStore()).destroy("ada")


async def test_another_node_uses_a_destroyed_key_no_longer_than_it_may_or_until_it_is_told() -> None:
    objects, clock = MemoryObjectStore(), ManualClock(NOON)
    here, there, told = keys_on(objects, clock), keys_on(objects, clock), keys_on(objects, clock)
    sealed = await here.seal("ada", b"value")
    assert await there.open("ada", sealed) == await told.open("ada", sealed) == b"value"

    await here.destroy("ada")
    told.forget("ada")

    with pytest.raises(SubjectErased):
        await told.open("ada", sealed)
    assert await there.open("ada", sealed) == b"value"
    clock.advance(MAX_AGE)
    assert there.cached("ada") is None
    with pytest.raises(SubjectErased):
        await there.open("ada", sealed)


async def test_a_clock_that_is_set_back_lets_no_key_live_longer() -> None:
    objects, clock = MemoryObjectStore(), ManualClock(NOON)
    keys = keys_on(objects, clock)
    await keys.seal("ada", b"value")

    clock.advance(hours=-1)

    assert keys.cached("ada") is None


async def test_of_several_nodes_that_make_a_key_at_once_all_have_the_same_one() -> None:
    objects = CountingObjects()
    nodes = [keys_on(objects) for _ in range(5)]

    sealed = await asyncio.gather(*(node.seal("ada", b"value") for node in nodes))

    assert objects.commits == 5
    for each in sealed:
        assert [await node.open("ada", each) for node in nodes] == [b"value"] * 5


async def test_many_persons_cost_two_round_trips_and_then_none() -> None:
    objects = CountingObjects()
    keys = keys_on(objects, capacity=MAX_CHANGES)
    people = [f"user-{number}" for number in range(300)]

    ready = await keys.ready(people)
    objects.reads = 0

    assert [*ready] == people
    assert objects.commits == 1
    assert len({key.id for key in ready.values()}) == 300
    await keys.ready(people)
    assert objects.reads == 0
    assert [keys.cached(person) for person in people] == [*ready.values()]


async def test_more_persons_than_one_commit_may_change_are_served_and_few_are_remembered() -> None:
    keys = keys_on(MemoryObjectStore(), capacity=10)
    people = [f"user-{number}" for number in range(MAX_CHANGES + 5)]

    ready = await keys.ready(people)

    assert len(ready) == MAX_CHANGES + 5
    assert [person for person in people if keys.cached(person) is not None] == people[-10:]


async def test_a_key_that_is_destroyed_while_it_is_read_is_not_remembered() -> None:
    objects = InterruptedObjects()
    keys = keys_on(objects)
    await keys_on(objects).ready(("ada",))
    objects.then = lambda: keys.destroy("ada")

    await keys.existing(("ada",))

    assert list(await objects.list(SPACE)) == []
    assert keys.cached("ada") is None


async def test_whoever_reads_makes_no_key() -> None:
    objects = MemoryObjectStore()

    assert await keys_on(objects).existing(("ada", "bob")) == {}
    assert list(await objects.list(SPACE)) == []


async def test_the_storage_shows_neither_who_has_a_key_nor_how_long_the_name_is() -> None:
    objects = MemoryObjectStore()
    await keys_on(objects).ready(("ada", "somebody with a long name"))

    found = await objects.list(SPACE)

    assert {len(each.name) for each in found} == {64}
    assert [each for each in found if b"ada" in each.value or "ada" in each.name] == []


async def test_a_damaged_key_is_said_and_not_replaced() -> None:
    objects = MemoryObjectStore()
    await keys_on(objects).ready(("ada",))
    (stored,) = await objects.list(SPACE)
    await objects.commit(SPACE, {stored.name: stored.value[:-1]})

    with pytest.raises(Serialization):
        await keys_on(objects).ready(("ada",))

    (present,) = await objects.list(SPACE)
    assert present.value == stored.value[:-1]


@given(value=st.binary(max_size=2000), place=st.binary(max_size=50))
def test_everything_comes_back_as_it_was_and_is_never_sealed_the_same(value: bytes, place: bytes) -> None:
    key = SubjectKey(bytes(8), bytes(32))

    sealed = [key.seal(value, place) for _ in range(3)]

    assert [key.open(each, place) for each in sealed] == [value] * 3
    assert len(set(sealed)) == 3
