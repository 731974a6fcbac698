"""The read side of sessions: lists, histories, figures and health."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Final, Literal

from msgspec import Struct

from roomkey.domain.session import Session, SessionFilter, SessionId, SessionState
from roomkey.errors import InvalidInput, SessionError
from roomkey.observability.process import memory_usage
from roomkey.ports import Clock, Page, SessionPage, SessionStorage
from roomkey.sessions.arguments import checked
from roomkey.sessions.history import SessionHistory, history

MAX_PAGE: Final = 500


class SessionMetrics(Struct, frozen=True, kw_only=True):
    """
    Figures about all sessions at ``calculated_at``.

    ``average_session_duration`` is the mean age at their end of the sessions that have ended, zero if none has.
    ``total_bytes_transferred`` counts the messages of sockets: 0 where no sockets are served.
    """

    total_sessions: int
    active_sessions: int
    expired_sessions: int
    sessions_created_today: int
    average_session_duration: timedelta
    total_bytes_transferred: int
    calculated_at: datetime


class HealthStatus(Struct, frozen=True, kw_only=True):
    """
    How the service is doing.

    ``degraded`` means: works, but look at it; ``unhealthy``: sessions cannot be read or changed.
    ``memory_usage`` is the resident size of this process in bytes. ``checks`` says ``ok`` or what is wrong,
    for each part.
    """

    status: Literal["healthy", "degraded", "unhealthy"]
    sessions_count: int
    memory_usage: int
    timestamp: datetime
    checks: dict[str, str]


class SessionQueries:
    """What ``SessionManager`` answers without changing anything."""

    def __init__(self, storage: SessionStorage, clock: Clock, *, degraded_from: int) -> None:
        self.storage = storage
        self.clock = clock
        self._degraded_from = degraded_from

    @checked
    async def list_sessions(self, filter: SessionFilter | None = None, page: Page | None = None) -> SessionPage:
        """
        A page of sessions; follow ``next_cursor`` for the rest. States are as stored: overdue ones may be among them.

        Raises:
            InvalidInput: If the cursor is not ours or the limit is not within 1 to 500.
        """
        return await self.storage.list(filter or SessionFilter(), _bounded(page))

    @checked
    def iterate_sessions(self, filter: SessionFilter | None = None) -> AsyncIterator[Session]:
        """
        All sessions, page by page, as ``list_sessions``.

        One that is there throughout comes once, whatever happens to it and to others meanwhile.
        """
        return self._iterate(filter or SessionFilter())

    async def _iterate(self, filter: SessionFilter) -> AsyncIterator[Session]:
        page = Page()
        while True:
            found = await self.list_sessions(filter, page)
            for session in found.sessions:
                yield session
            if found.next_cursor is None:
                return
            page = Page(cursor=found.next_cursor)

    @checked
    async def count_sessions(self, filter: SessionFilter | None = None) -> int:
        """How many sessions match."""
        return await self.storage.count(filter or SessionFilter())

    @checked
    async def session_history(self, id: SessionId, page: Page | None = None) -> SessionHistory:
        """
        A part of what happened to a session, the oldest first; follow ``next_cursor`` for the rest.

        A session that was deleted has its history for as long as the log is kept.

        Raises:
            NotFound: If there is neither a session nor anything about one in the log.
            InvalidInput: As ``list_sessions``.
        """
        return await history(self.storage, id, await self.storage.get(id), _bounded(page))

    async def metrics(self) -> SessionMetrics:
        """The figures of this moment, in constant time. The manager carries no bytes: a node adds its sockets'."""
        now = self.clock.now()
        statistics = await self.storage.statistics(now)
        return SessionMetrics(
            total_sessions=sum(statistics.states.values()),
            active_sessions=statistics.states[SessionState.ACTIVE],
            expired_sessions=statistics.states[SessionState.EXPIRED],
            sessions_created_today=statistics.created_today,
            average_session_duration=statistics.ended_duration / max(statistics.ended, 1),
            total_bytes_transferred=0,
            calculated_at=now,
        )

    async def health_check(self) -> HealthStatus:
        """
        How the sessions and what keeps them are doing. Does not raise.

        ``unhealthy`` if storage is away, ``degraded`` from ``degraded_from`` sessions on.
        """
        now = self.clock.now()
        checks: dict[str, str] = {}
        sessions = 0
        status: Literal["healthy", "degraded", "unhealthy"] = "healthy"
        try:
            await self.storage.ping()
            sessions = await self.storage.count(SessionFilter())
            checks["storage"] = "ok"
        except SessionError as error:
            checks["storage"] = str(error)
            status = "unhealthy"
        if status == "healthy" and sessions >= self._degraded_from:
            checks["sessions"] = f"{self._degraded_from} or more sessions"
            status = "degraded"
        return HealthStatus(
            status=status, sessions_count=sessions, memory_usage=memory_usage(), timestamp=now, checks=checks
        )


def _bounded(page: Page | None) -> Page:
    page = page or Page()
    if not 1 <= page.limit <= MAX_PAGE:
        raise InvalidInput(f"a page has 1 to {MAX_PAGE} entries")
    return page
