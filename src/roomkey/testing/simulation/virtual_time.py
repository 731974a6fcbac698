"""Time that costs nothing, and chance that can be repeated: an event loop, clocks, and every source of random bytes."""

import asyncio
import gc
import random
from collections.abc import Callable, Coroutine, Generator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from typing import Any, Final, TypeVar
from unittest.mock import patch

T = TypeVar("T")

BEGIN: Final = datetime(2026, 1, 2, 12, tzinfo=UTC)
"""What a clock that goes right says when a history begins."""

MAX_LATENESS_SECONDS: Final = 0.001
"""How much later than asked a timer may ring: that decides the order of those that are due together."""

SHORT_LEASE: Final = timedelta(seconds=0.4)
"""How long a lease on a document lasts: holders outlive theirs where the store is slow."""

_SOURCES_OF_BYTES: Final = (
    "random._urandom",  # what `secrets` and `SystemRandom` draw from
    "roomkey.security.tokens.urandom",
    "roomkey.sessions.manager.urandom",
)


class Standstill(RuntimeError):
    """Nothing is left to happen, though somebody still waits."""


class VirtualLoop(asyncio.BaseEventLoop):
    """
    An event loop on which waiting takes no time: it jumps to the next timer.

    What was asked for with ``call_soon`` happens in that order, as asyncio promises; timers ring a bit late, by chance.
    There are no threads: what is given to an executor is done at once.
    """

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._moment = 0.0
        self._chance = chance.random
        self._numbers = count()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self.set_task_factory(self._new_task)  # pyright: ignore[reportArgumentType]  # the stubs want a protocol

    def time(self) -> float:
        """Seconds since the history began."""
        return self._moment

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:
        """Call ``callback`` at ``when``, or a bit later."""
        return self._put(when + self._chance() * MAX_LATENESS_SECONDS, callback, args, context)

    def ring(self, when: float, callback: Callable[..., object], *args: Any) -> None:
        """Call ``callback`` at ``when`` and not later: for what has drawn its delay, and keeps an order by it."""
        self._put(when, callback, args, None)

    def _put(self, when: float, callback: Callable[..., object], args: Any, context: Any) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> "asyncio.Future[T]":  # noqa: ARG002
        """Do it at once."""
        outcome: asyncio.Future[T] = self.create_future()
        try:
            outcome.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  # as an executor does
            outcome.set_exception(error)
        return outcome

    def _new_task(self, _: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], **more: Any) -> "_Task[T]":
        return _Task(work, number=next(self._numbers), loop=self, **more)

    # What follows are the parts of BaseEventLoop that ask the operating system.

    def _run_once(self) -> None:
        loop: Any = self
        ready, timers = loop._ready, self._timers
        while timers and timers[0][2].cancelled():
            heappop(timers)
        if not ready:
            if not timers:
                raise Standstill("nothing is left to happen")
            self._moment = max(self._moment, timers[0][0])
        while timers and timers[0][0] <= self._moment:
            timer = heappop(timers)[2]
            if not timer.cancelled():
                ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def _process_events(self, event_list: Any) -> None:
        pass


class _Task(asyncio.Task[T]):
    """A task whose place in a set does not depend on its address: groups cancel their tasks in the order of a set."""

    def __init__(self, work: Coroutine[Any, Any, T], *, number: int, **more: Any) -> None:
        self._number = number
        super().__init__(work, **more)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class NodeClock:
    """The clock of a node, which is wrong by ``offset``."""

    def __init__(self, loop: VirtualLoop, offset: timedelta = timedelta()) -> None:
        self._loop = loop
        self._begin = BEGIN + offset
        self._said = (-1.0, self._begin)

    def now(self) -> datetime:
        """What it says."""
        seconds = self._loop.time()
        if seconds != self._said[0]:
            self._said = (seconds, self._begin + timedelta(seconds=seconds))
        return self._said[1]


@contextmanager
def determined(chance: random.Random) -> Generator[VirtualLoop]:
    """A loop; while this is entered everything that is drawn by chance in this process is drawn from ``chance``."""
    loop = VirtualLoop(random.Random(chance.random()))  # noqa: S311  # not for secrets
    state = random.getstate()
    collects = gc.isenabled()
    with ExitStack() as patches:
        random.seed(chance.random())
        drawn = random.Random(chance.random()).randbytes  # noqa: S311
        for source in _SOURCES_OF_BYTES:
            patches.enter_context(patch(source, drawn))
        patches.enter_context(patch("roomkey.documents.loading.perf_counter", loop.time))
        patches.enter_context(patch("roomkey.documents.open_documents.give_back_memory", lambda: None))
        patches.enter_context(patch("roomkey.documents.turns.LIFETIME", SHORT_LEASE))
        gc.disable()  # what is finalised when must not depend on what the process did before
        try:
            yield loop
        finally:
            loop.close()
            random.setstate(state)
            if collects:
                gc.enable()
