"""Documents are listed by the bytes of their names, each once, however their names are alike."""
# ruff: noqa: S101, D102  # these are tests, and their names are sentences

import pytest

from roomkey.errors import InvalidInput
from roomkey.ports import Page
from roomkey.testing.documents.suite import NAMES, NOON, DocumentSuite, make, names_in

PREFIXES = ("", "a", "a/", "a%", "A", "e", "x", "x" * 499, "x" * 500, "x" * 501, "x" * 1000, "x" * 1023, "x" * 1024)


class DocumentListConformance(DocumentSuite):
    """Lists and pages."""

    @pytest.mark.parametrize("limit", [1, 4, 500])
    async def test_they_come_in_the_order_of_their_bytes(self, limit: int) -> None:
        async with self.open() as store:
            for name in NAMES:
                await make(store, name)

            assert await names_in(store, limit=limit) == sorted(NAMES, key=str.encode)

    @pytest.mark.parametrize("limit", [1, 3, 500])
    async def test_a_prefix_is_compared_byte_by_byte(self, limit: int) -> None:
        async with self.open() as store:
            for name in NAMES:
                await make(store, name)

            for prefix in (*PREFIXES, *NAMES):
                expected = sorted((name for name in NAMES if name.startswith(prefix)), key=str.encode)
                assert await names_in(store, prefix, limit=limit) == expected

    async def test_a_prefix_that_cannot_be_one_matches_nothing(self) -> None:
        async with self.open() as store:
            for name in NAMES:
                await make(store, name)

            assert await names_in(store, "x" * 1025) == []
            assert await names_in(store, "\ud800") == []
            assert await names_in(store, "zzz") == []

    async def test_a_page_goes_on_behind_what_was_deleted_meanwhile(self) -> None:
        names = [f"{number:02}" for number in range(20)]

        async with self.open() as store:
            for name in names:
                await make(store, name)
            page = await store.list("", Page(limit=5))
            for name in ("03", "04", "05", "10"):
                await store.delete(name, "first", NOON)
            await make(store, "04", lineage="second")
            await make(store, "065")

            rest = await store.list("", Page(cursor=page.next_cursor, limit=500))

            assert [record.name for record in page.documents] == names[:5]
            assert [record.name for record in rest.documents] == [
                name for name in sorted([*names[5:], "065"]) if name not in {"05", "10"}
            ]

    async def test_the_end_is_said_where_it_is(self) -> None:
        async with self.open() as store:
            for number in range(4):
                await make(store, f"a{number}")
            await make(store, "b")

            first = await store.list("a", Page(limit=2))
            second = await store.list("a", Page(cursor=first.next_cursor, limit=2))

            assert first.next_cursor is not None
            assert second.next_cursor is None
            assert [record.name for record in second.documents] == ["a2", "a3"]

    async def test_long_names_can_go_and_come_back(self) -> None:
        long = [name for name in NAMES if len(name.encode()) > 400]

        async with self.open() as store:
            for turn in range(3):
                for name in long:
                    await make(store, name, lineage=f"turn {turn}")
                assert await names_in(store) == sorted(long, key=str.encode)
                for name in long[turn % 2 :: 2] + long[1 - turn % 2 :: 2]:
                    await store.delete(name, f"turn {turn}", NOON)
                assert await names_in(store) == []

    @pytest.mark.parametrize("cursor", ["", "garbage", "\N{SNOWMAN}", "bg", "bv8", "djE", "x" * 100_000])
    async def test_a_foreign_cursor_is_refused(self, cursor: str) -> None:
        async with self.open() as store:
            with pytest.raises(InvalidInput):
                await store.list("", Page(cursor=cursor))
