"""The read side of sessions: lists, figures and health."""

from datetime import datetime, timedelta
from typing import Final, Literal

from msgspec import Struct

from roomkey.domain.session import SessionFilter, SessionState
from roomkey.errors import InvalidInput, SessionError
from roomkey.observability.process import memory_usage
from roomkey.ports import Clock, Page, SessionPage, SessionStorage

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
    """Answers that change nothing."""

    def __init__(self, storage: SessionStorage, clock: Clock, *, degraded_from: int) -> None:
        self._storage = storage
        self._clock = clock
        self._degraded_from = degraded_from

    async def list(self, filter: SessionFilter, page: Page) -> SessionPage:
        """A page of the sessions that match. Raises ``InvalidInput`` for a limit beyond 1 to 500."""
        if not 1 <= page.limit <= MAX_PAGE:
            raise InvalidInput(f"a page has 1 to {MAX_PAGE} entries")
        return await self._storage.list(filter, page)

    async def metrics(self) -> SessionMetrics:
        """The figures of this moment."""
        now = self._clock.now()
        statistics = await self._storage.statistics(now)
        return SessionMetrics(
            total_sessions=sum(statistics.states.values()),
            active_sessions=statistics.states[SessionState.ACTIVE],
            expired_sessions=statistics.states[SessionState.EXPIRED],
            sessions_created_today=statistics.created_today,
            average_session_duration=statistics.ended_duration / max(statistics.ended, 1),
            total_bytes_transferred=0,
            calculated_at=now,
        )

    async def health(self) -> HealthStatus:
        """``unhealthy`` if storage is away, ``degraded`` from ``degraded_from`` sessions on."""
        now = self._clock.now()
        checks: dict[str, str] = {}
        sessions = 0
        status: Literal["healthy", "degraded", "unhealthy"] = "healthy"
        try:
            await self._storage.ping()
            sessions = await self._storage.count(SessionFilter())
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
