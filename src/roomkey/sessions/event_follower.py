"""Follow the event log, so that what other processes commit is known here too."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta

import structlog

from roomkey.domain.session import AnyEvent
from roomkey.errors import RoomkeyError
from roomkey.ports import EventLog

_log = structlog.get_logger("roomkey.relay")


class EventFollower:
    """
    Hands the events of a log to a listener: each at least once, in order within a partition.

    It begins with what is committed after ``start``. Events of this process arrive too, a second time, so the
    listener must not mind repetition. A log that is away is tried again, and nothing is skipped meanwhile.
    """

    def __init__(
        self,
        log: EventLog,
        listener: Callable[[Sequence[AnyEvent]], None],
        *,
        interval: timedelta = timedelta(milliseconds=250),
    ) -> None:
        self._log = log
        self._listener = listener
        self._interval = interval
        self._seen: dict[int, int] = {}

    async def start(self) -> None:
        """Take note of where the log ends now."""
        self._seen = dict(await self._log.heads())

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                await self.follow()
            except RoomkeyError as error:
                _log.warning("relay_failed", code=error.code, error=str(error))
            await asyncio.sleep(self._interval.total_seconds())

    async def follow(self) -> int:
        """Hand on everything that is new; returns how many events that was."""
        passed = 0
        for partition, head in (await self._log.heads()).items():
            while self._seen.get(partition, 0) < head:
                batch = await self._log.events(partition, self._seen.get(partition, 0))
                if not batch:
                    # The missing ones were purged before anyone here could read them.
                    self._seen[partition] = head
                    break
                self._listener([logged.event for logged in batch])
                self._seen[partition] = batch[-1].sequence
                passed += len(batch)
        return passed
