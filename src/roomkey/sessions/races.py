"""What becomes of a command that was overtaken: it starts over, one task of this process at a time."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial, wraps
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

from roomkey.domain.session import SessionId
from roomkey.errors import Conflict, VersionMismatch

ATTEMPTS: Final = 16
"""How often a command starts over. Within a process its retries queue up, so only other processes use them up."""

FIRST_PAUSE_SECONDS: Final = 0.002

T = TypeVar("T")


class _Commands(Protocol):
    """Whoever has commands on sessions."""

    @property
    def races(self) -> "Races":
        """Those of this process."""
        ...


CommandsT = TypeVar("CommandsT", bound=_Commands)
P = ParamSpec("P")


def starts_over(
    command: Callable[Concatenate[CommandsT, SessionId, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[CommandsT, SessionId, P], Coroutine[Any, Any, T]]:
    """Let ``command`` decide again on fresh state after a lost race."""

    @wraps(command)
    async def persist(self: CommandsT, id: SessionId, *args: P.args, **details: P.kwargs) -> T:
        return await self.races.persist(id, partial(command, self, id, *args, **details))

    return persist


class Races:
    """One queue for each session that several tasks are changing at this moment."""

    def __init__(self) -> None:
        self._locks: dict[SessionId, tuple[asyncio.Lock, int]] = {}

    async def persist(self, id: SessionId, attempt: Callable[[], Awaitable[T]]) -> T:
        """
        Make the attempt to change a session, and make it again as long as others were faster.

        An attempt may not wait for another one of the same session: it may be its turn already.

        Raises:
            Conflict: If others kept changing the session, all the time.
        """
        try:
            return await attempt()
        except VersionMismatch:
            raise
        except Conflict:
            pass
        async with self._turn(id):
            for number in range(1, ATTEMPTS):
                try:
                    return await attempt()
                except VersionMismatch:
                    raise
                except Conflict:
                    pause = FIRST_PAUSE_SECONDS * 2 ** min(number, 7)
                    await asyncio.sleep(pause * random.random())  # noqa: S311  # jitter is no secret
        raise Conflict("the session is being changed too often")

    @asynccontextmanager
    async def _turn(self, id: SessionId) -> AsyncGenerator[None]:
        lock, waiting = self._locks.get(id, (None, 0))
        lock = lock or asyncio.Lock()
        self._locks[id] = lock, waiting + 1
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._locks.pop(id)
            if waiting > 1:
                self._locks[id] = lock, waiting - 1
