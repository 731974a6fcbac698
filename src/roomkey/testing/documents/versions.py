"""Versions are kept until they are forgotten, newest first, and no number is given twice."""
# ruff: noqa: S101, D102  # these are tests, and their names are sentences

import pytest

from roomkey.errors import InvalidInput
from roomkey.ports import DocumentVersion, Page
from roomkey.testing.documents.suite import (
    ALICE,
    NOON,
    SECOND,
    DocumentSuite,
    loaded,
    make,
    names_in,
    updates,
    version,
    versions_of,
)

MEBIBYTE = 1024 * 1024


class VersionConformance(DocumentSuite):
    """Keep, list, read, forget."""

    async def test_a_version_is_what_was_kept(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(3))

            kept = await store.keep_version("notes", "first", version(b"state", 7, "before lunch", 3))

            assert kept == DocumentVersion(
                number=1, at=NOON + 7 * SECOND, author=ALICE, label="before lunch", sequence=3, size=5
            )
            assert await store.version("notes", 1) == (kept, b"state")
            assert await versions_of(store) == [kept]

    async def test_a_version_says_which_one_was_restored_at_its_moment(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(3))
            await store.keep_version("notes", "first", version())

            kept = await store.keep_version("notes", "first", version(restored=1))

            assert kept.restored == 1
            assert [each.restored for each in await versions_of(store)] == [1, None]

    async def test_keeping_one_does_not_change_the_document(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(3))
            before = await loaded(store)

            await store.keep_version("notes", "first", version(b"state", 9))

            assert await loaded(store) == before

    @pytest.mark.parametrize("limit", [1, 2, 3, 9, 10, 11, 500])
    async def test_the_newest_come_first_and_each_once(self, limit: int) -> None:
        async with self.open() as store:
            await make(store)
            await make(store, "another")
            for number in range(10):
                await store.keep_version("notes", "first", version(b"%d" % number, number))
                await store.keep_version("another", "first", version(b"other", number))

            listed = await versions_of(store, limit=limit)

            assert [each.number for each in listed] == list(range(10, 0, -1))
            assert [await store.version("notes", each.number) for each in listed] == [
                (each, b"%d" % (each.number - 1)) for each in listed
            ]

    async def test_a_number_is_never_given_again(self) -> None:
        async with self.open() as store:
            await make(store)
            for _ in range(3):
                await store.keep_version("notes", "first", version())

            assert await store.forget_versions("notes", "first", [3, 1]) == 2
            kept = await store.keep_version("notes", "first", version())
            assert await store.forget_versions("notes", "first", [2, 4]) == 2
            last = await store.keep_version("notes", "first", version())

            assert (kept.number, last.number) == (4, 5)
            assert await versions_of(store) == [last]

    async def test_what_was_forgotten_is_gone_and_the_others_stay(self) -> None:
        async with self.open() as store:
            await make(store)
            kept = [await store.keep_version("notes", "first", version(b"%d" % number)) for number in range(6)]

            forgotten = await store.forget_versions("notes", "first", [2, 2, 5, 99, 0, -1, 10**12])

            assert forgotten == 2
            assert [each.number for each in await versions_of(store)] == [6, 4, 3, 1]
            assert await store.version("notes", 2) is None
            assert await store.version("notes", 3) == (kept[2], b"2")

    async def test_a_page_goes_on_where_versions_were_forgotten(self) -> None:
        async with self.open() as store:
            await make(store)
            for _ in range(6):
                await store.keep_version("notes", "first", version())
            page = await store.versions("notes", Page(limit=2))
            await store.forget_versions("notes", "first", [5, 4])

            rest = await store.versions("notes", Page(cursor=page.next_cursor, limit=10))

            assert [each.number for each in page.versions] == [6, 5]
            assert [each.number for each in rest.versions] == [3, 2, 1]
            assert rest.next_cursor is None

    @pytest.mark.parametrize("number", [-1, 0, 2, 2**31, 2**32, 2**64, 10**30])
    async def test_there_is_no_version_of_another_number(self, number: int) -> None:
        async with self.open() as store:
            await make(store)
            await store.keep_version("notes", "first", version())

            assert await store.version("notes", number) is None

    @pytest.mark.parametrize("size", [0, 1, MEBIBYTE, 3 * MEBIBYTE + 1])
    async def test_a_version_of_any_size_comes_back(self, size: int) -> None:
        content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)

        async with self.open() as store:
            await make(store)
            await store.keep_version("notes", "first", version(b"before"))

            kept = await store.keep_version("notes", "first", version(content))
            await store.forget_versions("notes", "first", [1])

            assert await store.version("notes", 2) == (kept, content)
            assert kept.size == size

    async def test_a_snapshot_does_not_disturb_versions_nor_they_it(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(3))
            await store.keep_version("notes", "first", version(b"version"))
            await store.compact("notes", "first", snapshot=b"snapshot", upto=2, authorship=b"who")
            await store.keep_version("notes", "first", version(b"another"))
            await store.forget_versions("notes", "first", [1])

            document = await loaded(store)
            assert (document.snapshot, document.authorship) == (b"snapshot", b"who")
            found = await store.version("notes", 2)
            assert found is not None
            assert found[1] == b"another"

    @pytest.mark.parametrize("cursor", ["", "garbage", "\N{SNOWMAN}", "dmFs", "bg", "x" * 100_000])
    async def test_a_foreign_cursor_is_refused(self, cursor: str) -> None:
        async with self.open() as store:
            await make(store)

            with pytest.raises(InvalidInput):
                await store.versions("notes", Page(cursor=cursor))

    async def test_a_cursor_of_documents_is_none_of_versions(self) -> None:
        async with self.open() as store:
            await make(store, "1")
            await make(store, "2")
            for _ in range(2):
                await store.keep_version("1", "first", version())
            documents = (await store.list("", Page(limit=1))).next_cursor
            versions = (await store.versions("1", Page(limit=1))).next_cursor

            with pytest.raises(InvalidInput):
                await store.versions("1", Page(cursor=documents))
            with pytest.raises(InvalidInput):
                await store.list("", Page(cursor=versions))

            assert await names_in(store) == ["1", "2"]
