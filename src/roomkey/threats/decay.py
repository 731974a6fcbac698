"""How what was done stops counting: violations one by one, signals by half-lives. Pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from msgspec import Struct

WEIGHTS: Final[Mapping[str, int]] = {
    "malformed": 1,  # after the patience of a socket
    "oversized": 1,
    "inspection": 1,
    "forbidden": 2,  # after the patience of a socket
    "limits_ignored": 2,
    "forged": 4,  # no client gets there by accident
    "forged_update": 4,
}
"""
How many violations one counts as, by its cause; every other counts as one.

Whole numbers: if what is forgiven at once could be parts of several, one more violation might lower the level.
"""

MAX_STRIKES: Final = 64
"""Strikes of a session that are kept apart."""

MANY: Final = "many"
"""The cause of strikes that were put together."""

CARRIED: Final = "carried"
"""The cause of what a session begins with because of another one of its user."""


class Strike(Struct, frozen=True, array_like=True, gc=False):
    """
    A violation that may still count.

    ``number`` is the version of the session after it, so that it counts once however often it is heard of; 0 stands for
    what was carried over from another session of the user.
    """

    # The order is a part of what is stored.
    at: datetime
    number: int
    weight: int
    cause: str


class Remainder(NamedTuple):
    """How much of a strike still counts."""

    strike: Strike
    left: int


def weight_of(cause: str, weights: Mapping[str, int]) -> int:
    """How much a violation counts, by the settings or else by the table."""
    return weights.get(cause, WEIGHTS.get(cause, 1))


def remaining(strikes: Iterable[Strike], now: datetime, interval: timedelta) -> list[Remainder]:
    """
    What of ``strikes`` counts at ``now``, oldest first. The order in which they are given makes no difference.

    One is forgiven per ``interval``, the oldest first, from the first one on that counted while nothing else did. An
    interval that has begun forgives nothing, and a clock that was set back neither.
    """
    return _replay(strikes, now, interval)[1]


def still_needed(strikes: Iterable[Strike], now: datetime, interval: timedelta) -> tuple[Strike, ...]:
    """
    Those of ``strikes`` on which ``remaining`` depends: all since the last time at which nothing counted.

    At most ``MAX_STRIKES``: the oldest are put together, which makes no difference to what counts from now on.
    """
    run = sorted(_replay(strikes, now, interval)[0], key=_age)
    surplus = len(run) - MAX_STRIKES
    if surplus <= 0:
        return tuple(run)
    oldest, rest = run[: surplus + 1], run[surplus + 1 :]
    number = max(strike.number for strike in oldest)
    return Strike(oldest[0].at, number, sum(strike.weight for strike in oldest), MANY), *rest


def level(strikes: Iterable[Strike], now: datetime, interval: timedelta) -> int:
    """How many violations count at ``now``."""
    return sum(remainder.left for remainder in remaining(strikes, now, interval))


def faded(amount: float, since: datetime, now: datetime, half_life: timedelta) -> float:
    """What is left at ``now`` of ``amount`` at ``since``; a clock that was set back makes no more of it."""
    if now <= since:
        return amount
    return amount * 0.5 ** ((now - since) / half_life)


def _replay(strikes: Iterable[Strike], now: datetime, interval: timedelta) -> tuple[list[Strike], list[Remainder]]:
    """The strikes since nothing counted, and what of them does."""
    run: list[Strike] = []
    counting: list[Remainder] = []
    anchor = now  # until there is a strike
    for strike in sorted(strikes, key=_age):
        if counting:
            anchor = _forgive(counting, anchor, strike.at, interval)
        if not counting:
            anchor, run = strike.at, []
        run.append(strike)
        counting.append(Remainder(strike, strike.weight))
    if counting:
        _forgive(counting, anchor, now, interval)
    return (run if counting else []), counting


def _forgive(counting: list[Remainder], anchor: datetime, until: datetime, interval: timedelta) -> datetime:
    """Forgive what is due from ``anchor`` to ``until``, and return from when on time counts for the next one."""
    steps = max(0, (until - anchor) // interval)
    due = steps
    while counting and due > 0:
        strike, left = counting[0]
        if left > due:
            counting[0] = Remainder(strike, left - due)
            break
        due -= left
        del counting[0]
    return anchor + steps * interval


def _age(strike: Strike) -> tuple[datetime, int]:
    return strike.at, strike.number
