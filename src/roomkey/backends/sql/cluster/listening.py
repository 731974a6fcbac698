"""
Hearing what is new: notifications on a connection of its own, and a look every second in case that one is lost.

The look goes through the same connection, so that one that is dead and does not say so is noticed; while there is none,
it goes through the pool. So what is published is found within a second or so whatever becomes of notifications.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import structlog

from roomkey.backends.sql.cluster.cluster_queries import ClusterQueries
from roomkey.backends.sql.cluster.deliveries import PARTITIONS
from roomkey.backends.sql.cluster.outbox import new_epoch
from roomkey.backends.sql.database import Database
from roomkey.backends.sql.failures import classify
from roomkey.backends.sql.statements import Row, run
from roomkey.errors import Storage

LOOK_SECONDS: Final = 1.0
"""Time between two looks."""

ANSWER_SECONDS: Final = 2.0
"""Time after which a connection that says nothing counts as dead."""

_log = structlog.get_logger("roomkey.broker")


class Listening:
    """
    Listens on ``channel``, which ``begin`` finds out.

    ``on_hint`` is called with the text of each notification, ``on_heads`` with the rows of each look.
    """

    def __init__(
        self,
        database: Database,
        queries: ClusterQueries,
        *,
        on_hint: Callable[[str], None],
        on_heads: Callable[[Sequence[Row]], None],
    ) -> None:
        self._database = database
        self._queries = queries
        self._on_hint = on_hint
        self._on_heads = on_heads
        self._due = asyncio.Event()
        self.channel = ""
        self.failure: str | None = None
        """Why nothing is heard just now."""

    async def begin(self) -> None:
        """
        Find out where everything stands.

        Raises:
            Storage: If the database is away.
        """
        ((self.channel,),) = await self._database.read(lambda connection: run(connection, self._queries.channel))
        await self._look_through_the_pool()

    def look_soon(self) -> None:
        """Look at once: something may have been missed."""
        self._due.set()

    async def run(self) -> None:
        """Listen until cancelled."""
        failures = 0
        while True:
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001  # whatever it was, the next connection may be better
                failures = 1 if self.failure is None else failures + 1
                self._note(error)
            with suppress(Storage):  # the database itself says what is wrong
                await self._look_through_the_pool()
            await asyncio.sleep(self._database.pause(failures))

    async def _listen(self) -> None:
        """Listen until that fails."""
        connection = await self._database.connect()
        try:
            connection.add_termination_listener(self._hang_up)
            async with asyncio.timeout(ANSWER_SECONDS):
                await connection.add_listener(self.channel, self._hear)
            while True:
                self._due.clear()
                async with asyncio.timeout(ANSWER_SECONDS):
                    rows = await connection.fetch(self._queries.heads.text)
                if len(rows) < PARTITIONS:
                    await self._look_through_the_pool()
                else:
                    self._on_heads(rows)
                if self.failure is not None:
                    _log.info("listening_again", server=str(self._database.place))
                    self.failure = None
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._due.wait()
        finally:
            connection.terminate()

    def _hang_up(self, _connection: Any) -> None:
        self._due.set()

    def _hear(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        self._on_hint(payload)

    async def _look_through_the_pool(self) -> None:
        rows = await self._database.read(lambda connection: run(connection, self._queries.heads))
        if len(rows) < PARTITIONS:
            # The first node, or the first after the server has lost what is not logged. May be repeated: what is there
            # stays as it is.
            await self._database.write_at_once(
                lambda connection: run(connection, self._queries.found, new_epoch(), PARTITIONS - 1), may_repeat=True
            )
            rows = await self._database.read(lambda connection: run(connection, self._queries.heads))
        self._on_heads(rows)

    def _note(self, error: Exception) -> None:
        known = classify(error)
        detail = "no answer in time" if isinstance(error, TimeoutError) else "it failed"
        if self.failure is None:
            _log.warning("listening_failed", server=str(self._database.place), exc_info=known is None)
        self.failure = known.detail if known is not None else detail
