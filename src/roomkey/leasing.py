"""Doing on one node at a time what must be done once: under a lease, which is renewed while the work goes on."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Final, TypeVar

from roomkey.errors import LeaseLost, RoomkeyError
from roomkey.ports import Leases

LIFETIME: Final = timedelta(seconds=15)
"""How long others wait for a node that died at its work."""

RENEWALS: Final = 3
"""How often within its lifetime a lease is renewed."""

T = TypeVar("T")


class Chore:
    """
    Work that one node at a time does, under the lease ``name``.

    What is written belongs with the fencing token that the work is given: a lease says who may begin, not that
    nobody else is still at it. A chore that ``keeps`` its lease has it until ``release``, so that one node does it
    round after round, and others take over when that dies.
    """

    def __init__(
        self, leases: Leases, name: str, holder: str, *, lifetime: timedelta = LIFETIME, keeps: bool = False
    ) -> None:
        """``holder`` is this node. A lease that is kept must last longer than the time between two rounds."""
        self.name = name
        self._leases = leases
        self._holder = holder
        self._lifetime = lifetime
        self._keeps = keeps
        self._token: int | None = None

    @property
    def is_ours(self) -> bool:
        """Whether this node had the lease when that was last asked."""
        return self._token is not None

    async def attempt(self, work: Callable[[int], Awaitable[T]]) -> T | None:
        """
        What ``work`` returns, which is given the fencing token; ``None`` if another node is at it.

        If the lease is lost, or cannot be renewed until it is over, the work is cancelled.

        Raises:
            LeaseLost: If that happened.
            Storage: If the leases are away. Otherwise what ``work`` raises.
        """
        now = asyncio.get_running_loop().time
        begun = now()
        token = self._token = await self._leases.acquire(self.name, self._holder, self._lifetime)
        if token is None:
            return None
        limit = asyncio.timeout_at(begun + self._lifetime.total_seconds())
        try:
            async with limit:
                return await self._work(work, token, limit)
        except TimeoutError:
            if not limit.expired():
                raise
            self._token = None
            raise LeaseLost(f"the lease {self.name!r} was lost while the work went on") from None
        finally:
            if not self._keeps:
                await self.release()

    async def _work(self, work: Callable[[int], Awaitable[T]], token: int, limit: asyncio.Timeout) -> T:
        try:
            async with asyncio.TaskGroup() as group:
                renewing = group.create_task(self._keep_renewing(token, limit))
                try:
                    return await work(token)
                finally:
                    renewing.cancel()
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None  # renewing raises nothing, so this is what the work raised

    async def _keep_renewing(self, token: int, limit: asyncio.Timeout) -> None:
        """Move the limit on as long as the lease is held."""
        now = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(self._lifetime.total_seconds() / RENEWALS)
            begun = now()
            with suppress(RoomkeyError):  # it may answer the next time; if not, the limit comes by itself
                is_held = await self._leases.renew(self.name, token, self._lifetime)
                limit.reschedule(begun + self._lifetime.total_seconds() if is_held else now())
                if not is_held:
                    return

    async def release(self) -> None:
        """Let others begin."""
        token, self._token = self._token, None
        if token is not None:
            with suppress(RoomkeyError):  # it ends by itself
                await self._leases.release(self.name, token)
