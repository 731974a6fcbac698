"""An endpoint that is away is asked by one at a time, and by all when it is back."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from roomkey.hooks.pace import AWAY_AFTER, LONGEST_PAUSE_SECONDS, Pace, pause_after


def away(pace: Pace) -> Pace:
    for _ in range(AWAY_AFTER):
        pace.failed(alone=False)
    return pace


@given(failures=st.integers(1, 1_000), longest=st.floats(1, 3600), share=st.floats(0, 1))
def test_a_pause_is_drawn_from_nothing_up_to_a_limit_that_doubles(failures: int, longest: float, share: float) -> None:
    pause = pause_after(failures, longest, lambda low, high: low + share * (high - low))

    assert 0 <= pause <= longest
    assert pause_after(failures, longest, lambda _, high: high) == min(longest, 2.0 ** (min(failures, 33) - 1))


async def test_an_endpoint_that_answers_is_asked_by_everybody() -> None:
    pace = Pace(lambda: 0.0)
    for _ in range(AWAY_AFTER - 1):
        pace.failed(alone=False)
    pace.answered()
    for _ in range(AWAY_AFTER - 1):
        pace.failed(alone=False)

    assert not pace.is_away
    assert await asyncio.wait_for(pace.turn(), 1) is False


async def test_while_it_is_away_one_asks_and_the_others_wait_for_what_comes_of_it() -> None:
    now = 0.0
    pace = away(Pace(lambda: now))
    now = LONGEST_PAUSE_SECONDS
    probing = await pace.turn()
    others = [asyncio.ensure_future(pace.turn()) for _ in range(3)]
    await asyncio.sleep(0)

    assert probing
    assert not any(other.done() for other in others)

    assert pace.answered()  # it was away

    assert await asyncio.gather(*others) == [False] * 3


async def test_those_that_were_under_way_make_no_pause_longer() -> None:
    pace = away(Pace(lambda: 0.0))
    for _ in range(1_000):
        pace.failed(alone=False)

    assert pace.not_before <= 1.0


async def test_what_it_asks_for_is_waited_for_up_to_a_minute() -> None:
    pace = Pace(lambda: 100.0)
    pace.failed(alone=False, retry_after=7.0)
    soon = pace.not_before
    pace.failed(alone=True, retry_after=100_000.0)

    assert pace.is_away
    assert soon >= 107.0
    assert pace.not_before == 100.0 + LONGEST_PAUSE_SECONDS


async def test_whoever_goes_away_while_it_waits_leaves_the_turn_to_others() -> None:
    pace = away(Pace(lambda: 0.0))
    pace.not_before = 1e9
    waiting = asyncio.ensure_future(pace.turn())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    pace.not_before = 0.0

    assert await asyncio.wait_for(pace.turn(), 1)
