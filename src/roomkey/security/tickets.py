"""Tickets: one-use stand-ins for a token that may be seen in an address."""

from datetime import timedelta
from hashlib import sha256
from secrets import token_urlsafe
from typing import Final

from roomkey.domain.session import Session, SessionId
from roomkey.errors import InvalidToken
from roomkey.ports import Authenticator, OneTime, OneTimeLimits

SECRET_BYTES: Final = 32

TICKET_LIMITS: Final = OneTimeLimits(entries=10_000, entries_per_owner=16)
"""How many tickets may be outstanding: few of a session, so that it cannot push the tickets of all others out."""


class Tickets:
    """
    Tickets of 256 random bits each, redeemed once, within ``lifetime``, on any node that shares the ``store``.

    Only hashes are kept, so memory dumps open nothing. The limits of the store should be ``TICKET_LIMITS``.
    """

    def __init__(self, store: OneTime, *, lifetime: timedelta = timedelta(seconds=30)) -> None:
        self.lifetime = lifetime
        self._store = store

    async def issue(self, session_id: SessionId) -> str:
        """A new ticket for ``session_id``, good for ``lifetime``."""
        ticket = token_urlsafe(SECRET_BYTES)
        await self._store.add(_digest(ticket), session_id.encode(), self.lifetime, owner=session_id)
        return ticket

    async def redeem(self, ticket: str) -> SessionId | None:
        """
        The session that ``ticket`` was issued for, once; ``None`` if it is unknown, used or too old.

        It says which session that is, not that the session is still good.
        """
        # Looked up by its hash: how long that takes says nothing about the tickets that there are.
        session_id = await self._store.take(_digest(ticket))
        return None if session_id is None else SessionId(session_id.decode())

    async def session_of(self, ticket: str, sessions: Authenticator) -> Session:
        """
        The session that ``ticket`` opens, in whatever state it is; the ticket is used up.

        Raises:
            InvalidToken: If the ticket opens nothing, or its session is gone.
        """
        id = await self.redeem(ticket)
        session = None if id is None else await sessions.get_session(id)
        if session is None:
            raise InvalidToken("the ticket is unknown, used, or too old")
        return session


def _digest(ticket: str) -> str:
    return sha256(ticket.encode("utf-8", "surrogatepass")).hexdigest()
