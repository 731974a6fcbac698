"""Tickets: one-use stand-ins for a token that may be seen in an address."""

from datetime import datetime, timedelta
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

    async def issue(self, session_id: SessionId, exclusive_since: datetime | None = None) -> str:
        """A new ticket for ``session_id``, good for ``lifetime``, and until it is exclusive since another moment."""
        ticket = token_urlsafe(SECRET_BYTES)
        value = f"{session_id} {_moment(exclusive_since)}".encode()
        await self._store.add(_digest(ticket), value, self.lifetime, owner=session_id)
        return ticket

    async def redeem(self, ticket: str) -> SessionId | None:
        """
        The session that ``ticket`` was issued for, once; ``None`` if it is unknown, used or too old.

        It says which session that is, not that the session is still good.
        """
        found = await self._take(ticket)
        return None if found is None else found[0]

    async def session_of(self, ticket: str, sessions: Authenticator) -> Session:
        """
        The session that ``ticket`` opens, in whatever state it is; the ticket is used up.

        Raises:
            InvalidToken: If the ticket opens nothing, or its session is gone, or somebody has logged in meanwhile.
        """
        found = await self._take(ticket)
        session = None if found is None else await sessions.get_session(found[0])
        if found is None or session is None or _moment(session.exclusive_since) != found[1]:
            raise InvalidToken("the ticket is unknown, used, or too old")
        return session

    async def _take(self, ticket: str) -> tuple[SessionId, str] | None:
        # Looked up by its hash: how long that takes says nothing about the tickets that there are.
        value = await self._store.take(_digest(ticket))
        if value is None:
            return None
        id, _, since = value.decode().partition(" ")
        return SessionId(id), since


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else str(moment.timestamp())


def _digest(ticket: str) -> str:
    return sha256(ticket.encode("utf-8", "surrogatepass")).hexdigest()
