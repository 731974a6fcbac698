"""A snapshot replaces what it contains, nothing else, and never an older one a newer one."""
# ruff: noqa: S101, D102  # these are tests, and their names are sentences

import pytest

from roomkey.errors import LeaseLost
from roomkey.testing.documents.suite import (
    NOON,
    DocumentSuite,
    compactable,
    found,
    loaded,
    log_of,
    make,
    update,
    updates,
    version,
    versions_of,
)

MEBIBYTE = 1024 * 1024

LENGTHS = (0, 1, 2, 3, 7, 8, 9, 40, 63, 64, 65, 66)


class CompactionConformance(DocumentSuite):
    """Compact, and what is to be compacted."""

    async def test_a_snapshot_takes_the_place_of_the_log(self) -> None:
        async with self.open() as store:
            before = await make(store, updates=updates(5))

            assert await store.compact("notes", "first", snapshot=b"merged", upto=5, authorship=b"who")

            document = await loaded(store)
            assert (document.snapshot, document.upto, document.authorship) == (b"merged", 5, b"who")
            assert await log_of(store) == []
            assert document.record.sequence == 5
            assert (document.record.created_at, document.record.updated_at) == (NOON, before.updated_at)

    @pytest.mark.parametrize("upto", range(1, 10))
    async def test_what_lies_behind_it_stays(self, upto: int) -> None:
        async with self.open() as store:
            await make(store)
            for first, count in ((1, 3), (4, 1), (5, 5)):
                await store.append("notes", "first", updates(count, first))

            assert await store.compact("notes", "first", snapshot=b"merged", upto=upto, authorship=b"who")

            assert await log_of(store) == updates(9 - upto, upto + 1)
            assert await store.append("notes", "first", updates(2, 10)) == 11
            assert await log_of(store) == updates(11 - upto, upto + 1)

    async def test_what_came_meanwhile_stays(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(4))
            seen = await loaded(store)
            await store.append("notes", "first", updates(2, 5))

            await store.compact("notes", "first", snapshot=b"of 4", upto=seen.record.sequence, authorship=b"")

            assert (await loaded(store)).snapshot == b"of 4"
            assert await log_of(store) == updates(2, 5)

    async def test_again_and_again(self) -> None:
        async with self.open() as store:
            await make(store)

            for number in range(1, 31):
                await store.append("notes", "first", updates(3, 3 * number - 2))
                assert await store.compact(
                    "notes", "first", snapshot=b"s%d" % number, upto=3 * number - 1, authorship=b"a%d" % number
                )

                document = await loaded(store)
                assert (document.snapshot, document.authorship) == (b"s%d" % number, b"a%d" % number)
                assert [*document.updates] == updates(1, 3 * number)

    @pytest.mark.parametrize("upto", [-1, 0, 1, 3])
    async def test_a_stale_one_changes_nothing(self, upto: int) -> None:
        async with self.open() as store:
            await make(store, updates=updates(5))
            await store.compact("notes", "first", snapshot=b"newer", upto=3, authorship=b"newer")
            before = await loaded(store)

            assert not await store.compact("notes", "first", snapshot=b"older", upto=upto, authorship=b"older")

            assert await loaded(store) == before

    async def test_one_that_claims_what_was_never_given_changes_nothing(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(5))
            before = await loaded(store)

            assert not await store.compact("notes", "first", snapshot=b"more", upto=6, authorship=b"more")

            assert await loaded(store) == before

    @pytest.mark.parametrize("size", [0, 1, 300_000, MEBIBYTE, 10 * MEBIBYTE + 7])
    async def test_a_snapshot_of_any_size_comes_back(self, size: int) -> None:
        snapshot = bytes(range(256)) * (size // 256) + b"x" * (size % 256)

        async with self.open() as store:
            await make(store, updates=updates(2))

            await store.compact("notes", "first", snapshot=snapshot, upto=2, authorship=snapshot[: size // 2])

            document = await loaded(store)
            assert document.snapshot == snapshot
            assert document.authorship == snapshot[: size // 2]

    async def test_a_smaller_snapshot_leaves_nothing_of_the_larger_one(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(2))
            await store.compact("notes", "first", snapshot=b"x" * 2 * MEBIBYTE, upto=1, authorship=b"y" * MEBIBYTE)

            await store.compact("notes", "first", snapshot=b"small", upto=2, authorship=b"")

            document = await loaded(store)
            assert (document.snapshot, document.authorship) == (b"small", b"")

    async def test_documents_with_long_logs_are_found(self) -> None:
        async with self.open() as store:
            for length in LENGTHS:
                await make(store, f"{length:02}", updates(length))

            for wanted in (*LENGTHS, 10**6):
                assert await compactable(store, wanted) == [f"{length:02}" for length in LENGTHS if length > wanted]

    async def test_documents_with_large_logs_are_found(self) -> None:
        async with self.open() as store:
            for size in (0, 1, 100, 1000, 1001, 5000):
                await make(store, f"{size:04}", [update(b"x" * size)])

            assert await compactable(store, 10, 1000) == ["1001", "5000"]
            assert await compactable(store, 10, 0) == ["0001", "0100", "1000", "1001", "5000"]
            assert await compactable(store, 10, 5000) == []
            assert len(await compactable(store, 10, 0)) == 5
            assert len(await compactable(store, 0, 0, limit=4)) == 4

    async def test_a_compacted_log_is_long_no_more(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(100))
            await store.compact("notes", "first", snapshot=b"s", upto=98, authorship=b"")

            assert await compactable(store, 2) == []
            assert await compactable(store, 1) == ["notes"]
            (record,) = await store.compactable(updates=1, size=10**9, limit=1)
            assert record == await found(store)

    async def test_who_has_lost_the_lease_writes_nothing(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(4))
            await store.compact("notes", "first", snapshot=b"newer", upto=2, authorship=b"", fence=7)
            await store.keep_version("notes", "first", version(), fence=7)

            for late in (
                lambda: store.compact("notes", "first", snapshot=b"late", upto=4, authorship=b"", fence=6),
                lambda: store.keep_version("notes", "first", version(), fence=6),
                lambda: store.forget_versions("notes", "first", [1], fence=6),
            ):
                with pytest.raises(LeaseLost):
                    await late()

            document = await loaded(store)
            assert document.snapshot == b"newer"
            assert len(document.updates) == 2
            assert [kept.number for kept in await versions_of(store)] == [1]

    async def test_each_write_under_a_lease_raises_the_bar(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(4))
            await store.compact("notes", "first", snapshot=b"s", upto=1, authorship=b"", fence=1)
            await store.keep_version("notes", "first", version(), fence=2)
            await store.forget_versions("notes", "first", [99], fence=3)

            with pytest.raises(LeaseLost):
                await store.compact("notes", "first", snapshot=b"late", upto=4, authorship=b"", fence=2)
            assert await store.compact("notes", "first", snapshot=b"s", upto=4, authorship=b"")
