"""How much a session sends beside how much it usually does. Pure."""

from typing import Final

WINDOW_SECONDS: Final = 5.0
"""Messages are counted over so long; nothing is done per message."""

WARM_UP: Final = 12
"""Windows before anything can be unusual: one minute."""

SLOWEST: Final = 20.0
"""Messages per second below which nothing is unusual: somebody who types fast, with a cursor."""

UNUSUAL: Final = 4.0
"""As many times the usual is unusual; twice that is as unusual as can be."""

SHARE: Final = 0.05
"""Share of a new window in the average."""

MOST_LEARNT: Final = 2.0
"""A window counts as at most so many times what is usual."""


class Pace:
    """
    The average of messages per second of one session; recent windows count more.

    It begins as the first windows are. Then nobody teaches it faster than by ``SHARE`` of itself per window: whoever
    sends four times the usual for an hour has been noticed long before that is usual.
    """

    __slots__ = ("_mean", "_windows")

    def __init__(self) -> None:
        self._mean = 0.0
        self._windows = 0

    @property
    def usual(self) -> float:
        """Messages per second that are not unusual at all."""
        return max(SLOWEST / UNUSUAL, self._mean)

    def surprise(self, rate: float) -> float:
        """How unusual ``rate`` messages per second are: 0 to 1, and never less for more of them."""
        times = rate / self.usual
        if self._windows < WARM_UP or times < UNUSUAL:
            return 0.0
        return min(1.0, times / (2 * UNUSUAL))

    def learn(self, rate: float) -> None:
        """A window with ``rate`` messages per second is over."""
        self._windows += 1
        if self._windows > WARM_UP:
            rate = min(rate, MOST_LEARNT * self.usual)
        self._mean += max(SHARE, 1 / self._windows) * (rate - self._mean)
