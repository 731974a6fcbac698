"""What is asked for at about the same time is done together, and everyone gets an answer of their own."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import structlog

from roomkey.errors import RoomkeyError, Storage

Item = TypeVar("Item")

_log = structlog.get_logger("roomkey.storage")


class _Waiting(NamedTuple):
    item: Any
    future: "asyncio.Future[Any]"


class Grouped(Generic[Item]):
    """
    Collects items and hands them over in batches.

    While as many batches as ``in_flight`` are under way, the next one grows. ``do`` returns for each item of a batch
    what its caller gets; an exception is raised there. If it raises itself, all callers of the batch get that.
    """

    def __init__(
        self,
        do: Callable[[list[Item]], Awaitable[Sequence[Any]]],
        *,
        max_batch: int,
        max_waiting: int,
        in_flight: int = 1,
        patience: float = 10.0,
    ) -> None:
        self._do = do
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._in_flight = in_flight
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Waiting] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_scheduled = False
        self._room = asyncio.Event()

    def is_on_this_loop(self) -> bool:
        """Whether it was made on the loop that runs; it can be used on no other."""
        return self._loop is asyncio.get_running_loop()

    async def submit(self, item: Item) -> Any:
        """What became of ``item``. Waits for room when too many wait already."""
        while len(self._waiting) >= self._max_waiting:
            self._room.clear()
            try:
                async with asyncio.timeout(self._patience):
                    await self._room.wait()
            except TimeoutError:
                raise Storage("too much waits for the database") from None
        return await self.enqueue(item)

    def enqueue(self, item: Item) -> "asyncio.Future[Any]":
        """Like ``submit`` for what cannot wait for room. Nobody needs to look at the future."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append(_Waiting(item, future))
        if not self._is_scheduled and len(self._tasks) < self._in_flight:
            # In the next turn: until then, others may come.
            self._is_scheduled = True
            self._loop.call_soon(self._start)
        return future

    async def close(self) -> None:
        """Return when nothing is left to be done."""
        while self._waiting or self._tasks:
            await asyncio.wait(self._tasks) if self._tasks else await asyncio.sleep(0)

    def _start(self) -> None:
        self._is_scheduled = False
        while self._waiting and len(self._tasks) < self._in_flight:
            batch = [self._waiting.popleft() for _ in range(min(self._max_batch, len(self._waiting)))]
            # Whoever gave up before it began does not want it any more.
            batch = [each for each in batch if not each.future.done()]
            if batch:
                # A task of its own: the callers may be cancelled, and what the others wait for goes on.
                task = self._loop.create_task(self._run(batch))
                self._tasks.add(task)
                task.add_done_callback(self._ended)
        self._room.set()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._start()

    async def _run(self, batch: list[_Waiting]) -> None:
        try:
            outcomes = await self._do([each.item for each in batch])
        except RoomkeyError as error:
            outcomes = [error] * len(batch)
        except BaseException as error:
            _settle(batch, [Storage("the database could not be asked")] * len(batch))
            if not isinstance(error, Exception):
                raise
            _log.exception("storage_group_failed")
            return
        _settle(batch, outcomes)


def _settle(batch: list[_Waiting], outcomes: Sequence[Any]) -> None:
    for (_, future), outcome in zip(batch, outcomes, strict=True):
        if future.done():
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
            future.exception()  # asyncio then does not complain if nobody else looks at it
        else:
            future.set_result(outcome)
