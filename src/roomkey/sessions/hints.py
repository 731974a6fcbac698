"""
Hints: what one node has committed about sessions is known on the others at once, before they read it in the log.

The log is the truth, and every node follows it. So a hint may be lost, repeated, late or out of order: whoever is told
of an event goes by its version, and of a gap nothing need be known but that the log is to be read.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import structlog
from msgspec import Struct

from roomkey.domain.session import AnyEvent, Created
from roomkey.errors import RoomkeyError, Serialization
from roomkey.ports import Broker, Publication
from roomkey.wire.node_format import NodeFormat

CHANNEL: Final = "\0s"

MAX_MESSAGE_BYTES: Final = 64 * 1024
"""Bytes of events in one message; a single event may be longer."""

MAX_WAITING: Final = 10_000
"""Events that wait to be sent. Beyond it the oldest are left to the log."""

PATIENCE_SECONDS: Final = 1.0
"""Time to send a message: after that, the others have read its events in the log."""

_log = structlog.get_logger("roomkey.sessions")


class SessionsChanged(Struct, frozen=True, tag="sessions_changed"):
    """
    Events of sessions that the sender has committed, as the log has them.

    ``sent_at`` is on the sender's own clock, for the sender alone: what comes back says how far it hears.
    """

    sent_at: float
    events: Sequence[bytes] = ()


class EventCodec(Struct, frozen=True):
    """How events are written in the log. ``decode`` raises ``Serialization`` for what it does not know."""

    encode: Callable[[AnyEvent], bytes]
    decode: Callable[[bytes], AnyEvent]


class HintListener(Struct, frozen=True):
    """
    Who is told what has come from others. None of these may wait or raise.

    ``events`` happened on another node; ``gap``: something may have been missed; ``echo``: a message came back that
    this node has sent at that moment of its loop's time, after everything that was said before.
    """

    events: Callable[[Sequence[AnyEvent]], None]
    gap: Callable[[], None]
    echo: Callable[[float], None]


class SessionHints:
    """The hints of this node to the others and theirs to it: a ``Receiver`` of ``CHANNEL``."""

    def __init__(self, broker: Broker, codec: EventCodec, listener: HintListener, *, node: str) -> None:
        self._broker = broker
        self._codec = codec
        self._listener = listener
        self._node = node
        self._format = NodeFormat[SessionsChanged](SessionsChanged)
        self._waiting: deque[bytes] = deque(maxlen=MAX_WAITING)
        self._wake = asyncio.Event()
        self._is_away = False
        self._unknown = 0

    @property
    def ignored(self) -> int:
        """Messages and events of others that this version does not know."""
        return self._format.ignored + self._unknown

    @asynccontextmanager
    async def at_work(self) -> AsyncGenerator[None]:
        """
        Hear what others say until this is left; ``run`` says what this node has to say.

        Raises:
            Storage: If the broker is away.
        """
        await self._broker.subscribe(CHANNEL, self)
        try:
            yield
        finally:
            with suppress(RoomkeyError):
                await self._broker.unsubscribe(CHANNEL)

    # --- what this node says --------------------------------------------------------------------------

    def announce(self, events: Sequence[AnyEvent]) -> None:
        """Let the others know of events that this node has committed, soon. Nobody can have a new session in use."""
        news = [self._codec.encode(event) for event in events if not isinstance(event, Created)]
        if news:
            self._waiting.extend(news)
            self._wake.set()

    async def run(self) -> None:
        """Send what is announced, until cancelled. What is announced meanwhile goes into the next message."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self.send()

    async def send(self) -> bool:
        """Send one message with what waits, or nothing but a sign of life; whether that was possible."""
        message = SessionsChanged(asyncio.get_running_loop().time(), self._next_events())
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._broker.publish(CHANNEL, self._format.encode(message), origin=self._node, keep=False)
        except (RoomkeyError, TimeoutError) as error:
            if not self._is_away:
                _log.warning("hints_not_sent", error=str(error) or "the broker did not answer in time")
            self._is_away = True
        else:
            self._is_away = False
        return not self._is_away

    def _next_events(self) -> list[bytes]:
        events, size, waiting = list[bytes](), 0, self._waiting
        while waiting and (not events or size + len(waiting[0]) <= MAX_MESSAGE_BYTES):
            size += len(waiting[0])
            events.append(waiting.popleft())
        return events

    # --- what others say ------------------------------------------------------------------------------

    def on_publication(self, publication: Publication) -> None:
        """Tell the listener what another node has committed, or how far this one hears."""
        message = self._format.decode(publication.message)
        if message is None:
            return
        if publication.origin == self._node:
            self._listener.echo(message.sent_at)
            return
        events = list[AnyEvent]()
        for record in message.events:
            try:
                events.append(self._codec.decode(record))
            except Serialization:  # of a newer version: whoever reads the log says so
                self._unknown += 1
        if events:
            self._listener.events(events)

    def on_gap(self) -> None:
        """What was missed is in the log."""
        self._listener.gap()
