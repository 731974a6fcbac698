"""How a suite lets time pass, whoever keeps it."""

from datetime import timedelta
from typing import ClassVar


class TimedSuite:
    """
    Time in these suites is counted in moments.

    A lifetime of several of them is not over within one, and is over after as many.
    """

    moment: ClassVar[timedelta] = timedelta(seconds=10)
    """Short where the tests have to wait for it, but longer than a few calls take."""

    async def pass_time(self, by: timedelta) -> None:
        """Return when ``by`` has passed for the implementation under test."""
        raise NotImplementedError
