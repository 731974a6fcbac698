"""What ``ObjectStore`` promises, as tests."""
# ruff: noqa: D102, S101  # tests are sentences; tests assert, and say numbers

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

import pytest
from msgspec.structs import replace

from roomkey.errors import Conflict, InvalidInput, Serialization
from roomkey.ports import CHECKSUMMED_RECORDS, PLAIN_RECORDS, ObjectStore, RecordCodec, RecordKind, Repairable
from roomkey.ports.objects import ABSENT, MAX_CHANGES, MAX_NAME_BYTES, MAX_OBJECT_BYTES

SPACE = "settings"


async def revision_of(store: ObjectStore, name: str, space: str = SPACE) -> int:
    """The revision that the object has."""
    found = await store.get(space, name)
    return ABSENT if found is None else found.revision


async def value_of(store: ObjectStore, name: str, space: str = SPACE) -> bytes | None:
    """The value that the object has."""
    found = await store.get(space, name)
    return None if found is None else found.value


async def names_of(store: ObjectStore, prefix: str = "", after: str = "", limit: int = 100) -> Sequence[str]:
    """The names of a list."""
    return [found.name for found in await store.list(SPACE, prefix=prefix, after=after, limit=limit)]


class ObjectStoreConformance:
    """All of it. Subclasses say how to ``open`` the implementation under test, empty at first."""

    def open(self) -> AbstractAsyncContextManager[ObjectStore]:
        raise NotImplementedError

    async def test_what_was_never_written_is_absent(self) -> None:
        async with self.open() as store:
            assert await store.get(SPACE, "nothing") is None
            assert await store.get_many(SPACE, ["nothing", "nothing"]) == [None, None]
            assert list(await store.list(SPACE)) == []

    async def test_what_was_written_is_there_byte_by_byte(self) -> None:
        values = {"empty": b"", "zeros": bytes(1000), "all": bytes(range(256)), "käse/ø 🙂": b"x"}
        async with self.open() as store:
            await store.commit(SPACE, values)

            assert {name: await value_of(store, name) for name in values} == values
            assert [found and found.value for found in await store.get_many(SPACE, [*values, "no"])] == [
                *values.values(),
                None,
            ]

    async def test_names_and_values_may_be_as_long_as_is_said(self) -> None:
        longest, largest = "n" * MAX_NAME_BYTES, bytes(MAX_OBJECT_BYTES)
        async with self.open() as store:
            await store.commit(SPACE, {longest: largest})

            assert await value_of(store, longest) == largest

    async def test_a_deleted_object_is_absent_and_deleting_it_again_does_nothing(self) -> None:
        async with self.open() as store:
            await store.commit(SPACE, {"a": b"1", "b": b"2"})
            await store.commit(SPACE, {"a": None})
            await store.commit(SPACE, {"a": None, "never": None})

            assert await store.get(SPACE, "a") is None
            assert await names_of(store) == ["b"]

    async def test_every_change_has_a_revision_of_its_own_even_with_the_same_value(self) -> None:
        async with self.open() as store:
            seen: list[int] = []
            for value in (b"1", b"1", None, b"1"):
                await store.commit(SPACE, {"a": value})
                seen.append(await revision_of(store, "a"))

            assert seen[2] == ABSENT
            assert len(set(seen)) == 4

    async def test_a_commit_obeys_what_is_expected_of_objects_that_it_changes(self) -> None:
        async with self.open() as store:
            await store.commit(SPACE, {"a": b"1"}, expected={"a": ABSENT})
            revision = await revision_of(store, "a")
            await store.commit(SPACE, {"a": b"2"}, expected={"a": revision})

            with pytest.raises(Conflict):
                await store.commit(SPACE, {"a": b"3"}, expected={"a": revision})
            with pytest.raises(Conflict):
                await store.commit(SPACE, {"a": b"3"}, expected={"a": ABSENT})
            with pytest.raises(Conflict):
                await store.commit(SPACE, {"new": b"3"}, expected={"new": revision})
            assert await value_of(store, "a") == b"2"
            assert await store.get(SPACE, "new") is None

    async def test_a_commit_obeys_what_is_expected_of_objects_that_it_leaves_alone(self) -> None:
        async with self.open() as store:
            await store.commit(SPACE, {"guard": b"1"})
            revision = await revision_of(store, "guard")
            await store.commit(SPACE, {"a": b"1"}, expected={"guard": revision, "other": ABSENT})

            with pytest.raises(Conflict):
                await store.commit(SPACE, {"a": b"2"}, expected={"guard": ABSENT})
            assert await value_of(store, "a") == b"1"
            assert await revision_of(store, "guard") == revision

    async def test_a_commit_that_fails_changes_nothing_at_all(self) -> None:
        async with self.open() as store:
            await store.commit(SPACE, {"a": b"1", "b": b"1", "c": b"1"})

            with pytest.raises(Conflict):
                await store.commit(SPACE, {"a": b"2", "b": None, "d": b"2"}, expected={"c": ABSENT})

            assert [await value_of(store, name) for name in "abcd"] == [b"1", b"1", b"1", None]

    async def test_of_many_who_change_the_same_object_each_on_what_it_read_one_at_a_time_succeeds(self) -> None:
        async with self.open() as store:
            await store.commit(SPACE, {"count": b"0"})

            async def add() -> None:
                while True:
                    found = await store.get(SPACE, "count")
                    assert found is not None
                    try:
                        value = str(int(found.value) + 1).encode()
                        await store.commit(SPACE, {"count": value}, expected={"count": found.revision})
                    except Conflict:
                        continue
                    return

            await asyncio.gather(*(add() for _ in range(12)))

            assert await value_of(store, "count") == b"12"

    async def test_of_many_who_make_the_same_object_one_does(self) -> None:
        async with self.open() as store:

            async def make(value: bytes) -> bytes | None:
                try:
                    await store.commit(SPACE, {"a": value}, expected={"a": ABSENT})
                except Conflict:
                    return None
                return value

            made = await asyncio.gather(*(make(b"%d" % number) for number in range(12)))

            (winner,) = [value for value in made if value is not None]
            assert await value_of(store, "a") == winner

    async def test_lists_are_in_the_order_of_the_bytes_and_can_be_read_in_parts(self) -> None:
        names = ["B", "a", "a/1", "a/10", "a/2", "a0", "ä", "z", "中", "🙂"]
        async with self.open() as store:
            await store.commit(SPACE, {name: name.encode() for name in reversed(names)})

            ordered = sorted(names, key=str.encode)
            assert await names_of(store) == ordered
            assert await names_of(store, limit=3) == ordered[:3]
            assert await names_of(store, after=ordered[2], limit=4) == ordered[3:7]
            assert await names_of(store, prefix="a") == ["a", "a/1", "a/10", "a/2", "a0"]
            assert await names_of(store, prefix="a/") == ["a/1", "a/10", "a/2"]
            assert await names_of(store, prefix="a/", after="a/1", limit=1) == ["a/10"]
            assert await names_of(store, prefix="a/", after="a/2") == []
            assert await names_of(store, prefix="a/", after="B") == ["a/1", "a/10", "a/2"]
            assert await names_of(store, prefix="_", after="B") == []
            (first, *_) = await store.list(SPACE)
            assert (first.value, first.revision) == (b"B", await revision_of(store, "B"))

    async def test_spaces_have_nothing_to_do_with_each_other(self) -> None:
        async with self.open() as store:
            await store.commit("keys", {"a": b"1"})
            await store.commit("subjects", {"a": b"2"}, expected={"a": ABSENT})
            await store.commit("keys", {"a": None})

            assert await value_of(store, "a", "keys") is None
            assert await value_of(store, "a", "subjects") == b"2"
            assert await names_of(store) == []

    async def test_as_many_objects_as_is_said_can_be_changed_at_once(self) -> None:
        names = [f"{number:04}" for number in range(MAX_CHANGES)]
        async with self.open() as store:
            await store.commit(SPACE, dict.fromkeys(names, b"v"))

            assert await names_of(store, limit=MAX_CHANGES) == names
            assert all(await store.get_many(SPACE, names))
            await store.commit(SPACE, dict.fromkeys(names))
            assert await names_of(store) == []

    async def test_what_is_beyond_the_limits_is_refused_and_changes_nothing(self) -> None:
        async with self.open() as store:
            for changes in (
                {"": b"1"},
                {"n" * (MAX_NAME_BYTES + 1): b"1"},
                {"zero\0byte": b"1"},
                {"a": bytes(MAX_OBJECT_BYTES + 1)},
                {str(number): b"1" for number in range(MAX_CHANGES + 1)},
                {str(number): bytes(MAX_OBJECT_BYTES) for number in range(9)},
            ):
                with pytest.raises(InvalidInput):
                    await store.commit(SPACE, {"first": b"1", **changes})
            with pytest.raises(InvalidInput):
                await store.commit("no-such-space", {"a": b"1"})

            assert await names_of(store) == []


class DurableObjectStoreConformance(ObjectStoreConformance):
    """What holds besides for those that outlive their process. They open with any codec."""

    @abstractmethod
    def open(self, codec: RecordCodec = CHECKSUMMED_RECORDS) -> AbstractAsyncContextManager[ObjectStore]: ...

    async def test_what_cannot_be_read_fails_alone_and_can_be_set_aside(self) -> None:
        async with self.open(PLAIN_RECORDS) as store:
            await store.commit(SPACE, {"b": b"this has no checksum", "d": b"nor this"})
        async with self.open() as store:
            await store.commit(SPACE, {"a": b"1", "c": b"2", "e": b"3"})

            with pytest.raises(Serialization):
                await store.get(SPACE, "b")
            assert await names_of(store) == ["a", "c", "e"]
            assert await names_of(store, limit=2) == ["a", "c"]
            assert await names_of(store, after="a", limit=2) == ["c", "e"]
            assert store.degradations()

            assert isinstance(store, Repairable)
            found = await store.damaged()
            assert [(record.kind, record.key) for record in found] == [
                (RecordKind.OBJECT, f"{SPACE}/b"),
                (RecordKind.OBJECT, f"{SPACE}/d"),
            ]
            await store.commit(SPACE, {"d": b"written anew"})
            nowhere = [replace(found[0], place=place) for place in (b"", b"nothing", b"\xff\0a", b"\0", SPACE.encode())]
            assert await store.set_aside([*found, *nowhere]) == 1
            assert await store.damaged() == []
            assert not store.degradations()
            assert await names_of(store) == ["a", "c", "d", "e"]
            await store.commit(SPACE, {"b": b"new"}, expected={"b": ABSENT})

    async def test_what_was_written_is_there_after_another_start(self) -> None:
        async with self.open() as store:
            await store.commit(SPACE, {"a": b"1", "b": b"2"})
            await store.commit(SPACE, {"b": None})
            before = await revision_of(store, "a")

        async with self.open() as store:
            assert await value_of(store, "a") == b"1"
            assert await revision_of(store, "a") == before
            assert await names_of(store) == ["a"]
