"""What ``Leases`` promises, as tests."""
# ruff: noqa: D102, S101  # tests are sentences; tests assert

import asyncio
from contextlib import AbstractAsyncContextManager

from roomkey.ports import Leases
from roomkey.testing.shared.timed import TimedSuite


class LeasesConformance(TimedSuite):
    """All of it. Subclasses say how to ``open`` the implementation under test, with nothing leased at first."""

    def open(self) -> AbstractAsyncContextManager[Leases]:
        raise NotImplementedError

    async def _acquired(self, leases: Leases, holder: str, *, name: str = "janitor", moments: int = 10) -> int:
        token = await leases.acquire(name, holder, moments * self.moment)
        assert token is not None
        return token

    async def test_one_holder_has_it_and_others_do_not(self) -> None:
        async with self.open() as leases:
            token = await leases.acquire("janitor", "a", 10 * self.moment)

            assert token is not None
            assert await leases.acquire("janitor", "b", self.moment) is None

    async def test_names_are_leased_apart(self) -> None:
        async with self.open() as leases:
            await self._acquired(leases, "a", name="janitor")

            assert await leases.acquire("rotation", "b", self.moment) is not None

    async def test_of_many_who_want_it_at_once_one_gets_it(self) -> None:
        async with self.open() as leases:
            tokens = await asyncio.gather(
                *(leases.acquire("janitor", f"node {number}", 10 * self.moment) for number in range(20))
            )

        assert sum(token is not None for token in tokens) == 1

    async def test_when_its_time_is_over_another_gets_it_with_a_higher_token(self) -> None:
        async with self.open() as leases:
            former = await self._acquired(leases, "a", moments=2)

            await self.pass_time(2 * self.moment)
            token = await self._acquired(leases, "b")

        assert token > former

    async def test_who_lost_it_can_neither_renew_nor_release_it(self) -> None:
        async with self.open() as leases:
            former = await self._acquired(leases, "a", moments=2)
            await self.pass_time(2 * self.moment)
            token = await self._acquired(leases, "b", moments=9)

            renewed = await leases.renew("janitor", former, self.moment)
            released = await leases.release("janitor", former)

            assert (renewed, released) == (False, False)
            assert await leases.acquire("janitor", "a", self.moment) is None
            assert await leases.renew("janitor", token, 10 * self.moment)

    async def test_what_is_over_is_not_renewed_even_if_nobody_else_wanted_it(self) -> None:
        async with self.open() as leases:
            token = await self._acquired(leases, "a", moments=2)

            await self.pass_time(2 * self.moment)

            assert not await leases.renew("janitor", token, self.moment)

    async def test_renewing_counts_from_now(self) -> None:
        async with self.open() as leases:
            token = await self._acquired(leases, "a", moments=3)
            for _ in range(3):
                await self.pass_time(2 * self.moment)
                assert await leases.renew("janitor", token, 3 * self.moment)

            assert await leases.acquire("janitor", "b", self.moment) is None

    async def test_what_was_released_is_free_at_once(self) -> None:
        async with self.open() as leases:
            former = await self._acquired(leases, "a", moments=100)

            released = await leases.release("janitor", former)
            token = await self._acquired(leases, "b")

            assert released
            assert token > former
            assert not await leases.release("janitor", former)

    async def test_a_holder_that_asks_again_gets_a_new_token_and_the_former_is_void(self) -> None:
        async with self.open() as leases:
            former = await self._acquired(leases, "a")

            token = await self._acquired(leases, "a")

            assert token > former
            assert not await leases.renew("janitor", former, self.moment)
            assert await leases.renew("janitor", token, self.moment)

    async def test_tokens_only_grow_whatever_happens(self) -> None:
        async with self.open() as leases:
            tokens: list[int] = []
            for number in range(6):
                tokens.append(await self._acquired(leases, f"node {number}", moments=1))
                if number % 2:
                    await leases.release("janitor", tokens[-1])
                else:
                    await self.pass_time(self.moment)

        assert tokens == sorted(set(tokens))

    async def test_any_name_of_up_to_500_bytes_will_do(self) -> None:
        async with self.open() as leases:
            names = ["x", "document:\N{SNOWMAN}/a\nb \x00", "\N{ROCKET}" * 125]

            tokens = [await leases.acquire(name, name, 10 * self.moment) for name in names]

            assert None not in tokens
            assert [await leases.acquire(name, "b", self.moment) for name in names] == [None] * 3

    async def test_what_never_was_is_neither_renewed_nor_released(self) -> None:
        async with self.open() as leases:
            assert not await leases.renew("janitor", 1, self.moment)
            assert not await leases.release("janitor", 1)


class DurableLeasesConformance(LeasesConformance):
    """What holds besides for leases that outlive their process."""

    async def test_leases_and_tokens_outlive_a_restart(self) -> None:
        async with self.open() as leases:
            held = await self._acquired(leases, "a", name="held", moments=100)
            released = await self._acquired(leases, "a", name="released")
            await leases.release("released", released)

        async with self.open() as leases:
            assert await leases.acquire("held", "b", self.moment) is None
            assert await leases.renew("held", held, self.moment)
            assert await self._acquired(leases, "b", name="released") > released
