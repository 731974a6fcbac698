"""A loop in which waiting takes no time: what would sleep for seconds is over at once, in the same order."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec

P = ParamSpec("P")


class NothingWillHappen(AssertionError):
    """Everybody waits, and nothing is scheduled that could end it."""


class _Jumping(selectors.DefaultSelector):
    """Does not wait; ``jumped`` is how long it should have waited so far."""

    def __init__(self) -> None:
        super().__init__()
        self.jumped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events:
            return events
        if timeout is None:
            raise NothingWillHappen
        self.jumped += max(timeout, 0.0)
        return events


class HastyLoop(asyncio.SelectorEventLoop):
    """When nothing is ready, its time jumps to the next timer. Deadlocks raise ``NothingWillHappen``."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.jumped


TIME_LIMIT_SECONDS = 10_000
"""Of the loop's own time: so that who tries for ever is stopped some time."""


def run_in_no_time(work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` to its end on a loop of its own."""

    async def limited() -> None:
        async with asyncio.timeout(TIME_LIMIT_SECONDS):
            await work

    with asyncio.Runner(loop_factory=HastyLoop) as runner:
        runner.run(limited())


def in_no_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Let an asynchronous test run on such a loop."""

    @wraps(test)
    def run(*args: P.args, **fixtures: P.kwargs) -> None:
        run_in_no_time(test(*args, **fixtures))

    return run
