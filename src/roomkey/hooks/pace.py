"""How fast an endpoint is asked: at full speed, or, while it is away, one message at a time with growing pauses."""

import asyncio
import random
from collections.abc import Callable
from typing import Final

AWAY_AFTER: Final = 5
"""Failures in a row after which an endpoint counts as away."""

FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 60.0
"""Longest pause between two tries while an endpoint is away, so that it hears of everything soon after it is back."""

LONGEST_WAIT_SECONDS: Final = 3600.0
"""Longest pause before a message is tried again that fails although others arrive."""


def pause_after(failures: int, longest: float, draw: Callable[[float, float], float] = random.uniform) -> float:
    """
    Seconds to wait after so many failures in a row: exponential backoff with full jitter.

    Drawn anywhere up to the limit, so that those who failed together do not come back together.
    """
    return draw(0.0, min(longest, FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 32)))


class Pace:
    """Whose turn it is to send to one endpoint. All on one event loop."""

    def __init__(self, time: Callable[[], float]) -> None:
        """``time`` is that of the loop."""
        self._time = time
        self._failures = 0
        self._probes = 0
        """How many messages in a row have failed that were sent alone."""
        self._is_probing = False
        self._changed = asyncio.Event()
        self.not_before = 0.0

    @property
    def is_away(self) -> bool:
        """Whether the endpoint does not answer."""
        return self._failures >= AWAY_AFTER

    async def turn(self) -> bool:
        """
        Wait until a message may be sent; whether it is sent alone, to see if the endpoint is back.

        Whoever sends it tells ``answered``, ``failed`` or ``pass_on`` what came of it.
        """
        while self.is_away:
            if self._is_probing:
                await self._changed.wait()
                continue
            self._is_probing = True
            try:
                while self.is_away and (pause := self.not_before - self._time()) > 0:
                    await _wait(self._changed, pause)
            except BaseException:
                self.pass_on()
                raise
            return True
        return False

    def answered(self) -> bool:
        """It has taken a message; whether it was away."""
        was_away = self.is_away
        self._failures = self._probes = 0
        self._is_probing = False
        if was_away:
            self._change()
        return was_away

    def failed(self, *, alone: bool, retry_after: float | None = None) -> None:
        """
        It has not taken a message, and wants to be asked again in so many seconds, if it said so.

        Those that were under way when it went away say no more than the first of them: only what was sent ``alone``
        makes pauses longer.
        """
        was_away = self.is_away
        self._failures += 1
        if retry_after:
            self._failures = max(self._failures, AWAY_AFTER)
        if alone:
            self._probes += 1
            self._is_probing = False
        if self.is_away and (alone or not was_away):
            pause = pause_after(self._probes + 1, LONGEST_PAUSE_SECONDS)
            self.not_before = self._time() + min(LONGEST_PAUSE_SECONDS, max(pause, retry_after or 0.0))
            self._change()

    def pass_on(self) -> None:
        """Nothing was sent: it is the next one's turn."""
        self._is_probing = False
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
