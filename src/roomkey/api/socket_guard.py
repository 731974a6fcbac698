"""Sockets of other applications behind sessions: each ends with its session, whatever its application is doing."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta

from starlette.types import Message, Receive, Send

from roomkey.api.session_limits import SessionLimits
from roomkey.domain import lifecycle
from roomkey.domain.session import AnyEvent, Session
from roomkey.errors import Invalidated, RoomkeyError, TokenRotated
from roomkey.problems import presentation_of
from roomkey.sessions.manager import SessionManager
from roomkey.wire.close import CloseCode


class SocketGuards:
    """The guards of all open sockets of one application; they learn of every event of ``sessions``."""

    def __init__(self, sessions: SessionManager) -> None:
        self._guards: defaultdict[str, set[SocketGuard]] = defaultdict(set)
        """By user: a revocation ends sessions that no event names."""
        sessions.on_events(self._happened)

    @contextmanager
    def entered(self, guard: "SocketGuard") -> Generator[None]:
        """Let ``guard`` know when something happens to its user's sessions, until the block is left."""
        user = guard.session.user_id
        self._guards[user].add(guard)
        try:
            yield
        finally:
            self._guards[user].discard(guard)
            if not self._guards[user]:
                del self._guards[user]

    def _happened(self, events: Sequence[AnyEvent]) -> None:
        for user in {event.user for event in events}:
            for guard in self._guards.get(user, ()):
                guard.doubt()


class SocketGuard:
    """
    Stands between one WebSocket and its application: nothing passes once the session has ended.

    What this process does to the session is looked at at once, and so is a deadline that passes. What other
    processes do is found at the first message after ``interval``.
    """

    def __init__(
        self,
        sessions: SessionManager,
        session: Session,
        receive: Receive,
        send: Send,
        *,
        interval: timedelta,
        limits: SessionLimits,
    ) -> None:
        self.session = session
        self._limits = limits
        self._counts = True
        self._sessions = sessions
        self._interval = interval
        self._receive = receive
        self._send = send
        self._looked_at = sessions.clock.now()
        self._doubts = 0
        self._settled = 0
        self._news = asyncio.Event()
        self._waiting: asyncio.Timeout | None = None
        self._is_over = False
        self._is_closed = False

    def waive(self) -> None:
        """Count no messages: whoever is behind this does it."""
        self._counts = False

    def doubt(self) -> None:
        """Something may have happened to the session: let nothing pass until it has been looked at."""
        self._doubts += 1
        self._news.set()

    @asynccontextmanager
    async def watching(self) -> AsyncGenerator[None]:
        """End the socket when its session ends, until the block is left."""
        try:
            async with asyncio.TaskGroup() as tasks:
                watch = tasks.create_task(self._watch())
                try:
                    yield
                finally:
                    # Once it is over, the watch is saying so to the client, and ends by itself.
                    if not self._is_over:
                        watch.cancel()
        except BaseExceptionGroup as failures:
            # What the application raised, wrapped up by the group.
            raise failures.exceptions[0] from None

    # --- what the application uses --------------------------------------------------------------------

    async def receive(self) -> Message:
        """What the client says; that it has gone, once the session has ended."""
        message = await self._receive_unless_over()
        if message["type"] == "websocket.receive":
            if not await self._is_good():
                return _gone()
            if self._counts and (closing := await self._limits.check_message(self.session, message)) is not None:
                await self._close(*closing)
                return _gone(closing[0])
        if message["type"] == "websocket.disconnect":
            self._is_closed = True
        return message

    async def send(self, message: Message) -> None:
        """Send what the application says while the session is good, and nothing afterwards."""
        if not await self._is_good():
            return
        if message["type"] == "websocket.close":
            self._is_closed = True
        await self._send(message)

    async def _receive_unless_over(self) -> Message:
        if self._is_over:
            return _gone()
        try:
            async with asyncio.timeout(None) as self._waiting:
                return await self._receive()
        except TimeoutError:
            if not self._is_over:
                raise
            return _gone()
        finally:
            self._waiting = None

    # --- the session ----------------------------------------------------------------------------------

    async def _is_good(self) -> bool:
        now = self._sessions.clock.now()
        if not self._is_over and now - self._looked_at >= self._interval:
            self._looked_at = now
            await self._look(touch=True)
        elif not self._is_over and self._settled < self._doubts:
            await self._look()
        return not self._is_over

    async def _watch(self) -> None:
        while not self._is_over:
            # A deadline that passed may have been moved by what others did: the look tells.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds_left()):
                    await self._news.wait()
            self._news.clear()
            if not self._is_over:
                await self._look()

    def _seconds_left(self) -> float | None:
        deadline = lifecycle.deadline(self.session)
        return None if deadline is None else (deadline - self._sessions.clock.now()).total_seconds()

    async def _look(self, *, touch: bool = False) -> None:
        doubts = self._doubts
        try:
            self.session = await usable(self._sessions, self.session)
            await self._limits.check_violations(self.session)
            if touch:
                await self._sessions.touch(self.session.id)
        except RoomkeyError as end:
            await self._end(end)
        else:
            self._settled = max(self._settled, doubts)

    async def _end(self, end: RoomkeyError) -> None:
        await self._close(presentation_of(end).close_code, end.code)

    async def _close(self, code: CloseCode, reason: str) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._news.set()
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())
        if self._is_closed:
            return
        with suppress(OSError):  # of which the errors are that servers raise when the client has gone
            await self._send({"type": "websocket.close", "code": code, "reason": reason})


async def usable(sessions: SessionManager, session: Session) -> Session:
    """
    The session as it is now.

    Raises:
        Expired, Invalidated, Suspended, TokenRotated: If it cannot be used any more.
        RoomkeyError: If that cannot be found out.
    """
    now = await sessions.get_session(session.id)
    if now is None:
        raise Invalidated("the session was deleted")
    lifecycle.check_usable(now, even_pending=True)
    if now.exclusive_since != session.exclusive_since:
        raise TokenRotated("what opened this is void since a log-in")
    return now


def _gone(code: CloseCode = CloseCode.UNAUTHENTICATED) -> Message:
    return {"type": "websocket.disconnect", "code": code}
