"""The seam between sessions and the sockets that they open."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from roomkey.domain.session import Client, Session, SessionId


class Authenticator(Protocol):
    """
    What sockets need to know of sessions.

    All raise ``roomkey.errors``; whoever implements it tells ``SessionWebSocketHandler.on_events`` what changes.
    """

    async def authenticate(
        self,
        token: str,
        *,
        client: Client | None = None,
        is_activity: bool = True,
        held: Sequence[str] = (),
    ) -> Session:
        """
        The pending or active session that ``token`` opens; raises for every other.

        ``is_activity`` says that its user did something, which moves the idle deadline; ``held`` is what whoever
        presents it has proved to have, without which a session that is bound to it opens for nobody.
        """
        ...

    async def get_session(self, id: SessionId) -> Session | None:
        """The session as it stands now; one whose time is over is ended first."""
        ...

    async def recognise(self, session: Session, client: Client) -> None:
        """Raise if ``client`` may not be with the session, which was opened by something else than its token."""
        ...

    async def touch(self, id: SessionId) -> None:
        """The user was active just now."""
        ...

    async def record_violation(self, id: SessionId, cause: str) -> object:
        """Count a misbehaviour of the session's holder, ``cause`` in a word."""
        ...


class Ruling(NamedTuple):
    """A session is not to be used by who presents its token: it is suspended or, if this ``ends`` it, ended."""

    ends: bool
    cause: str


class ClientWatch(Protocol):
    """Who watches from where and with what sessions are used."""

    def knows(self, session: Session, client: Client, now: datetime) -> bool:
        """Whether there is nothing to judge, because ``client`` was just seen with the session."""
        ...

    def unproven(self, session: Session, now: datetime) -> Ruling | None:
        """What follows from a genuine token that came without the key that the session is bound to."""
        ...

    async def judge(self, session: Session, client: Client, now: datetime, *, is_current: bool) -> Ruling | None:
        """
        What follows from ``client`` presenting a token of the session; ``is_current`` if it is not a replaced one.

        Raises:
            Storage: If that cannot be known now, and must be.
        """
        ...
