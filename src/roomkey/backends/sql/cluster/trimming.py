"""
Forgetting what nobody needs any more: publications, keys, rooms, and what was said by nodes that are gone.

One node does it at a time, under a lease, in bounded batches. Two at once would do no harm.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from time import monotonic
from typing import Final, NamedTuple

from roomkey.backends.sql.cluster.cluster_queries import ClusterQueries
from roomkey.backends.sql.database import Database
from roomkey.backends.sql.leases import DatabaseLeases
from roomkey.backends.sql.shared_queries import MICROSECOND
from roomkey.backends.sql.statements import Query, Row, run
from roomkey.errors import Storage

LEASE: Final = "broker.trimming"
LEASE_LIFETIME: Final = timedelta(seconds=15)

ROUND_SECONDS: Final = 2.0
"""Time between two rounds."""

PASSING_SECONDS: Final = 20.0
"""How long at least what is not kept can be read: longer than a node counts as living that hears nothing."""

ROOMS_AT_A_TIME: Final = 100
ROWS_AT_A_TIME: Final = 1000
MAX_BATCHES: Final = 20
"""Batches of one kind in a round. What is left waits for the next one."""

IDLE: Final = timedelta(days=1)
"""After that time without a publication a room whose history is gone is forgotten, and begins a new epoch."""

SILENCE: Final = timedelta(hours=1)
"""After that time a sender or a node that says nothing is forgotten."""


class Histories(NamedTuple):
    """How much of each room is kept, all of which holds, and for how long ids of messages are remembered."""

    publications: int
    age: timedelta
    size: int
    repeat_window: timedelta


class _Stand(NamedTuple):
    """Where a partition stood, and when."""

    at: float
    era: str
    head: int


class Trimming:
    """Forgets what is more than is ``kept``; ``node`` is who has the lease."""

    def __init__(
        self,
        database: Database,
        queries: ClusterQueries,
        kept: Histories,
        node: str,
        *,
        passing_seconds: float = PASSING_SECONDS,
    ) -> None:
        self._database = database
        self._queries = queries
        self._kept = kept
        self._node = node
        self._passing_seconds = passing_seconds
        self._leases = DatabaseLeases(database)
        self._stands: dict[int, deque[_Stand]] = {}
        self._swept: dict[int, tuple[str, int]] = {}

    def hear_heads(self, rows: Sequence[Row]) -> None:
        """Where partitions stand now: what is not kept goes when that is long ago."""
        now = monotonic()
        for id, era, head, *_ in rows:
            stands = self._stands.setdefault(id, deque())
            # No time of the server is needed for that, nor a column and an index for it.
            if not stands or now - stands[-1].at >= self._passing_seconds / 4:
                stands.append(_Stand(now, era, head))

    async def run(self) -> None:
        """Trim until cancelled."""
        while True:
            await asyncio.sleep(ROUND_SECONDS)
            try:
                if await self._leases.acquire(LEASE, self._node, LEASE_LIFETIME) is not None:
                    await self.trim()
            except Storage:
                continue  # the database says itself what is wrong; the next round is soon

    async def trim(self) -> None:
        """
        Forget what is due, but no more than so many batches of it.

        Raises:
            Storage: If the database failed; the rest is forgotten the next time.
        """
        await self._let_passing_go()
        for _ in range(MAX_BATCHES):
            if not await self._trim_rooms():
                break
        for query in (self._queries.forget_keys, self._queries.forget_strangers):
            await self._forget(query)
        await self._write(self._queries.forget_rooms, IDLE // MICROSECOND)
        await self._write(self._queries.forget_senders, SILENCE // MICROSECOND)
        await self._write(self._queries.bury, SILENCE // MICROSECOND)

    async def _let_passing_go(self) -> None:
        due: list[tuple[int, str, int]] = []
        then = monotonic() - self._passing_seconds
        for id, stands in self._stands.items():
            while len(stands) > 1 and stands[1].at <= then:
                stands.popleft()
            era, swept = self._swept.get(id, ("", 0))
            if stands[0].at <= then and (era != stands[0].era or swept < stands[0].head):
                due.append((id, stands[0].era, stands[0].head))
        if not due:
            return
        # First nobody relies on them any more, then they go: whoever has read them meanwhile had them.
        ids = await self._write(self._queries.let_go, *map(list, zip(*due, strict=True)))
        still = {id for (id,) in ids}
        for id, era, head in due:
            if id in still:
                await self._sweep(id, era, head)

    async def _sweep(self, id: int, era: str, head: int) -> None:
        known, last = self._swept.get(id, ("", 0))
        last = last if known == era else 0
        for _ in range(MAX_BATCHES):
            rows = await self._write(self._queries.sweep_passing, id, last, head, ROWS_AT_A_TIME)
            if len(rows) < ROWS_AT_A_TIME:
                self._swept[id] = era, head
                return

    async def _trim_rooms(self) -> int:
        kept = self._kept
        limits = kept.publications, kept.size, kept.age // MICROSECOND
        rows = await self._database.read(
            lambda connection: run(connection, self._queries.crowded, *limits, ROOMS_AT_A_TIME)
        )
        if not rows:
            return 0
        names = [name for (name,) in rows]
        return len(await self._write(self._queries.trim, names, ROWS_AT_A_TIME, *limits))

    async def _forget(self, query: Query) -> None:
        for _ in range(MAX_BATCHES):
            if len(await self._write(query, ROWS_AT_A_TIME)) < ROWS_AT_A_TIME:
                return

    async def _write(self, query: Query, *parameters: object) -> Sequence[Row]:
        # May be repeated: what is forgotten cannot be forgotten again.
        return await self._database.write_at_once(
            lambda connection: run(connection, query, *parameters), may_repeat=True
        )
