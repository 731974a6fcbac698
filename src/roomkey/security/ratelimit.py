"""How much is too much: the generic cell rate algorithm."""

from typing import Final

from roomkey.ports import Rate

_PRECISION_SECONDS: Final = 1e-6


def spend(rate: Rate, until: float, cost: float, now: float) -> tuple[float, float]:
    """
    Take ``cost`` from a budget: ``(until, wait)``, where ``wait`` is 0 if there was enough of it.

    ``until`` is all the state there is: the time at which the budget will be full again (ITU-T I.371 calls
    it the theoretical arrival time). Whoever is refused is charged nothing, and may come back after ``wait``
    seconds; a cost beyond the burst is granted to a full budget, or it never could be. Times are seconds on
    any clock; if that is set back, a budget is never fuller or emptier than the burst allows.
    """
    if until <= now and cost <= rate.burst:  # full, as that of everybody who is not in haste
        return now + cost / rate.per_second, 0.0
    capacity = rate.burst / rate.per_second
    # Comparisons instead of min() and max(): this is asked twice for every message.
    if until > now + capacity:  # noqa: PLR1730
        until = now + capacity
    cost = cost if cost < rate.burst else rate.burst  # noqa: FURB136
    ahead = (until if until > now else now) + cost / rate.per_second  # noqa: FURB136
    wait = ahead - now - capacity
    # Seconds since 1970 have steps of a quarter of a microsecond in floating point: less is no debt.
    return (ahead, 0.0) if wait <= _PRECISION_SECONDS else (until, wait)


class Bucket:
    """One budget of a ``Rate``, full at first."""

    __slots__ = ("_rate", "_until")

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._until = 0.0

    def take(self, cost: float, now: float) -> float:
        """Spend ``cost`` if there is enough, and return 0; otherwise how many seconds until there is."""
        if self._until <= now and cost <= self._rate.burst:  # full, as that of everybody who is not in haste
            self._until = now + cost / self._rate.per_second
            return 0.0
        self._until, wait = spend(self._rate, self._until, cost, now)
        return wait

    def rest(self, seconds: float, now: float) -> None:
        """Be empty, and begin to refill in so many ``seconds``."""
        self._until = now + seconds + self._rate.burst / self._rate.per_second

    def is_full(self, now: float) -> bool:
        """Whether nothing would be lost by forgetting this bucket."""
        return self._until <= now
