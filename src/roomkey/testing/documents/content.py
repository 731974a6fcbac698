"""Updates are kept as they came: all or none, in order, whatever their size."""
# ruff: noqa: S101, D102  # these are tests, and their names are sentences

from datetime import UTC, datetime

import pytest

from roomkey.domain.session import SessionId
from roomkey.errors import Conflict, DocumentNotFound, InvalidInput
from roomkey.ports import Append, Author, DocumentUpdate
from roomkey.testing.documents.suite import (
    ALICE,
    KEY,
    NOON,
    SECOND,
    DocumentSuite,
    found,
    loaded,
    log_of,
    make,
    update,
    updates,
)

MEBIBYTE = 1024 * 1024


class ContentConformance(DocumentSuite):
    """Append and load."""

    async def test_updates_are_numbered_and_kept_in_order(self) -> None:
        async with self.open() as store:
            await make(store)

            numbers = [await store.append("notes", "first", updates(count, 10 * count)) for count in (1, 4, 2)]

            assert numbers == [1, 5, 7]
            assert await log_of(store) == updates(1, 10) + updates(4, 40) + updates(2, 20)

    async def test_appending_nothing_changes_nothing(self) -> None:
        async with self.open() as store:
            record = await make(store, updates=updates(3))

            assert await store.append("notes", "first", []) == 3

            assert await found(store) == record

    async def test_several_documents_are_appended_to_at_once_and_each_has_its_own_outcome(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(3))
            await make(store, "plans")

            outcomes = await store.append_each(
                [
                    Append("notes", "first", updates(2, 10)),
                    Append("nowhere", "first", updates(1)),
                    Append("plans", "second", updates(1)),
                    Append("plain", "first", []),
                ]
            )
            later = await store.append_each([Append("plans", "first", updates(4)), Append("notes", "first", [])])

            assert (outcomes[0], later) == (5, [4, 5])
            assert [type(outcome) for outcome in outcomes[1:]] == [DocumentNotFound, Conflict, DocumentNotFound]
            assert await log_of(store) == updates(3) + updates(2, 10)
            assert await log_of(store, "plans") == updates(4)

    async def test_appending_to_no_document_is_nothing(self) -> None:
        async with self.open() as store:
            assert list(await store.append_each([])) == []

    async def test_the_record_counts_what_is_in_the_log(self) -> None:
        async with self.open() as store:
            await make(store, updates=[update(b"12345", 1), update(b"", 2)])

            await store.append("notes", "first", [update(b"678", 3)])

            record = await found(store)
            assert (record.sequence, record.log_updates, record.log_bytes, record.snapshot_bytes) == (3, 3, 8, 0)
            assert (record.created_at, record.updated_at) == (NOON, NOON + 3 * SECOND)

    async def test_the_time_of_the_last_change_never_goes_back(self) -> None:
        async with self.open() as store:
            await make(store, updates=[update(b"late", 5)])

            await store.append("notes", "first", [update(b"early", 1)])

            assert (await found(store)).updated_at == NOON + 5 * SECOND

    @pytest.mark.parametrize(
        "author",
        [
            ALICE,
            KEY,
            Author("server"),
            Author("", SessionId(""), ""),
            Author("user:bob", None, "bob"),
            Author("user:\N{GRINNING FACE}", SessionId("id"), "\N{GRINNING FACE}" * 64),
        ],
    )
    async def test_who_and_when_is_kept(self, author: Author) -> None:
        moments = [
            datetime(1970, 1, 1, tzinfo=UTC),
            datetime(2026, 7, 1, 23, 59, 59, 999_999, tzinfo=UTC),
            datetime(2200, 1, 1, tzinfo=UTC),
        ]
        written = [DocumentUpdate(b"data", author, at) for at in moments]

        async with self.open() as store:
            await make(store, updates=[update(b"of another"), *written])

            assert await log_of(store) == [update(b"of another"), *written]

    @pytest.mark.parametrize("size", [0, 1, 4000, 4096, MEBIBYTE, MEBIBYTE + 1, 5 * MEBIBYTE])
    async def test_an_update_of_any_size_comes_back(self, size: int) -> None:
        data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)

        async with self.open() as store:
            await make(store, updates=[update(b"before"), update(data, 1), update(b"after", 2)])

            assert await log_of(store) == [update(b"before"), update(data, 1), update(b"after", 2)]

    async def test_many_large_updates_come_back(self) -> None:
        large = [update(bytes([number]) * MEBIBYTE, number) for number in range(12)]

        async with self.open() as store:
            await make(store)
            for each in large:
                await store.append("notes", "first", [each])

            assert await log_of(store) == large

    async def test_a_log_of_many_updates_comes_back(self) -> None:
        async with self.open() as store:
            await make(store)
            for start in range(1, 10_001, 500):
                await store.append("notes", "first", updates(500, start))

            assert await log_of(store) == updates(10_000)

    async def test_a_store_that_is_open_answers(self) -> None:
        async with self.open() as store:
            await store.ping()

            record = await make(store, updates=updates(2))
            await store.ping()

            assert await found(store) == record

    async def test_what_cannot_be_stored_leaves_nothing_behind(self) -> None:
        unspeakable = DocumentUpdate(b"data", Author("user:\ud800"), NOON)

        async with self.open() as store:
            record = await make(store, updates=updates(2))

            try:
                await store.append("notes", "first", [update(b"good"), unspeakable])
            except InvalidInput:
                assert await found(store) == record
            else:
                assert await log_of(store) == [*updates(2), update(b"good"), unspeakable]

    async def test_a_loaded_document_does_not_change(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(2))
            document = await loaded(store)

            await store.append("notes", "first", updates(3, 3))
            await store.compact("notes", "first", snapshot=b"s", upto=4, authorship=b"a")

            assert [*document.updates] == updates(2)
            assert (document.snapshot, document.record.sequence) == (None, 2)
