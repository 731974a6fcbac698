"""What the sockets of a node share: who is connected, when they are looked at, and what they ask of storage."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from roomkey import errors
from roomkey.documents.settings import DocumentSettings
from roomkey.domain.session import Session, SessionId
from roomkey.errors import RoomkeyError
from roomkey.ports import Clock
from roomkey.realtime.clients.client import Peer
from roomkey.realtime.protocol.json_messages import ErrorCode, Fault
from roomkey.realtime.registry import Deadlines, Registry
from roomkey.realtime.rooms.rooms import Rooms
from roomkey.realtime.session.effects import Authenticate, Verify
from roomkey.realtime.session.limits import Ledger, Ledgers
from roomkey.realtime.settings import RealtimeSettings

AnyPeer = Peer[Any]
"""A peer of whatever protocol."""


class NodeOffice:
    """The ``Office`` of all peers of this node."""

    def __init__(self, settings: RealtimeSettings, documents: DocumentSettings, clock: Clock, rooms: Rooms) -> None:
        self.rooms = rooms
        self.now = clock.now
        self.registry: Registry[AnyPeer] = Registry()
        self.deadlines: Deadlines[AnyPeer] = Deadlines()
        self.ledgers = Ledgers(settings, documents)
        self.questions: asyncio.Queue[tuple[AnyPeer, Authenticate | Verify]] = asyncio.Queue(settings.max_questions)
        self.messages_in = 0
        self.bytes_in = 0
        self._sweep_every = settings.repeat_window / 4
        self._next_sweep: datetime | None = None
        self._touched: dict[SessionId, None] = {}

    def received(self, size: int) -> None:
        """A message came in."""
        self.messages_in += 1
        self.bytes_in += size

    def ask(self, peer: AnyPeer, question: Authenticate | Verify) -> None:
        """Put a question to storage, unless too many wait already: then it fails at once."""
        try:
            self.questions.put_nowait((peer, question))
        except asyncio.QueueFull:
            now = self.now()
            if isinstance(question, Verify):
                effects = peer.connection.unverified(now)
            else:
                effects = peer.connection.not_refreshed(fault_of(errors.Storage("too many ask")), now)
            peer.carry_out(effects, now)

    def touch(self, id: SessionId) -> None:
        """The user of the session was active."""
        self._touched[id] = None

    def take_touched(self) -> Sequence[SessionId]:
        """The sessions that were active, each once; they are forgotten here."""
        touched, self._touched = self._touched, {}
        return tuple(touched)

    def rebound(self, peer: AnyPeer, former: Session) -> Ledger:
        """The peer belongs to another session than before; returns that one's ledger."""
        session = peer.connection.session
        self.registry.leave(peer, former)
        self.registry.enter(peer, session)
        self.ledgers.release(former.id)
        return self.ledgers.open(session.id)

    def watch(self, peer: AnyPeer) -> None:
        """Look at the peer when its connection wants it."""
        if not peer.connection.is_over and peer.is_open:
            self.deadlines.set(peer, peer.connection.next_check())

    def departed(self, peer: AnyPeer) -> None:
        """The peer is no more."""
        session = peer.connection.session
        self.registry.leave(peer, session)
        self.ledgers.release(session.id)
        self.deadlines.cancel(peer)

    def appeared(self, peer: AnyPeer, document: str) -> None:
        """The peer edits a document now."""
        self.rooms.appear(peer.who, document, self.now())

    def disappeared(self, peer: AnyPeer, document: str) -> None:
        """The peer edits it no more."""
        self.rooms.disappear(peer.who, document, self.now())

    def sweep(self, now: datetime) -> None:
        """Forget what is too old, and let the rooms do what is due."""
        self.rooms.sweep(now, ((peer.who, peer.documents()) for peer in self.registry))
        if self._next_sweep is None or now >= self._next_sweep:
            self.ledgers.sweep(now)
            self._next_sweep = now + self._sweep_every


_REFRESH_CODES: Final[dict[type[RoomkeyError], ErrorCode]] = {
    errors.SecurityViolation: ErrorCode.UNAUTHORIZED,
    errors.Expired: ErrorCode.INVALID_SESSION,
    errors.Invalidated: ErrorCode.INVALID_SESSION,
    errors.Suspended: ErrorCode.INVALID_SESSION,
}


def fault_of(error: RoomkeyError) -> Fault:
    """What a client is told whose new token is not accepted because of ``error``."""
    for kind, code in _REFRESH_CODES.items():
        if isinstance(error, kind):
            return Fault(code, str(error), details={"reason": error.code})
    return Fault(ErrorCode.SERVER_ERROR, "this cannot be checked now", retry=True)
