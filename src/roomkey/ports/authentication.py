"""The seam between sessions and the sockets that they open."""

from typing import Protocol

from roomkey.domain.session import Client, Session, SessionId


class Authenticator(Protocol):
    """
    What sockets need to know of sessions.

    All raise ``roomkey.errors``; whoever implements it tells ``SessionWebSocketHandler.on_events`` what changes.
    """

    async def authenticate(self, token: str, *, client: Client | None = None, is_activity: bool = True) -> Session:
        """
        The pending or active session that ``token`` opens; raises for every other.

        ``is_activity`` says that its user did something, which moves the idle deadline.
        """
        ...

    async def get_session(self, id: SessionId) -> Session | None:
        """The session as it stands now; one whose time is over is ended first."""
        ...

    async def touch(self, id: SessionId) -> None:
        """The user was active just now."""
        ...

    async def record_violation(self, id: SessionId, cause: str) -> object:
        """Count a misbehaviour of the session's holder, ``cause`` in a word."""
        ...
