"""What is forgiven when, to the second."""

from datetime import timedelta

from roomkey.threats.decay import (
    MANY,
    MAX_STRIKES,
    WEIGHTS,
    Remainder,
    Strike,
    level,
    remaining,
    still_needed,
    weight_of,
)
from tests.support.sockets import NOON

MINUTE = timedelta(minutes=1)


def strike(number: int, *, after: int = 0, weight: int = 1) -> Strike:
    """So many seconds after noon."""
    return Strike(NOON + timedelta(seconds=after), number, weight, "malformed")


def test_a_cause_weighs_what_the_settings_say_or_else_the_table_or_else_one() -> None:
    known = next(iter(WEIGHTS))

    assert weight_of(known, {}) == WEIGHTS[known]
    assert weight_of(known, {known: 7}) == 7
    assert weight_of("of the application", {}) == 1


def test_what_is_forgiven_whole_is_gone_and_of_what_is_left_the_rest_counts() -> None:
    heavy = strike(1, weight=2)

    assert remaining([heavy], NOON + MINUTE - timedelta(seconds=1), MINUTE) == [Remainder(heavy, 2)]
    assert remaining([heavy], NOON + MINUTE, MINUTE) == [Remainder(heavy, 1)]
    assert remaining([heavy], NOON + 2 * MINUTE, MINUTE) == []


def test_an_interval_that_has_begun_goes_on_when_there_is_another_violation() -> None:
    first, second = strike(1, weight=3), strike(2, after=90)

    levels = [level([first, second], NOON + timedelta(seconds=after), MINUTE) for after in (90, 119, 120, 180, 240)]

    assert levels == [3, 3, 2, 1, 0]


def test_the_oldest_are_put_together_and_nothing_else_counts_for_it() -> None:
    run = [strike(number, after=number, weight=number % 3 + 1) for number in range(MAX_STRIKES + 5)]

    kept = still_needed(run, NOON + MINUTE, MINUTE)

    assert len(kept) == MAX_STRIKES
    assert (kept[0].cause, kept[0].number) == (MANY, 5)
    assert kept[1:] == tuple(run[6:])
    assert level(kept, NOON + MINUTE, MINUTE) == level(run, NOON + MINUTE, MINUTE)
