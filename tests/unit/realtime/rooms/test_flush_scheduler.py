"""When outboxes are flushed: at once, unless flushing has just taken long."""

import asyncio
from collections.abc import Callable

from roomkey.realtime.rooms.hub import FlushScheduler


class Flush:
    """A flush that takes as long as the test says, on a clock that only it moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.takes = 0.0
        self.done = 0
        self.pace = FlushScheduler(lambda: self.now)

    def __call__(self) -> None:
        self.done += 1
        self.now += self.takes


async def turns(until: Callable[[], bool]) -> int:
    """How many turns of the loop it takes."""
    count = 0
    async with asyncio.timeout(10):
        while not until():
            await asyncio.sleep(0)
            count += 1
    return count


async def test_a_short_flush_is_followed_by_the_next_in_the_next_turn() -> None:
    flush = Flush()
    flush.takes = 0.0004

    counts: list[int] = []
    for number in range(1, 4):
        flush.pace(flush)
        counts.append(await turns(lambda wanted=number: flush.done == wanted))

    assert counts == [1, 1, 1]


async def test_after_a_long_flush_others_get_as_much_time() -> None:
    flush = Flush()
    flush.takes = 0.003
    flush.pace(flush)
    await turns(lambda: flush.done == 1)

    flush.pace(flush)
    await asyncio.sleep(0)
    early = flush.done
    await turns(lambda: flush.done == 2)

    assert early == 1


async def test_once_the_rest_is_over_nothing_is_delayed() -> None:
    flush = Flush()
    flush.takes = 1.0
    flush.pace(flush)
    await turns(lambda: flush.done == 1)

    flush.now += 0.005
    flush.pace(flush)

    assert await turns(lambda: flush.done == 2) == 1
