"""
Changes of sessions on their way into the database: those that wait go into one transaction, each with its own outcome.

A commit whose answer was lost is not repeated blindly: its first event stands in the log if it was made, and nobody can
tell us otherwise once we hold the lock of that event's partition. So a change is made once, however often it is tried.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from time import monotonic
from typing import Any, Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.recovery import Kind
from roomkey.backends.sql.commit import Commit, Witness, Write
from roomkey.backends.sql.database import Database
from roomkey.backends.sql.dialects import Dialect
from roomkey.backends.sql.failures import classify
from roomkey.backends.sql.grouping import Grouped
from roomkey.backends.sql.rows import Records, SessionQueries
from roomkey.domain.session import SessionId
from roomkey.errors import Conflict, OutcomeUnknown, RoomkeyError, Storage

LANES: Final = 2
"""Transactions in flight at most, each with partitions of its own. While one waits for the disk, another is filled."""

_log = structlog.get_logger("roomkey.storage")


class Writer:
    """Takes changes in, and answers when they are durable. ``touched`` is as ``Commit`` has it."""

    def __init__(
        self, database: Database, queries: SessionQueries, records: Records, touched: Mapping[SessionId, datetime]
    ) -> None:
        self._database = database
        self._begin: Callable[[], Commit] = lambda: Commit(queries, records, touched)
        self.committed_at = 0.0
        settings = database.settings
        number = 1 if database.dialect is Dialect.SQLITE else max(1, min(LANES, settings.pool_size - 1))
        self._lanes: list[Grouped[Write]] = [
            Grouped(self._commit, max_batch=settings.max_batch, max_waiting=settings.max_waiting) for _ in range(number)
        ]

    async def submit(self, write: Write) -> Any:
        """
        What a change returns, once it is durable.

        Raises:
            Storage: If the database failed; nothing was changed.
            OutcomeUnknown: If it is not known whether it was.
        """
        return await self._lane(write).submit(write)

    async def submit_all(self, writes: Sequence[Write]) -> list[Any]:
        """What became of each: what it returns, or what it raises."""
        if len(writes) == 1:
            try:
                return [await self.submit(writes[0])]
            except RoomkeyError as error:
                return [error]
        return await asyncio.gather(*(self._lane(write).enqueue(write) for write in writes), return_exceptions=True)

    def enqueue(self, write: Write) -> None:
        """Make a change that nobody waits for."""
        self._lane(write).enqueue(write)

    async def close(self) -> None:
        """Finish what waits."""
        for lane in self._lanes:
            await lane.close()

    def _lane(self, write: Write) -> Grouped[Write]:
        return self._lanes[write.partition % len(self._lanes)]

    async def _commit(self, writes: list[Write]) -> Sequence[Any]:
        try:
            outcomes = await _Attempts(self._database, self._begin, writes).make()
        except (Conflict, Storage) as error:
            if len(writes) == 1 or isinstance(error, OutcomeUnknown) or not _is_about_a_change(error):
                raise
            # One of them is refused by the database itself: each on its own then, so that the others are not.
            return [outcome for write in writes for outcome in await self._commit_alone(write)]
        self.committed_at = monotonic()
        return outcomes

    async def _commit_alone(self, write: Write) -> Sequence[Any]:
        try:
            return await self._commit([write])
        except RoomkeyError as error:
            return [error]


def _is_about_a_change(error: Exception) -> bool:
    if isinstance(error, Conflict):
        return True
    failure = None if error.__cause__ is None else classify(error.__cause__)
    return failure is not None and failure.kind is Kind.WRONG


class _Attempts:
    """The tries to make one commit. What is kept from one to the next is how to find out what became of it."""

    def __init__(self, database: Database, begin: Callable[[], Commit], writes: Sequence[Write]) -> None:
        self._database = database
        self._begin = begin
        self._writes = writes
        self._witness: Witness | None = None
        self._outcomes: Sequence[Any] = ()

    async def make(self) -> Sequence[Any]:
        """What became of each change, once all are durable."""
        unknown: OutcomeUnknown | None = None
        for number in range(1, self._database.settings.recovery.tries + 1):
            try:
                return await self._database.write(self._attempt, may_repeat=False)
            except OutcomeUnknown as error:
                unknown = error
            except Storage as error:
                if unknown is None:
                    raise
                # The one before may still have been made.
                unknown.__cause__ = error
            await asyncio.sleep(self._database.pause(number))
        assert unknown is not None  # noqa: S101  # the loop ends otherwise
        raise unknown

    async def _attempt(self, connection: AsyncConnection) -> Sequence[Any]:
        commit = self._begin()
        await commit.lock(connection, {write.partition for write in self._writes})
        if self._witness is not None and await commit.was_made(connection, self._witness):
            return self._outcomes
        await commit.load(connection, self._writes)
        outcomes = [_decided(commit, write) for write in self._writes]
        await commit.write(connection)
        self._outcomes = outcomes
        self._witness = commit.witness()
        return outcomes


def _decided(commit: Commit, write: Write) -> Any:
    try:
        return write.decide(commit)
    except RoomkeyError as error:
        return error
    except Exception:  # noqa: BLE001
        # A defect, of one change: the others must not suffer from it.
        _log.exception("storage_change_failed")
        return Storage("the change could not be written down")
