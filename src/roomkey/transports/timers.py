"""Deadlines of tens of thousands of sockets with one timer of the event loop."""

import asyncio
import math
from typing import Protocol

import structlog

log = structlog.get_logger()


class Timed(Protocol):
    """What can wait in a wheel: in one place at a time, which ``slot`` remembers (-1: nowhere)."""

    slot: int

    def due(self) -> None:
        """The time is up; no longer in the wheel, and free to enter it again."""
        ...


class TimerWheel:
    """
    Calls ``due`` when a delay is over: never before it is, and at most two ticks after.

    Entering and leaving cost one set operation each, whatever else is waiting. While nothing waits,
    nothing ticks.
    """

    def __init__(self, *, tick: float, horizon: float) -> None:
        """``tick`` is the resolution and ``horizon`` the longest delay, in seconds."""
        self._tick = tick
        self._slots: list[set[Timed]] = [set() for _ in range(math.ceil(horizon / tick) + 2)]
        self._hand = 0
        self._waiting = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        """The loop on which this ticks, while it does."""

    @property
    def idle(self) -> bool:
        """Whether nothing ticks."""
        return self._loop is None

    def start(self, item: Timed, delay: float) -> None:
        """Let ``item`` wait for ``delay`` seconds from now, instead of what it was waiting for."""
        self.stop(item)
        # One more, because the current tick has partly passed.
        ticks = min(math.ceil(delay / self._tick) + 1, len(self._slots) - 1)
        item.slot = (self._hand + ticks) % len(self._slots)
        self._slots[item.slot].add(item)
        self._waiting += 1
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # not ticking, or for a loop that was stopped since
            self._loop = loop
            loop.call_later(self._tick, self._turn, loop)

    def stop(self, item: Timed) -> None:
        """Let ``item`` wait no longer, if it does."""
        if item.slot >= 0:
            self._slots[item.slot].discard(item)
            item.slot = -1
            self._waiting -= 1

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not loop:
            return
        self._hand = (self._hand + 1) % len(self._slots)
        due, self._slots[self._hand] = self._slots[self._hand], set()
        self._waiting -= len(due)
        for item in due:
            item.slot = -1
        for item in due:
            try:
                item.due()
            except Exception:
                log.exception("deadline_failed")
        if self._waiting:
            loop.call_later(self._tick, self._turn, loop)
        else:
            self._loop = None
