"""Whether who presents a token is the client that the session belongs to, as far as somebody watches over that."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime

from roomkey.domain.lifecycle import check_usable
from roomkey.domain.session import Client, Invalidated, Session, SessionId, SessionState, Suspended
from roomkey.errors import InvalidState, NotFound
from roomkey.ports import ClientWatch, Ruling
from roomkey.sessions.decisions import Decision, transition

Change = Callable[[SessionId, Decision], Awaitable[Session]]


class Recognition:
    """Asks ``watch`` about clients, if there is one, and commits what it rules before anybody is let in."""

    def __init__(self, change: Change) -> None:
        self.watch: ClientWatch | None = None
        self._change = change

    def knows(self, session: Session, client: Client | None, now: datetime) -> bool:
        """Whether there is nothing to check. Asked for every request."""
        return self.watch is None or client is None or self.watch.knows(session, client, now)

    async def check(self, session: Session, client: Client | None, now: datetime, *, is_current: bool) -> None:
        """
        Raise if ``client``, which is not known, may not be with the session.

        Raises:
            Suspended, Invalidated: If not; the session is so from now on.
            Storage: If that cannot be found out, and must be.
        """
        watch = self.watch
        if watch is None or client is None:
            return
        ruling = await watch.judge(session, client, now, is_current=is_current)
        if ruling is not None:
            check_usable(await self._obey(ruling, session))

    async def unproven(self, session: Session, now: datetime) -> None:
        """Somebody has a genuine token, and not the key that the session is bound to. They are refused anyway."""
        ruling = None if self.watch is None else self.watch.unproven(session, now)
        if ruling is not None:
            with suppress(NotFound, InvalidState):  # it has ended by other means
                await self._obey(ruling, session)

    async def _obey(self, ruling: Ruling, session: Session) -> Session:
        # One that was not activated yet cannot be suspended; and its user has just signed in.
        ends = ruling.ends or session.state is SessionState.PENDING
        kind = Invalidated if ends else Suspended
        return await self._change(session.id, transition(kind, "system", ruling.cause))
