"""What ``OneTime`` promises, as tests."""
# ruff: noqa: D102, S101  # tests are sentences; tests assert

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Final

from roomkey.ports import OneTime, OneTimeLimits
from roomkey.testing.shared.timed import TimedSuite

UNLIMITED: Final = OneTimeLimits()
AT_ONCE: Final = 20


class OneTimeConformance(TimedSuite):
    """All of it. Subclasses say how to ``open`` the implementation under test, empty."""

    def open(self, limits: OneTimeLimits) -> AbstractAsyncContextManager[OneTime]:
        raise NotImplementedError

    # --- add and take ---------------------------------------------------------------------------------

    async def test_what_was_added_is_taken_once(self) -> None:
        async with self.open(UNLIMITED) as store:
            added = await store.add("k", b"value", 10 * self.moment)

            taken = [await store.take("k"), await store.take("k")]

        assert added is None
        assert taken == [b"value", None]

    async def test_what_is_there_stays_and_is_what_the_next_one_gets(self) -> None:
        async with self.open(UNLIMITED) as store:
            await store.add("k", b"first", 10 * self.moment)

            present = await store.add("k", b"second", 10 * self.moment)

            assert present == b"first"
            assert await store.take("k") == b"first"

    async def test_keys_have_values_of_their_own(self) -> None:
        async with self.open(UNLIMITED) as store:
            await store.add("a", b"1", 10 * self.moment)
            await store.add("a\nb \N{SNOWMAN}", b"", 10 * self.moment)

            assert await store.take("b") is None
            assert await store.take("a\nb \N{SNOWMAN}") == b""
            assert await store.take("a") == b"1"

    async def test_values_are_bytes_as_they_are(self) -> None:
        async with self.open(UNLIMITED) as store:
            value = bytes(range(256)) * 64
            await store.add("k", value, 10 * self.moment)

            assert await store.take("k") == value

    async def test_of_many_who_take_at_once_one_gets_it(self) -> None:
        async with self.open(UNLIMITED) as store:
            await store.add("k", b"value", 10 * self.moment)

            taken = await asyncio.gather(*(store.take("k") for _ in range(AT_ONCE)))

        assert sorted(taken, key=bool) == [*[None] * (AT_ONCE - 1), b"value"]

    async def test_of_many_who_add_at_once_one_does_and_all_others_see_its_value(self) -> None:
        async with self.open(UNLIMITED) as store:
            values = [str(number).encode() for number in range(AT_ONCE)]

            present = await asyncio.gather(*(store.add("k", value, 10 * self.moment) for value in values))

            winner = values[present.index(None)]
            assert [value for value in present if value != winner] == [None]

    # --- lifetimes ------------------------------------------------------------------------------------

    async def test_a_value_is_there_for_its_lifetime(self) -> None:
        async with self.open(UNLIMITED) as store:
            await store.add("k", b"value", 3 * self.moment)

            await self.pass_time(self.moment)

            assert await store.add("k", b"other", self.moment) == b"value"
            assert await store.take("k") == b"value"

    async def test_after_its_lifetime_it_is_not_there(self) -> None:
        async with self.open(UNLIMITED) as store:
            await store.add("taken", b"value", self.moment)
            await store.add("replaced", b"value", self.moment)
            await store.add("added", b"value", self.moment)

            await self.pass_time(self.moment)

            assert await store.take("taken") is None
            assert not await store.replace("replaced", b"value", b"other", self.moment)
            assert await store.add("added", b"new", self.moment) is None
            assert await store.take("added") == b"new"

    async def test_a_short_life_ends_before_a_long_one_that_began_earlier(self) -> None:
        async with self.open(UNLIMITED) as store:
            await store.add("long", b"1", 4 * self.moment)
            await store.add("short", b"2", self.moment)

            await self.pass_time(self.moment)

            assert await store.take("short") is None
            assert await store.take("long") == b"1"

    # --- only what is expected ------------------------------------------------------------------------

    async def test_only_what_is_expected_is_taken(self) -> None:
        async with self.open(UNLIMITED) as store:
            await store.add("k", b"mine", 10 * self.moment)

            wrong = await store.take("k", expected=b"yours")
            right = await store.take("k", expected=b"mine")

        assert (wrong, right) == (None, b"mine")

    async def test_only_what_is_expected_is_replaced(self) -> None:
        async with self.open(UNLIMITED) as store:
            await store.add("k", b"claim", 10 * self.moment)

            wrong = await store.replace("k", b"another", b"answer", self.moment)
            right = await store.replace("k", b"claim", b"answer", 10 * self.moment)
            again = await store.replace("k", b"claim", b"second answer", self.moment)

            assert [wrong, right, again] == [False, True, False]
            assert await store.take("k") == b"answer"

    async def test_what_is_not_there_is_not_replaced(self) -> None:
        async with self.open(UNLIMITED) as store:
            replaced = await store.replace("k", b"claim", b"answer", 10 * self.moment)

            assert not replaced
            assert await store.take("k") is None

    async def test_of_many_who_replace_at_once_one_does(self) -> None:
        async with self.open(UNLIMITED) as store:
            await store.add("k", b"claim", 10 * self.moment)
            values = [str(number).encode() for number in range(AT_ONCE)]

            done = await asyncio.gather(*(store.replace("k", b"claim", value, 10 * self.moment) for value in values))

            assert done.count(True) == 1
            assert await store.take("k") == values[done.index(True)]

    async def test_what_replaces_has_a_lifetime_of_its_own(self) -> None:
        async with self.open(UNLIMITED) as store:
            await store.add("longer", b"claim", 2 * self.moment)
            await store.add("shorter", b"claim", 9 * self.moment)
            await store.replace("longer", b"claim", b"answer", 9 * self.moment)
            await store.replace("shorter", b"claim", b"answer", 2 * self.moment)

            await self.pass_time(2 * self.moment)

            assert await store.take("longer") == b"answer"
            assert await store.take("shorter") is None

    # --- bounds ---------------------------------------------------------------------------------------

    async def test_beyond_the_number_of_entries_the_oldest_goes(self) -> None:
        async with self.open(OneTimeLimits(entries=3)) as store:
            for number in range(5):
                await store.add(f"k{number}", b"value", 10 * self.moment)

            taken = [await store.take(f"k{number}") for number in range(5)]

        assert taken == [None, None, b"value", b"value", b"value"]

    async def test_an_owner_that_has_too_many_loses_its_own_oldest(self) -> None:
        async with self.open(OneTimeLimits(entries=3, entries_per_owner=2)) as store:
            await store.add("of bob", b"value", 10 * self.moment, owner="bob")
            for number in range(5):
                await store.add(f"k{number}", b"value", 10 * self.moment, owner="alice")

            assert await store.take("of bob") == b"value"
            assert [await store.take(f"k{number}") for number in range(5)] == [None, None, None, b"value", b"value"]

    async def test_what_was_taken_takes_no_room(self) -> None:
        async with self.open(OneTimeLimits(entries=2, entries_per_owner=2)) as store:
            await store.add("a", b"1", 10 * self.moment, owner="alice")
            for number in range(5):
                await store.add(f"k{number}", b"value", 10 * self.moment, owner="alice")
                await store.take(f"k{number}")

            assert await store.take("a") == b"1"

    async def test_beyond_the_bytes_the_oldest_goes(self) -> None:
        async with self.open(OneTimeLimits(bytes=100_000)) as store:
            for number in range(10):
                await store.add(f"k{number}", bytes(30_000), 10 * self.moment)

            taken = [await store.take(f"k{number}") is not None for number in range(10)]

        assert taken == [False] * 7 + [True] * 3

    async def test_many_small_values_are_bounded_too(self) -> None:
        async with self.open(OneTimeLimits(bytes=100_000)) as store:
            for number in range(200):
                await store.add(f"k{number}", b"", 10 * self.moment)

            taken = [await store.take(f"k{number}") for number in range(200)]

        assert 1 <= sum(value is not None for value in taken) <= 100

    async def test_what_is_pinned_is_not_pushed_out(self) -> None:
        async with self.open(OneTimeLimits(entries=2)) as store:
            await store.add("pinned", b"claim", 10 * self.moment, pinned=True)
            for number in range(5):
                await store.add(f"k{number}", b"value", 10 * self.moment)

            assert await store.add("pinned", b"other", self.moment) == b"claim"
            assert await store.take("k4") == b"value"

    async def test_what_has_been_replaced_is_not_pinned_any_more(self) -> None:
        async with self.open(OneTimeLimits(entries=2)) as store:
            await store.add("k", b"claim", 10 * self.moment, pinned=True)
            await store.replace("k", b"claim", b"answer", 10 * self.moment)
            for number in range(2):
                await store.add(f"k{number}", b"value", 10 * self.moment)

            assert await store.take("k") is None

    async def test_what_replaces_is_as_old_as_its_replacement(self) -> None:
        async with self.open(OneTimeLimits(entries=2)) as store:
            await store.add("replaced", b"claim", 10 * self.moment)
            await store.add("k", b"value", 10 * self.moment)
            await store.replace("replaced", b"claim", b"answer", 10 * self.moment)
            await store.add("last", b"value", 10 * self.moment)

            assert await store.take("replaced") == b"answer"
            assert await store.take("k") is None
