"""A clock that stands still until a test moves it."""

from datetime import datetime, timedelta


class ManualClock:
    """
    ``ports.Clock`` for tests.

    It may be set back too: clocks of real machines are.
    """

    def __init__(self, now: datetime) -> None:
        self._now = now

    def now(self) -> datetime:
        """The moment at which it was set."""
        return self._now

    def advance(self, by: timedelta = timedelta(), **duration: float) -> datetime:
        """
        Move by ``by`` and by ``duration``, in the words of ``timedelta``; returns the new time.

        What is negative moves it backwards.
        """
        self._now += by + timedelta(**duration)
        return self._now
