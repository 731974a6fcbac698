"""Follow the event log, so that what any process commits is known to whoever makes something of it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import structlog

from roomkey.errors import RoomkeyError, Storage
from roomkey.ports import Checkpoints, EventConsumer, EventLog

_log = structlog.get_logger("roomkey.sessions")


class EventFollower:
    """
    Hands the events of a log to one consumer: each at least once, in order within a partition.

    Every consumer has a follower of its own, so that none waits for another, and a partition that fails does not
    hold up the others. Nothing is queued: what a consumer has not dealt with stays in the log. With ``checkpoints``
    the consumer goes on where it left off, at first with the oldest event that there is; without them it begins
    with what is committed after ``start``. Events of this process arrive too.
    """

    def __init__(
        self,
        log: EventLog,
        consumer: EventConsumer,
        *,
        name: str,
        checkpoints: Checkpoints | None = None,
        interval: timedelta = timedelta(milliseconds=250),
        caught_up: Callable[[float], None] | None = None,
    ) -> None:
        """``caught_up`` is told when the loop's time was up to which everything has been dealt with."""
        self._log = log
        self._consumer = consumer
        self._name = name
        self._checkpoints = checkpoints
        self._interval = interval
        self._positions: dict[int, int] = {}
        self._failing: set[int] = set()
        self._caught_up = caught_up
        self._hurry = asyncio.Event()

    async def start(self) -> None:
        """Find out where to begin."""
        checkpoints = self._checkpoints
        self._positions = dict(await (self._log.heads() if checkpoints is None else checkpoints.load(self._name)))

    async def run(self) -> None:
        """Follow until cancelled. A log that is away is tried again; that is reported once, until it is back."""
        is_away = False
        while True:
            try:
                await self.follow()
            except RoomkeyError as error:
                if not is_away:
                    _log.warning("log_not_followed", consumer=self._name, code=error.code, error=str(error))
                is_away = True
            else:
                is_away = False
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval.total_seconds()):
                    await self._hurry.wait()
            self._hurry.clear()

    def hurry(self) -> None:
        """Look at once, and not only when it is time."""
        self._hurry.set()

    async def follow(self) -> int:
        """Hand on everything that is new; returns how many events that was."""
        passed, begun = 0, asyncio.get_running_loop().time()
        heads = await self._log.heads()
        for partition in sorted(heads.keys() | self._positions.keys()):
            try:
                passed += await self._catch_up(partition, heads.get(partition, 0))
            except Exception as error:  # noqa: BLE001  # whatever it was: the next round begins where this one ended
                self._failed(partition, error)
            else:
                self._failing.discard(partition)
        if self._caught_up is not None and not self._failing:
            self._caught_up(begun)
        return passed

    async def _catch_up(self, partition: int, head: int) -> int:
        passed = 0
        if self._positions.get(partition, 0) > head:
            await self._rewind(partition, head)
        while (position := self._positions.get(partition, 0)) < head:
            batch = await self._log.events(partition, position)
            last_missing = batch[0].sequence - 1 if batch else head
            if last_missing > position:
                await self._miss(partition, position + 1, last_missing)
                await self._advance(partition, last_missing)
            if batch:
                await self._consumer.consume(partition, batch)
                passed += len(batch)
                await self._advance(partition, batch[-1].sequence)
            await asyncio.sleep(0)  # others have their turn between the parts of a long log
        return passed

    async def _rewind(self, partition: int, head: int) -> None:
        """Begin anew with a log that ends before what was read of it: what it says now may be something else."""
        oldest = await self._log.events(partition, limit=1)
        await self._miss(partition, head + 1, self._positions[partition])
        await self._advance(partition, oldest[0].sequence - 1 if oldest else head)

    async def _miss(self, partition: int, first: int, last: int) -> None:
        _log.error("events_missed", consumer=self._name, partition=partition, first=first, last=last)
        await self._consumer.gap(partition, first, last)

    async def _advance(self, partition: int, sequence: int) -> None:
        # Noted here first: a checkpoint that cannot be saved is no reason to repeat events before the next start.
        self._positions[partition] = sequence
        if self._checkpoints is not None:
            await self._checkpoints.save(self._name, partition, sequence)

    def _failed(self, partition: int, error: Exception) -> None:
        # Once, until it works again: rounds are short, and there are many partitions.
        if partition in self._failing:
            return
        self._failing.add(partition)
        about = {"consumer": self._name, "partition": partition}
        if isinstance(error, Storage):
            _log.warning("following_failed", **about, code=error.code, error=str(error))
        else:
            _log.error("following_failed", **about, exc_info=error)
