"""One connection to a Redis, for all callers at once: what they ask in one tick of the loop is written together."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from roomkey.backends.recovery import Failure, Kind
from roomkey.backends.redis.failures import Broken, ReplyError
from roomkey.errors import ConfigurationError

try:
    import hiredis
except ImportError:
    raise ConfigurationError("a Redis needs hiredis: pip install 'roomkey[redis]'") from None

Argument = bytes | int | str
Command = tuple[Argument, ...]

_pack = cast("Callable[[Command], bytes]", vars(hiredis)["pack_command"])  # its stub has a tuple of one

_NOTHING: Final = object()
"""What the parser returns when it needs more bytes. Replies may be ``None`` and ``False``."""


class Batch:
    """Several replies that are awaited together."""

    __slots__ = ("future", "missing", "replies")

    def __init__(self, future: "asyncio.Future[list[Any]]", number: int) -> None:
        self.future = future
        self.missing = number
        self.replies: list[Any] = []

    def take(self, reply: Any) -> None:
        """Here is one of them."""
        self.replies.append(reply)
        self.missing -= 1
        if not self.missing and not self.future.done():
            self.future.set_result(self.replies)

    def fail(self, error: Broken) -> None:
        """There will be none."""
        if not self.future.done():
            self.future.set_exception(error)


class Connection(asyncio.Protocol):
    """
    A pipeline to one server.

    Replies come in the order of the requests. When one is late, whatever is on its way is given up and the connection
    closed: nobody can tell any more which reply belongs to whom. One timer watches all of them.
    """

    def __init__(self, *, timeout: float, max_in_flight: int, max_bytes: int) -> None:
        self.clock_difference = 0.0
        """Seconds by which the server's clock differed when the connection was opened."""
        self.version: tuple[int, ...] = ()
        """Of the server, as it says: that of the Redis which it is like."""
        self.run = b""
        """Names the process of the server: another one after it was started again. Empty if it does not say."""
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout
        self._max_in_flight = max_in_flight
        self._max_bytes = max_bytes
        self._reader = hiredis.Reader(replyError=ReplyError, notEnoughData=_NOTHING)
        self._transport: asyncio.Transport
        self._waiting: deque[asyncio.Future[Any] | Batch] = deque()
        self._outgoing: list[bytes] = []
        self._outgoing_bytes = 0
        self._unsent = 0
        """How many of those waiting have not been written yet; they are the last."""
        self._asked = 0
        self._answered = 0
        self._ticks: deque[tuple[int, float]] = deque()
        """For each write its time, and the number of requests until then."""
        self._timer: asyncio.TimerHandle | None = None
        self._is_paused = False
        self._room = asyncio.Event()
        self._lost: Failure | None = None
        self._closed = self._loop.create_future()

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be asked any more."""
        return self._lost is not None

    @property
    def is_crowded(self) -> bool:
        """Whether as much is on its way as may be, so that callers wait for ``room``."""
        return (
            len(self._waiting) >= self._max_in_flight or self._is_paused or self._outgoing_bytes >= self._max_bytes
        ) and self._lost is None

    async def room(self) -> None:
        """Return when the connection is not crowded, or closed."""
        while self.is_crowded:
            self._room.clear()
            await self._room.wait()

    # --- ask ------------------------------------------------------------------------------------------

    def send(self, command: Command) -> "asyncio.Future[Any]":
        """
        Ask, and get the reply in time.

        Raises:
            Broken: If the connection is closed, by the future if it closes before the reply.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self.put(command, future)
        return future

    def send_batch(self, commands: Sequence[Command]) -> "asyncio.Future[list[Any]]":
        """Ask for several things at once; replies that are errors are among the others."""
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        if not commands:
            future.set_result([])
            return future
        batch = Batch(future, len(commands))
        for command in commands:
            self.put(command, batch)
        return future

    def put(self, command: Command, waiter: "asyncio.Future[Any] | Batch") -> None:
        """Ask, and tell ``waiter``. Raises as ``send``."""
        if self._lost is not None:
            raise Broken(Failure(self._lost.kind, self._lost.detail, is_undone=True))
        packed = _pack(command)
        if not self._outgoing:
            self._loop.call_soon(self._write)
        self._outgoing.append(packed)
        self._outgoing_bytes += len(packed)
        self._waiting.append(waiter)
        self._unsent += 1

    def _write(self) -> None:
        if self._lost is not None or not self._outgoing:
            return
        self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()
        self._outgoing_bytes = 0
        self._asked += self._unsent
        self._unsent = 0
        self._ticks.append((self._asked, self._loop.time()))
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout, self._look_at_the_clock)

    def _look_at_the_clock(self) -> None:
        self._timer = None
        while self._ticks and self._ticks[0][0] <= self._answered:
            self._ticks.popleft()
        if not self._ticks:
            return
        left = self._ticks[0][1] + self._timeout - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look_at_the_clock)
        else:
            self.close(Failure(Kind.SLOW, f"no answer within {self._timeout:g} s"))

    # --- what the transport says ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand the replies to those who wait for them."""
        reader, waiting = self._reader, self._waiting
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not _NOTHING:
                if type(reply) is hiredis.PushNotification:
                    self.pushed(reply)
                    continue
                waiter = waiting.popleft()
                self._answered += 1
                if isinstance(waiter, Batch):
                    waiter.take(reply)
                elif not waiter.done():
                    if type(reply) is ReplyError:
                        waiter.set_exception(reply)
                    else:
                        waiter.set_result(reply)
        except (hiredis.ProtocolError, IndexError):
            self.close(Failure(Kind.WRONG, "what listens there is no Redis"))
        if not waiting:
            self._ticks.clear()
        self._let_in()

    def pushed(self, push: Sequence[Any]) -> None:
        """The server says something that it was not asked for: whoever has subscribed listens to that."""

    def answered(self, reply: Any) -> None:
        """Take a push for what whoever waits longest waits for."""
        waiter = self._waiting[0]
        assert isinstance(waiter, Batch)  # noqa: S101  # nobody else waits for pushes
        waiter.take(reply)
        if not waiter.missing:
            self._waiting.popleft()
            self._answered += 1

    @property
    def awaited(self) -> "asyncio.Future[Any] | Batch | None":
        """Who waits longest."""
        return self._waiting[0] if self._waiting else None

    def pause_writing(self) -> None:
        """Let nobody in: the server does not read."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Let callers in again."""
        self._is_paused = False
        self._let_in()

    def eof_received(self) -> None:
        """Close: the server has."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody who waits."""
        self.close(Failure(Kind.AWAY, "the connection broke" if exc is not None else "it closed the connection"))
        if not self._closed.done():
            self._closed.set_result(None)

    # --- the end --------------------------------------------------------------------------------------

    def close(self, why: Failure) -> None:
        """Give up what is on its way, and close. Of what was never written is said that it was not done."""
        if self._lost is not None:
            return
        self._lost = why
        if self._timer is not None:
            self._timer.cancel()
        self._transport.abort()
        undone = Failure(why.kind, why.detail, is_undone=True)
        sent = len(self._waiting) - self._unsent
        for number, waiter in enumerate(self._waiting):
            error = Broken(why if number < sent else undone)
            if isinstance(waiter, Batch):
                waiter.fail(error)
            elif not waiter.done():
                waiter.set_exception(error)
        self._waiting.clear()
        self._outgoing.clear()
        self._room.set()

    async def wait_closed(self) -> None:
        """Return when the socket is closed."""
        await asyncio.shield(self._closed)

    def _let_in(self) -> None:
        if not self._room.is_set() and not self.is_crowded:
            self._room.set()
