"""Background work on sessions: expire the overdue, delete the old."""

import asyncio
from datetime import timedelta

import structlog
from msgspec import Struct

from roomkey.domain.lifecycle import deadline
from roomkey.errors import RoomkeyError
from roomkey.leasing import Chore
from roomkey.sessions.manager import SessionManager
from roomkey.sessions.settings import JanitorSettings

_log = structlog.get_logger("roomkey.janitor")


class JanitorRound(Struct, frozen=True, kw_only=True):
    """What one round did, and how far behind it was when it began."""

    expired: int
    deleted: int
    forgotten_events: int
    lag: timedelta


class Janitor:
    """
    Expires overdue sessions, oldest first, deletes records that ended long ago, and trims the event log.

    Deadlines hold without it: reading an overdue session expires it. The janitor does so for sessions that are not
    read. Several may work on one storage: with a ``chore``, which keeps its lease, one of them does.
    """

    def __init__(
        self, sessions: SessionManager, settings: JanitorSettings | None = None, *, chore: Chore | None = None
    ) -> None:
        self._sessions = sessions
        self._settings = settings or JanitorSettings()
        self._chore = chore
        self.lag = timedelta()
        """How long the most overdue session had been waiting when the last round began."""

    async def run(self) -> None:
        """Work until cancelled. A storage that is away is reported, and tried again at the next interval."""
        try:
            while True:
                try:
                    await self.take_turn()
                except RoomkeyError as error:
                    _log.warning("janitor_failed", code=error.code, error=str(error))
                await asyncio.sleep(self._settings.interval.total_seconds())
        finally:
            if self._chore is not None:
                await self._chore.release()

    async def take_turn(self) -> JanitorRound | None:
        """One round; ``None`` if the janitor of another node does it. ``run`` calls this."""
        return await self.sweep() if self._chore is None else await self._chore.attempt(self.sweep)

    async def sweep(self, fence: int | None = None) -> JanitorRound:
        """
        Do everything that is due now, in batches between which others get their turn.

        ``fence`` is the token of the lease under which this is done.
        """
        now = self._sessions.clock.now()
        first = await self._sessions.storage.overdue(now, 1)
        due = deadline(first[0]) if first else None
        self.lag = now - due if due is not None else timedelta()
        return JanitorRound(
            expired=await self._expire(),
            deleted=await self._delete(),
            forgotten_events=await self._forget(fence),
            lag=self.lag,
        )

    async def _expire(self) -> int:
        expired = 0
        while batch := await self._sessions.storage.overdue(self._sessions.clock.now(), self._settings.batch):
            # Reading them is enough: a read commits a deadline that has passed.
            await self._sessions.get_sessions([session.id for session in batch])
            expired += len(batch)
            await asyncio.sleep(0)
        return expired

    async def _delete(self) -> int:
        deleted = 0
        before = self._sessions.clock.now() - self._settings.keep_ended
        while batch := await self._sessions.storage.ended_before(before, self._settings.batch):
            for session in batch:
                deleted += await self._sessions.delete_session(session.id, actor="system:janitor")
            await asyncio.sleep(0)
        return deleted

    async def _forget(self, fence: int | None) -> int:
        forgotten = 0
        before = self._sessions.clock.now() - self._settings.event_retention
        while purged := await self._sessions.storage.purge_events(before, fence=fence):
            forgotten += purged
            await asyncio.sleep(0)
        return forgotten
