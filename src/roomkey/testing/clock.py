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

    def advance(self, by: timedelta) -> datetime:
        """Move by ``by``, backwards if that is negative; returns the new time."""
        self._now += by
        return self._now
