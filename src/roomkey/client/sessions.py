"""Sessions of a server, as its REST interface has them."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from msgspec import UNSET

from roomkey.api.schemas import IssuedBody, PageBody, RevokedBody, RotatedBody, SessionBody, TicketBody
from roomkey.client.calls import Calls, segment
from roomkey.domain.access import Grant
from roomkey.domain.session import SessionState

Grants = Sequence[Grant | Mapping[str, str]]


class Sessions:
    """Commands on sessions. All raise the errors that ``SessionManager`` raises, and ``Storage`` without an answer."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def create(
        self,
        user_id: str,
        *,
        grants: Grants | None = None,
        activate: bool = False,
        lifetime: timedelta | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> IssuedBody:
        """A new session of a user, with the only copy of its token. Done once, however often it is sent."""
        given = {
            "user_id": user_id,
            "activate": activate,
            "grants": None if grants is None else [*grants],
            "lifetime": None if lifetime is None else lifetime.total_seconds(),
            "metadata": metadata,
        }
        body = {name: value for name, value in given.items() if value is not None}
        return await self._calls.ask(IssuedBody, "POST", "/sessions", body=body)

    async def get(self, id: str) -> SessionBody:
        """The session."""
        return await self._calls.ask(SessionBody, "GET", f"/sessions/{segment(id)}")

    async def me(self) -> SessionBody:
        """The session whose token the client has."""
        return await self._calls.ask(SessionBody, "GET", "/sessions/me")

    async def list(
        self, *, user_id: str | None = None, state: SessionState | None = None
    ) -> AsyncIterator[SessionBody]:
        """All sessions that match, page after page."""
        cursor: str | None = None
        while True:
            query = {"user_id": user_id, "state": state, "cursor": cursor}
            page = await self._calls.ask(PageBody, "GET", "/sessions", query=query)
            for session in page.sessions:
                yield session
            if (cursor := page.next_cursor) is None:
                return

    async def activate(self, id: str, *, reason: str | None = None) -> SessionBody:
        """The session may use rooms from now on."""
        return await self._change(id, "activate", reason)

    async def suspend(self, id: str, *, reason: str | None = None) -> SessionBody:
        """The session has no access until it is resumed; its sockets close."""
        return await self._change(id, "suspend", reason)

    async def resume(self, id: str, *, reason: str | None = None) -> SessionBody:
        """The session is active again."""
        return await self._change(id, "resume", reason)

    async def expire(self, id: str, *, reason: str | None = None) -> SessionBody:
        """The session's time is over; its sockets close, and its user may get a new one."""
        return await self._change(id, "expire", reason)

    async def invalidate(self, id: str, *, reason: str | None = None) -> SessionBody:
        """The session is over; its sockets close."""
        return await self._change(id, "invalidate", reason)

    async def extend(self, id: str, lifetime: timedelta | None = None) -> SessionBody:
        """The session lives so long from now on, in whole seconds, or as long as the policy allows."""
        body = {} if lifetime is None else {"lifetime": lifetime.total_seconds()}
        return await self._calls.ask(SessionBody, "PUT", f"/sessions/{segment(id)}/extend", body=body)

    async def grant(self, id: str, grants: Grants) -> SessionBody:
        """The session may do what ``grants`` say, and nothing else."""
        body = {"grants": [*grants]}
        return await self._calls.ask(SessionBody, "PUT", f"/sessions/{segment(id)}/grants", body=body)

    async def rotate(self, id: str) -> str:
        """A new token of the session; the former one is honoured for a moment."""
        rotated = await self._calls.ask(RotatedBody, "PUT", f"/sessions/{segment(id)}/rotate")
        assert rotated.token is not UNSET  # noqa: S101  # only browsers have it in a cookie
        return rotated.token

    async def delete(self, id: str) -> None:
        """Forget the session; one that is live is ended."""
        await self._calls.send("DELETE", f"/sessions/{segment(id)}")

    async def revoke_user(self, user_id: str, *, keep_current: bool = False, reason: str | None = None) -> RevokedBody:
        """End all sessions of a user; with ``keep_current`` but the one whose token the client has."""
        query = {"except": "current" if keep_current else None, "reason": reason}
        return await self._calls.ask(RevokedBody, "DELETE", f"/users/{segment(user_id)}/sessions", query=query)

    async def ticket(self) -> TicketBody:
        """What opens one socket of the session whose token the client has, and may stand in a URL."""
        return await self._calls.ask(TicketBody, "POST", "/sessions/me/tickets")

    async def _change(self, id: str, command: str, reason: str | None) -> SessionBody:
        body = {} if reason is None else {"reason": reason}
        return await self._calls.ask(SessionBody, "PUT", f"/sessions/{segment(id)}/{command}", body=body)
