"""What the sockets of a node share: who is connected, when they are looked at, and what they ask of storage."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from roomkey import errors
from roomkey.documents.settings import DocumentSettings
from roomkey.domain.session import Session, SessionId
from roomkey.errors import RoomkeyError
from roomkey.ports import Clock
from roomkey.problems import presentation_of
from roomkey.realtime.clients.client import RealtimeClient
from roomkey.realtime.protocol.json_messages import ErrorCode, Fault
from roomkey.realtime.registry import Deadlines, Registry
from roomkey.realtime.rooms.rooms import Rooms
from roomkey.realtime.session.effects import Authenticate, Verify
from roomkey.realtime.session.limits import LimitsOfSessions, SessionLimits
from roomkey.realtime.settings import RealtimeSettings

AnyClient = RealtimeClient[Any]
"""A peer of whatever protocol."""


class Connections:
    """The ``ClientHost`` of all peers of this node."""

    def __init__(self, settings: RealtimeSettings, documents: DocumentSettings, clock: Clock, rooms: Rooms) -> None:
        self.rooms = rooms
        self.now = clock.now
        self.registry: Registry[AnyClient] = Registry()
        self.deadlines: Deadlines[AnyClient] = Deadlines()
        self.limits = LimitsOfSessions(settings, documents)
        self.questions: asyncio.Queue[tuple[AnyClient, Authenticate | Verify]] = asyncio.Queue(settings.max_questions)
        self.messages_in = 0
        self.bytes_in = 0
        self._sweep_every = settings.repeat_window / 4
        self._next_sweep: datetime | None = None
        self._touched: dict[SessionId, None] = {}

    def received(self, size: int) -> None:
        """A message came in."""
        self.messages_in += 1
        self.bytes_in += size

    def ask(self, client: AnyClient, question: Authenticate | Verify) -> None:
        """Put a question to storage, unless too many wait already: then it fails at once."""
        try:
            self.questions.put_nowait((client, question))
        except asyncio.QueueFull:
            now = self.now()
            if isinstance(question, Verify):
                effects = client.connection.unverified(now)
            else:
                effects = client.connection.not_refreshed(fault_of(errors.Storage("too many ask")), now)
            client.carry_out(effects, now)

    def touch(self, id: SessionId) -> None:
        """The user of the session was active."""
        self._touched[id] = None

    def take_touched(self) -> Sequence[SessionId]:
        """The sessions that were active, each once; they are forgotten here."""
        touched, self._touched = self._touched, {}
        return tuple(touched)

    def rebound(self, client: AnyClient, former: Session) -> SessionLimits:
        """The peer belongs to another session than before; returns that one's ledger."""
        session = client.connection.session
        self.registry.leave(client, former)
        self.registry.enter(client, session)
        self.limits.release(former.id)
        return self.limits.open(session.id)

    def watch(self, client: AnyClient) -> None:
        """Look at the peer when its connection wants it."""
        if not client.connection.is_over and client.is_open:
            self.deadlines.set(client, client.connection.next_check())

    def departed(self, client: AnyClient) -> None:
        """The peer is no more."""
        session = client.connection.session
        self.registry.leave(client, session)
        self.limits.release(session.id)
        self.deadlines.cancel(client)

    def appeared(self, client: AnyClient, document: str) -> None:
        """The peer edits a document now."""
        self.rooms.appear(client.who, document, self.now())

    def disappeared(self, client: AnyClient, document: str) -> None:
        """The peer edits it no more."""
        self.rooms.disappear(client.who, document, self.now())

    def sweep(self, now: datetime) -> None:
        """Forget what is too old, and let the rooms do what is due."""
        self.rooms.sweep(now, ((client.who, client.documents()) for client in self.registry))
        if self._next_sweep is None or now >= self._next_sweep:
            self.limits.sweep(now)
            self._next_sweep = now + self._sweep_every


def fault_of(error: RoomkeyError) -> Fault:
    """What a client is told whose new token is not accepted because of ``error``."""
    code = ErrorCode(presentation_of(error).refresh_fault)
    if code is ErrorCode.SERVER_ERROR:
        return Fault(code, "this cannot be checked now", retry=True)
    return Fault(code, str(error), details={"reason": error.code})
