"""Tickets: one-use stand-ins for a token that may be seen in an address."""

from collections import deque
from datetime import datetime, timedelta
from hashlib import sha256
from secrets import token_urlsafe
from typing import Final

from roomkey.domain.session import SessionId

SECRET_BYTES: Final = 32
MAX_PER_SESSION: Final = 16
"""So that one session cannot push the tickets of all others out."""


class Tickets:
    """
    Tickets of this process: 256 random bits each, redeemed once, within ``lifetime``.

    At most ``capacity`` are outstanding, and 16 of one session; the oldest goes first. Only hashes are kept,
    so memory dumps open nothing. A ticket says which session it is of, not that the session is still good.
    """

    def __init__(self, *, lifetime: timedelta = timedelta(seconds=30), capacity: int = 10_000) -> None:
        self.lifetime = lifetime
        self._capacity = capacity
        self._outstanding: dict[bytes, tuple[SessionId, datetime]] = {}
        self._of_session: dict[SessionId, deque[bytes]] = {}

    def __len__(self) -> int:
        return len(self._outstanding)

    def issue(self, session_id: SessionId, now: datetime) -> str:
        """A new ticket for ``session_id``, good until ``now + lifetime``."""
        self._forget_overdue(now)
        mine = self._of_session.get(session_id)
        if mine is not None and len(mine) >= MAX_PER_SESSION:
            self._forget(mine[0])
        if len(self._outstanding) >= self._capacity:
            self._forget(next(iter(self._outstanding)))
        ticket = token_urlsafe(SECRET_BYTES)
        digest = _digest(ticket)
        self._outstanding[digest] = session_id, now + self.lifetime
        self._of_session.setdefault(session_id, deque()).append(digest)
        return ticket

    def redeem(self, ticket: str, now: datetime) -> SessionId | None:
        """The session that ``ticket`` was issued for, once; ``None`` if it is unknown, used or too old."""
        # Looked up by its hash: how long that takes says nothing about the tickets that there are.
        digest = _digest(ticket)
        found = self._outstanding.get(digest)
        if found is None:
            return None
        self._forget(digest)
        session_id, expires_at = found
        return session_id if now < expires_at else None

    def _forget_overdue(self, now: datetime) -> None:
        # All live equally long, so the oldest is the first to be overdue.
        while self._outstanding:
            digest, (_, expires_at) = next(iter(self._outstanding.items()))
            if now < expires_at:
                return
            self._forget(digest)

    def _forget(self, digest: bytes) -> None:
        session_id, _ = self._outstanding.pop(digest)
        mine = self._of_session[session_id]
        mine.remove(digest)
        if not mine:
            del self._of_session[session_id]


def _digest(ticket: str) -> bytes:
    return sha256(ticket.encode("utf-8", "surrogatepass")).digest()
