"""A damaged record is reported, never taken for an empty document, and harms no other one."""
# ruff: noqa: S101, D102  # these are tests, and their names are sentences

from collections.abc import Awaitable, Callable

import pytest

from roomkey.errors import Serialization
from roomkey.ports import Append, DocumentStore, StoredDocument
from roomkey.testing.documents.suite import (
    NOON,
    DocumentSuite,
    compactable,
    followed,
    loaded,
    log_of,
    make,
    names_in,
    update,
    updates,
    version,
)
from roomkey.testing.requirements import needs


class DocumentDamageConformance(DocumentSuite):
    """What ``corrupt`` brings about."""

    @needs("corrupt")
    async def test_a_damaged_record_is_reported_and_not_replaced(self) -> None:
        async with self.open() as store:
            await self._damage(store)
            calls: list[Callable[[], Awaitable[object]]] = [
                lambda: store.find("secret plan"),
                lambda: store.load("secret plan"),
                lambda: store.updates("secret plan", "first", 0),
                lambda: store.create("secret plan", "second", NOON),
                lambda: store.append("secret plan", "first", [update(b"more")]),
                lambda: store.compact("secret plan", "first", snapshot=b"", upto=1, authorship=b""),
                lambda: store.keep_version("secret plan", "first", version()),
                lambda: store.delete("secret plan", "first", NOON),
            ]

            for call in calls:
                with pytest.raises(Serialization) as caught:
                    await call()
                assert "secret" not in str(caught.value)
                assert caught.value.__cause__ is None
            # It is not known as deleted either, which would be `Conflict`.
            with pytest.raises(Serialization):
                await store.create("secret plan", "first", NOON)

    @needs("corrupt")
    async def test_the_others_go_on(self) -> None:
        async with self.open() as store:
            await self._damage(store)

            await store.append("sound", "first", updates(1, 3))
            await make(store, "new", updates(1))

            assert await log_of(store, "sound") == updates(3)
            assert await log_of(store, "new") == updates(1)

    @needs("corrupt")
    async def test_lists_go_on_without_it(self) -> None:
        async with self.open() as store:
            await self._damage(store)
            await make(store, "last", updates(1))

            assert await names_in(store, limit=1) == ["last", "sound"]

    @needs("corrupt")
    async def test_of_many_appends_only_that_one_fails(self) -> None:
        async with self.open() as store:
            await self._damage(store)

            damaged, head = await store.append_each(
                [Append(name, "first", updates(1, 3)) for name in ("secret plan", "sound")]
            )

            assert isinstance(damaged, Serialization)
            assert head == 3
            assert await log_of(store, "sound") == updates(3)

    @needs("corrupt")
    async def test_chores_are_not_stopped(self) -> None:
        async with self.open() as store:
            await self._damage(store)

            assert await compactable(store) == ["sound"]

    @needs("corrupt")
    async def test_operators_are_told(self) -> None:
        async with self.open() as store:
            await self._damage(store)
            assert store.degradations() == {}

            await names_in(store)

            assert len(store.degradations()) == 1

    @needs("tear")
    async def test_a_torn_last_row_of_a_log_is_all_that_is_lost(self) -> None:
        async with self.open() as store:
            await self._tear(store)

            document = await loaded_with_losses(store)

            assert (document.record.sequence, document.lost) == (5, 2)
            assert [*document.updates[:3]] == updates(3)
            assert len(document.updates) == 5
            assert store.degradations()

    @needs("tear")
    async def test_what_stands_in_the_place_of_lost_updates_changes_nothing(self) -> None:
        async with self.open() as store:
            await self._tear(store)

            lost = (await loaded_with_losses(store)).updates[3:]

            assert [each.data for each in lost] == [b"\0\0"] * 2  # no structures, no deletions

    @needs("tear")
    async def test_a_torn_log_goes_on_and_no_number_is_given_twice(self) -> None:
        async with self.open() as store:
            await self._tear(store)

            last = await store.append("notes", "first", updates(2, 6))

            document = await loaded_with_losses(store)
            assert (last, document.record.sequence, document.lost) == (7, 7, 2)
            assert [*document.updates[5:]] == updates(2, 6)
            tail = await store.updates("notes", "first", 5)
            assert (tail.head, tail.updates) == (7, updates(2, 6))

    @needs("tear")
    async def test_whoever_reads_a_torn_log_in_parts_finds_as_many(self) -> None:
        async with self.open() as store:
            await self._tear(store)

            found = await followed(store, after=2, limit=1)

            assert len(found) == 3
            assert found[0] == updates(1, 3)[0]

    @needs("tear")
    async def test_a_torn_log_can_be_compacted(self) -> None:
        async with self.open() as store:
            await self._tear(store)
            await store.append("notes", "first", updates(2, 6))

            # Within what is lost, so that a part of it stays.
            assert await store.compact("notes", "first", snapshot=b"snapshot", upto=4, authorship=b"a")

            document = await loaded_with_losses(store)
            assert (document.snapshot, document.upto) == (b"snapshot", 4)
            assert [each.data for each in document.updates] == [b"\0\0", b"update 6", b"update 7"]
            assert await store.compact("notes", "first", snapshot=b"later", upto=7, authorship=b"a")
            assert (await loaded(store)).snapshot == b"later"

    @needs("tear")
    async def test_a_document_of_which_nothing_is_left_is_not_taken_for_an_empty_one(self) -> None:
        async with self.open() as store:
            await make(store, "notes", updates(2))
            await self._torn(store)

            with pytest.raises(Serialization):
                await store.load("notes")

    async def _tear(self, store: DocumentStore) -> None:
        """Three updates, and two more in a row that is damaged."""
        await make(store, "notes", updates(3))
        await store.append("notes", "first", updates(2, 4))
        await self._torn(store)

    async def _torn(self, store: DocumentStore) -> None:
        if not await self.tear(store, "notes"):
            pytest.skip("logs of this store cannot be damaged")

    async def _damage(self, store: DocumentStore) -> None:
        """A document that is damaged, and one that is not."""
        await make(store, "secret plan", updates(2))
        await make(store, "sound", updates(2))
        if not await self.corrupt(store, "secret plan"):
            pytest.skip("records of this store cannot be damaged")


async def loaded_with_losses(store: DocumentStore) -> StoredDocument:
    """The document, which must be there, though something of its log is not."""
    document = await store.load("notes")
    assert document is not None
    assert document.record.sequence == document.upto + len(document.updates)
    return document
