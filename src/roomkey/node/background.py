"""What a node does besides answering, for as long as it runs."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final

import structlog

_log = structlog.get_logger("roomkey.node")

Work = Callable[[], Awaitable[None]]

FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 60.0

ALARM: Final = timedelta(minutes=2)
"""How long health stays degraded after a background task failed: longer than the longest pause before a new try."""


class BackgroundTasks:
    """Work that goes on until it is stopped: if it fails, that is reported, and it is started again after a pause."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._failed: dict[str, datetime] = {}

    def degradations(self) -> Mapping[str, str]:
        """The tasks that failed within ``ALARM``, and when."""
        since = self._now() - ALARM
        return {name: f"failed at {at:%H:%M:%S}Z" for name, at in self._failed.items() if at > since}

    @asynccontextmanager
    async def at_work(self, works: Mapping[str, Work]) -> AsyncGenerator[None]:
        """Run all of them, each by its name, until this is left."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._keep_doing(name, work)) for name, work in works.items()]
                try:
                    yield
                finally:
                    for task in tasks:
                        task.cancel()
        except BaseExceptionGroup as failures:
            # No task of ours raises, so this is what the block raised, wrapped up by the group.
            raise failures.exceptions[0] from None

    async def _keep_doing(self, name: str, work: Work) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            begun = self._now()
            try:
                await work()
            except Exception:  # noqa: BLE001  # whatever it was, the next try may succeed
                self._failed[name] = self._now()
                _log.exception("background_task_failed", task=name, next_try_in_seconds=pause)
                if _is_cancelled():
                    return
            else:
                return
            await asyncio.sleep(pause)
            healthy = self._now() - begun > ALARM
            pause = FIRST_PAUSE_SECONDS if healthy else min(pause * 2, LONGEST_PAUSE_SECONDS)


def _is_cancelled() -> bool:
    # A task that is cancelled and fails meanwhile raises the failure: that must not pass for a wish to go on.
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
