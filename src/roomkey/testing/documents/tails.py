"""Whoever knows a document up to a number gets what was appended behind it, or is told to load it anew."""
# ruff: noqa: S101, D102  # these are tests, and their names are sentences

import pytest

from roomkey.errors import Conflict, NotFound
from roomkey.ports import DocumentTail
from roomkey.testing.documents.suite import NOON, DocumentSuite, followed, log_of, make, update, updates

MEBIBYTE = 1024 * 1024


class TailConformance(DocumentSuite):
    """The updates behind a number. What happens while others write is tested with the races."""

    @pytest.mark.parametrize("after", range(10))
    async def test_what_lies_behind_a_number_comes_in_order_whatever_was_appended_together(self, after: int) -> None:
        async with self.open() as store:
            await make(store)
            for first, count in ((1, 3), (4, 1), (5, 5)):
                await store.append("notes", "first", updates(count, first))

            tail = await store.updates("notes", "first", after)

            assert tail == DocumentTail(9, updates(9 - after, after + 1))

    async def test_nothing_new_is_no_update_and_the_number_that_is_known(self) -> None:
        async with self.open() as store:
            await make(store)
            assert await store.updates("notes", "first", 0) == DocumentTail(0, [])

            await store.append("notes", "first", updates(3))

            assert await store.updates("notes", "first", 3) == DocumentTail(3, [])

    async def test_who_knows_more_than_the_store_is_told_so(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(3))

            assert await store.updates("notes", "first", 5) == DocumentTail(3, [])

    @pytest.mark.parametrize("limit", [1, 2, 3, 4, 8, 9, 100])
    async def test_whoever_asks_again_meets_each_update_once(self, limit: int) -> None:
        async with self.open() as store:
            await make(store)
            for first, count in ((1, 3), (4, 1), (5, 5)):
                await store.append("notes", "first", updates(count, first))

            tail = await store.updates("notes", "first", 1, limit)

            assert tail == DocumentTail(9, updates(min(limit, 8), 2))
            assert await followed(store, after=0, limit=limit) == updates(9)

    async def test_large_updates_come_a_few_at_a_time(self) -> None:
        large = [update(bytes([number]) * 3 * MEBIBYTE, number) for number in range(6)]

        async with self.open() as store:
            await make(store)
            for each in large:
                await store.append("notes", "first", [each])

            assert await followed(store, after=0) == large

    async def test_many_updates_come_whole(self) -> None:
        async with self.open() as store:
            await make(store)
            for start in range(1, 6001, 500):
                await store.append("notes", "first", updates(500, start))

            assert await followed(store, after=3, limit=10_000) == updates(5997, 4)

    @pytest.mark.parametrize("upto", range(1, 10))
    async def test_what_is_in_the_snapshot_only_has_to_be_loaded(self, upto: int) -> None:
        async with self.open() as store:
            await make(store)
            for first, count in ((1, 3), (4, 1), (5, 5)):
                await store.append("notes", "first", updates(count, first))

            await store.compact("notes", "first", snapshot=b"merged", upto=upto, authorship=b"who")

            for after in range(upto):
                assert await store.updates("notes", "first", after) == DocumentTail(9, None)
            for after in range(upto, 10):
                assert await store.updates("notes", "first", after) == DocumentTail(9, updates(9 - after, after + 1))

    async def test_a_compaction_of_what_is_known_changes_nothing_for_whoever_knows_it(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(5))
            for upto in (2, 4):
                await store.compact("notes", "first", snapshot=b"merged", upto=upto, authorship=b"who")
            await store.append("notes", "first", updates(2, 6))

            assert await store.updates("notes", "first", 4) == DocumentTail(7, updates(3, 5))
            assert await store.updates("notes", "first", 3) == DocumentTail(7, None)

    async def test_a_document_that_is_gone_or_another_one_has_nothing_to_give(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(3))
            with pytest.raises(Conflict):
                await store.updates("notes", "second", 0)

            await store.delete("notes", "first", NOON)
            with pytest.raises(NotFound):
                await store.updates("notes", "first", 0)

            await make(store, updates=updates(5), lineage="second")
            with pytest.raises(Conflict):
                await store.updates("notes", "first", 3)
            assert await store.updates("notes", "second", 3) == DocumentTail(5, updates(2, 4))

    @pytest.mark.parametrize("name", ["", "nowhere", "x" * 1025, "\ud800"])
    async def test_what_nobody_made_is_not_found(self, name: str) -> None:
        async with self.open() as store:
            with pytest.raises(NotFound):
                await store.updates(name, "first", 0)

    async def test_what_was_handed_out_does_not_change(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(3))
            tail = await store.updates("notes", "first", 1)

            await store.append("notes", "first", updates(2, 4))
            await store.compact("notes", "first", snapshot=b"s", upto=4, authorship=b"a")

            assert tail == DocumentTail(3, updates(2, 2))
            assert await log_of(store) == updates(1, 5)
