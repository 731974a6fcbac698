"""A document is made once, what is gone does not come back, and every write names what it belongs to."""
# ruff: noqa: S101, D102  # these are tests, and their names are sentences

from collections.abc import Awaitable, Callable

import pytest

from roomkey.errors import Conflict, InvalidInput, NotFound
from roomkey.ports import DocumentStore
from roomkey.testing.documents.suite import (
    NAMES,
    NOON,
    SECOND,
    DocumentSuite,
    compactable,
    found,
    loaded,
    log_of,
    make,
    names_in,
    update,
    updates,
    version,
    versions_of,
    was_deleted,
)
from roomkey.testing.requirements import needs


class LineageConformance(DocumentSuite):
    """Create, find, delete."""

    async def test_a_new_document_is_empty(self) -> None:
        async with self.open() as store:
            record = await store.create("notes", "first", NOON)

            assert (record.name, record.lineage, record.sequence) == ("notes", "first", 0)
            assert record.created_at == record.updated_at == NOON
            assert await log_of(store) == []
            assert await store.find("notes") == record
            assert await versions_of(store) == []

    async def test_who_comes_second_gets_what_the_first_one_made(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(3))

            record = await store.create("notes", "second", NOON + SECOND)

            assert record == await found(store)
            assert (record.lineage, record.sequence, record.created_at) == ("first", 3, NOON)

    async def test_what_nobody_made_is_not_there(self) -> None:
        async with self.open() as store:
            assert await store.find("notes") is None
            assert await store.load("notes") is None
            assert await store.version("notes", 1) is None
            assert await versions_of(store) == []

    async def test_no_write_makes_what_is_not_there(self) -> None:
        async with self.open() as store:
            await self._refuse_writes(store, NotFound)

            assert await store.delete("notes", "first", NOON) is False
            assert await names_in(store) == []

    async def test_writes_of_another_lineage_change_nothing(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(2), lineage="second")
            await store.keep_version("notes", "second", version())
            before = await loaded(store)

            await self._refuse_writes(store, Conflict)
            with pytest.raises(Conflict):
                await store.delete("notes", "first", NOON)

            assert await loaded(store) == before
            assert len(await versions_of(store)) == 1

    async def _refuse_writes(self, store: DocumentStore, error: type[Exception]) -> None:
        """Every write of the lineage ``first`` is refused in the way that the port says."""
        refused: list[Callable[[], Awaitable[object]]] = [
            lambda: store.append("notes", "first", [update(b"late")]),
            lambda: store.append("notes", "first", []),
            lambda: store.keep_version("notes", "first", version()),
        ]
        for write in refused:
            with pytest.raises(error):
                await write()
        assert not await store.compact("notes", "first", snapshot=b"late", upto=1, authorship=b"")
        assert await store.forget_versions("notes", "first", [1]) == 0

    async def test_deleting_takes_everything_and_leaves_the_lineage(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(5))
            await store.compact("notes", "first", snapshot=b"s", upto=3, authorship=b"a")
            await store.keep_version("notes", "first", version())

            assert await store.delete("notes", "first", NOON)

            assert await store.find("notes") is None
            assert await store.load("notes") is None
            assert await names_in(store) == []
            assert await versions_of(store) == []
            assert await store.version("notes", 1) is None
            assert await compactable(store) == []
            assert await was_deleted(store, "notes", "first")
            assert await store.delete("notes", "first", NOON) is False
            await self._refuse_writes(store, NotFound)

    async def test_a_deleted_document_is_not_made_again_as_what_it_was(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(2))
            await store.delete("notes", "first", NOON)

            with pytest.raises(Conflict):
                await store.create("notes", "first", NOON)

            assert await store.find("notes") is None

    async def test_one_of_the_same_name_begins_anew_under_another_lineage(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(5))
            await store.compact("notes", "first", snapshot=b"s", upto=4, authorship=b"a")
            await store.keep_version("notes", "first", version(b"old"))
            await store.delete("notes", "first", NOON)

            await make(store, updates=[update(b"new")], lineage="second")
            kept = await store.keep_version("notes", "second", version(b"new"))

            document = await loaded(store)
            assert (document.record.lineage, document.record.sequence) == ("second", 1)
            assert (document.snapshot, document.authorship) == (None, None)
            assert await log_of(store) == [update(b"new")]
            assert kept.number == 1
            assert await store.version("notes", 1) == (kept, b"new")
            assert await was_deleted(store, "notes", "first")
            assert not await was_deleted(store, "notes", "second")
            await self._refuse_writes(store, Conflict)

    async def test_a_grave_is_of_one_name_and_one_lineage(self) -> None:
        async with self.open() as store:
            await make(store, "ab", lineage="c")
            await store.delete("ab", "c", NOON)

            assert await was_deleted(store, "ab", "c")
            for name, lineage in [("a", "bc"), ("ab", "C"), ("AB", "c"), ("abc", ""), ("ab", "")]:
                assert not await was_deleted(store, name, lineage)

    @pytest.mark.parametrize("name", ["", "x" * 1025, "\N{GRINNING FACE}" * 257, "\ud800"])
    async def test_what_cannot_be_a_name_is_refused_and_not_found(self, name: str) -> None:
        async with self.open() as store:
            with pytest.raises(InvalidInput):
                await store.create(name, "first", NOON)

            assert await store.find(name) is None
            assert await store.load(name) is None
            assert await versions_of(store, name) == []
            assert await store.version(name, 1) is None
            assert await store.delete(name, "first", NOON) is False
            with pytest.raises(NotFound):
                await store.append(name, "first", [update(b"")])

    async def test_names_that_differ_in_one_byte_are_different_documents(self) -> None:
        async with self.open() as store:
            for number, name in enumerate(NAMES):
                await make(store, name, [update(name.encode())], lineage=f"of {number}")
            for name in NAMES[::2]:
                await store.delete(name, (await found(store, name)).lineage, NOON)

            assert await names_in(store) == sorted(NAMES[1::2], key=str.encode)
            for number, name in enumerate(NAMES):
                assert await was_deleted(store, name, f"of {number}") == (number % 2 == 0)
                if number % 2:
                    assert (await found(store, name)).lineage == f"of {number}"
                    assert await log_of(store, name) == [update(name.encode())]

    @needs("durable")
    async def test_what_was_awaited_is_there_when_it_is_opened_again(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(5))
            await store.compact("notes", "first", snapshot=b"s", upto=3, authorship=b"a")
            kept = await store.keep_version("notes", "first", version(b"v"))
            await make(store, "gone", lineage="g")
            await store.delete("gone", "g", NOON)
            before = await loaded(store)

        async with self.open() as store:
            assert await loaded(store) == before
            assert await store.version("notes", 1) == (kept, b"v")
            assert await was_deleted(store, "gone", "g")
            assert await names_in(store) == ["notes"]
            assert await store.append("notes", "first", updates(1)) == 6
