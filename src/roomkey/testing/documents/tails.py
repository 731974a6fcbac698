"""Whoever knows a document up to a number gets what was appended behind it, or is told to load it anew."""
# ruff: noqa: S101, D102  # these are tests, and their names are sentences

import asyncio

import pytest

from roomkey.errors import Conflict, NotFound, Overtaken
from roomkey.ports import DocumentHead, DocumentTail
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

    # --- how far a document has come ------------------------------------------------------------------

    async def test_the_head_of_a_document_is_its_lineage_and_its_last_number(self) -> None:
        async with self.open() as store:
            await make(store, "empty")
            await make(store, "notes", updates(3), lineage="second")
            await store.compact("notes", "second", snapshot=b"merged", upto=2, authorship=b"who")

            heads = await store.heads(["notes", "nowhere", "empty", "notes"])

            assert [*heads] == [DocumentHead("second", 3), None, DocumentHead("first", 0), DocumentHead("second", 3)]
            assert [*await store.heads([])] == []

    async def test_a_document_that_was_deleted_has_no_head_until_it_is_made_anew(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(3))

            await store.delete("notes", "first", NOON)
            deleted = await store.heads(["notes"])
            await make(store, updates=updates(1), lineage="second")

            assert [*deleted] == [None]
            assert [*await store.heads(["notes"])] == [DocumentHead("second", 1)]

    @pytest.mark.parametrize("name", ["", "x" * 1025, "\ud800"])
    async def test_what_cannot_be_the_name_of_a_document_has_no_head(self, name: str) -> None:
        async with self.open() as store:
            assert [*await store.heads([name])] == [None]

    async def test_while_nobody_writes_the_number_of_changes_stays_the_same(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(3))
            # What a store does in the background counts, too, so it is given time to come to its end.
            before = -1
            while (now := await store.changes()) != before:
                before = now
                await store.ping()

            await store.load("notes")
            await store.updates("notes", "first", 1)
            await store.find("notes")

            assert await store.changes() == before

    # --- only if nobody was faster --------------------------------------------------------------------

    async def test_what_was_computed_up_to_a_number_is_appended_behind_it(self) -> None:
        async with self.open() as store:
            await make(store)

            heads = [await store.append("notes", "first", updates(2), after=0)]
            heads.append(await store.append("notes", "first", updates(1, 3), after=2))

            assert heads == [2, 3]
            assert await log_of(store) == updates(3)

    @pytest.mark.parametrize("after", [0, 1, 2, 4, 100])
    async def test_nothing_is_appended_behind_any_other_number(self, after: int) -> None:
        async with self.open() as store:
            await make(store, updates=updates(3))

            with pytest.raises(Overtaken):
                await store.append("notes", "first", updates(2, 4), after=after)

            assert await log_of(store) == updates(3)

    async def test_a_compaction_changes_nothing_for_what_is_appended_behind_the_last_number(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(3))
            await store.compact("notes", "first", snapshot=b"merged", upto=3, authorship=b"who")

            assert await store.append("notes", "first", updates(1, 4), after=3) == 4

    async def test_behind_a_number_of_another_document_of_this_name_nothing_is_appended(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(3), lineage="second")

            with pytest.raises(Conflict) as refused:
                await store.append("notes", "first", updates(1, 4), after=3)

            assert not isinstance(refused.value, Overtaken)

    async def test_of_many_who_append_behind_the_same_number_one_does(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(3))

            outcomes = await asyncio.gather(
                *(store.append("notes", "first", updates(2, 4), after=3) for _ in range(20)), return_exceptions=True
            )

            assert [outcome for outcome in outcomes if not isinstance(outcome, Overtaken)] == [5]
            assert await log_of(store) == updates(5)

    async def test_what_was_handed_out_does_not_change(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(3))
            tail = await store.updates("notes", "first", 1)

            await store.append("notes", "first", updates(2, 4))
            await store.compact("notes", "first", snapshot=b"s", upto=4, authorship=b"a")

            assert tail == DocumentTail(3, updates(2, 2))
            assert await log_of(store) == updates(1, 5)
