"""What ``Counters`` promises, as tests."""
# ruff: noqa: D102, S101  # tests are sentences; tests assert

import asyncio
from contextlib import AbstractAsyncContextManager

from roomkey.ports import Counters, Rate
from roomkey.testing.shared.timed import TimedSuite


class CountersConformance(TimedSuite):
    """All of it. Subclasses say how to ``open`` the implementation under test, with nothing spent."""

    def open(self) -> AbstractAsyncContextManager[Counters]:
        raise NotImplementedError

    def _rate(self, burst: float) -> Rate:
        """A rate of one per moment."""
        return Rate(per_second=1 / self.moment.total_seconds(), burst=burst)

    async def test_a_burst_passes_and_the_next_one_is_told_how_long_to_wait(self) -> None:
        async with self.open() as counters:
            waits = [await counters.take("k", self._rate(3)) for _ in range(4)]

        assert waits[:3] == [0, 0, 0]
        assert 0 < waits[3] <= self.moment.total_seconds() * 1.001

    async def test_who_waited_as_told_is_let_through(self) -> None:
        async with self.open() as counters:
            await counters.take("k", self._rate(1))
            refused = await counters.take("k", self._rate(1))

            await self.pass_time(self.moment * 1.001)

            assert refused > 0
            assert await counters.take("k", self._rate(1)) == 0

    async def test_who_is_refused_is_charged_nothing(self) -> None:
        async with self.open() as counters:
            await counters.take("k", self._rate(1))
            for _ in range(20):
                await counters.take("k", self._rate(1))

            await self.pass_time(self.moment * 1.001)

            assert await counters.take("k", self._rate(1)) == 0

    async def test_a_pause_saves_up_a_burst_and_no_more(self) -> None:
        async with self.open() as counters:
            await counters.take("k", self._rate(2), 2)

            await self.pass_time(20 * self.moment)
            waits = [await counters.take("k", self._rate(2)) for _ in range(3)]

        assert [wait > 0 for wait in waits] == [False, False, True]

    async def test_keys_have_budgets_of_their_own(self) -> None:
        async with self.open() as counters:
            await counters.take("a", self._rate(1))

            assert await counters.take("b", self._rate(1)) == 0
            assert await counters.take("a", self._rate(1)) > 0

    async def test_a_cost_is_spent_at_once(self) -> None:
        async with self.open() as counters:
            first = await counters.take("k", self._rate(10), 8)
            refused = await counters.take("k", self._rate(10), 5)
            fits = await counters.take("k", self._rate(10), 2)

        assert (first, fits) == (0, 0)
        assert refused > 0

    async def test_more_than_a_burst_passes_only_on_a_full_budget(self) -> None:
        async with self.open() as counters:
            first = await counters.take("k", self._rate(5), 1000)
            second = await counters.take("k", self._rate(5), 1000)

        assert first == 0
        assert second > 0

    async def test_of_many_at_once_no_more_than_a_burst_pass(self) -> None:
        async with self.open() as counters:
            # Slow enough that nothing comes back meanwhile.
            rate = Rate(per_second=0.001, burst=5)

            waits = await asyncio.gather(*(counters.take("k", rate) for _ in range(20)))

        assert sum(wait == 0 for wait in waits) == 5
