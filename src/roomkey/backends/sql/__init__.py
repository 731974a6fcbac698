"""Sessions in a SQL database that many nodes share: PostgreSQL, MariaDB and MySQL; and SQLite, for one machine."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self

from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.fences import fenced
from roomkey.backends.sql import commit
from roomkey.backends.sql.commit import Newcomer, Write
from roomkey.backends.sql.database import Database, DatabaseSettings, opened
from roomkey.backends.sql.moving import Moving
from roomkey.backends.sql.reads import Reads
from roomkey.backends.sql.repair import Repair
from roomkey.backends.sql.resealing import Resealing
from roomkey.backends.sql.rows import Partition, Records, SessionQueries, key_of, micros
from roomkey.backends.sql.statements import load, run, run_many
from roomkey.backends.sql.writer import Writer
from roomkey.domain.policy import SessionPolicy
from roomkey.domain.session import (
    LIVE_STATES,
    Deleted,
    Evicted,
    Session,
    SessionEvent,
    SessionFilter,
    SessionId,
    partition_of,
    partition_of_id,
)
from roomkey.domain.token_uses import TokenUse
from roomkey.errors import Conflict, NotFound, RoomkeyError, Serialization, Storage
from roomkey.ports import (
    CHECKSUMMED_RECORDS,
    PLAIN_RECORDS,
    CheckpointItem,
    DamagedRecord,
    EpochItem,
    LoggedEvent,
    NewSession,
    Page,
    PartitionItem,
    RecordCodec,
    Resealed,
    Revocation,
    Secret,
    SessionItem,
    SessionPage,
    StorageStatistics,
    Unreadable,
)
from roomkey.security.tokens import is_session_id

__all__ = ["Database", "DatabaseSessionStorage", "DatabaseSettings"]

MAX_TOUCHED: Final = 50_000
"""So many touches wait at most; then ``touch`` waits for the database."""

PURGE_ROWS: Final = 2000
"""Number of events that one transaction removes."""

PING_SECONDS: Final = 1.0
"""A commit that is as recent as this shows that writing works."""

FENCE_PARTITION: Final = 0
"""The partition whose row has the highest fencing token that events were purged under."""


class DatabaseSessionStorage:
    """
    ``SessionStorage`` in a database, given by its URL or as a ``Database`` that other stores use, too.

    The row of a partition is what its writers take turns by: it has the end of the log and the counters, and whoever
    changes sessions of the partition holds its lock from looking to committing. Changes that wait go into one
    transaction, see ``Writer``; reads by id of one turn of the loop into one statement.
    A node that stands still in a transaction keeps others from the partitions that it holds, until the server ends that
    after ``idle_in_transaction_timeout``.
    """

    shared = True

    def __init__(
        self,
        database: str | Database,
        settings: DatabaseSettings | None = None,
        *,
        codec: RecordCodec = CHECKSUMMED_RECORDS,
    ) -> None:
        self._database = opened(database, settings)
        self._queries = load("sessions", self._database.dialect, SessionQueries)
        self._codec = codec
        self._records = Records(codec)
        self._touched: dict[SessionId, datetime] = {}
        self._flush_timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._moving = Moving(self._database, self._queries, self._records, self._touched)
        self._repair = Repair(self._database, self._queries, self._records)
        self._resealing = Resealing(self._database, self._queries, codec)
        self._is_open = False
        self._writer: Writer
        self._reads: Reads

    async def __aenter__(self) -> Self:
        await self._database.__aenter__()
        self._writer = Writer(self._database, self._queries, self._records, self._touched)
        self._reads = Reads(self._database, self._queries, self._records, self._touched)
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_open:
            return
        self._is_open = False  # from now on nobody asks
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        try:
            if self._flushing is not None:
                await asyncio.wait([self._flushing])
            await self._flush()
        finally:
            await self._writer.close()
            await self._reads.close()
            self._touched.clear()
            await self._database.__aexit__(kind, error, trace)

    def _check_open(self) -> None:
        if not self._is_open:
            raise Storage("the storage is not open")

    # --- write ----------------------------------------------------------------------------------------

    async def create(self, new: Sequence[NewSession], policy: SessionPolicy, now: datetime) -> list[Evicted]:
        self._check_open()
        per_user: dict[str, list[Newcomer]] = {}
        for each in new:
            per_user.setdefault(each.session.user_id, []).append(Newcomer.of(each, self._records))
        writes = [
            Write(
                partition_of_id(newcomers[0].session.id),
                partial(commit.create, new=newcomers, policy=policy, now=now),
                user=user.encode(),
                newcomers=len(newcomers),
                cap=policy.cap,
            )
            for user, newcomers in per_user.items()
        ]
        return [event for evicted in _all_or_first(await self._writer.submit_all(writes)) for event in evicted]

    async def update(self, session: Session, event: SessionEvent, *, secret: Secret | None = None) -> None:
        self._check_open()
        if not is_session_id(session.id):
            raise NotFound("there is no such session")
        await self._writer.submit(_update(session, event, secret))

    async def update_many(self, changes: Sequence[tuple[Session, SessionEvent]]) -> list[bool]:
        self._check_open()
        known = [(session, event) for session, event in changes if is_session_id(session.id)]
        done = await self._writer.submit_all([_update(session, event, None) for session, event in known])
        lost = [isinstance(outcome, Conflict | NotFound | Serialization) for outcome in done]
        _all_or_first([None if is_lost else outcome for outcome, is_lost in zip(done, lost, strict=True)])
        outcomes = iter(lost)
        return [is_session_id(session.id) and not next(outcomes) for session, _ in changes]

    async def note_use(self, id: SessionId, use: TokenUse, *, generation: int, window: timedelta) -> None:
        self._check_open()
        key = key_of(id)
        if key is not None and is_session_id(id):
            noting = partial(commit.note_use, id=key, use=use, generation=generation, window=window)
            await self._writer.submit(Write(partition_of_id(id), noting, ids=[key]))

    async def delete(self, event: Deleted) -> bool:
        self._check_open()
        if not is_session_id(event.session):
            return False
        deleting = partial(commit.delete, event=event)
        return await self._writer.submit(Write(partition_of_id(event.session), deleting, ids=[event.session.encode()]))

    async def revoke_user(
        self, user_id: str, now: datetime, *, actor: str, reason: str | None, except_session: SessionId | None
    ) -> Revocation:
        self._check_open()
        kept = key_of(except_session) if except_session is not None else None
        user = user_id.encode()
        partition = partition_of(user_id)
        revoking = partial(
            commit.revoke_user,
            user_id=user_id,
            now=now,
            actor=actor,
            reason=reason,
            kept_id=kept,
        )
        ids = [] if kept is None else [kept]
        # No cap fits: all live sessions are to be loaded.
        return await self._writer.submit(Write(partition, revoking, ids=ids, user=user, cap=-1))

    async def ping(self) -> None:
        self._check_open()
        if monotonic() - self._writer.committed_at < PING_SECONDS:
            return
        # It changes nothing, but only where one may write.
        await self._database.write(lambda connection: run(connection, self._queries.probe), may_repeat=True)

    def degradations(self) -> Mapping[str, str]:
        return {**self._database.degradations(), **self._records.damage.degradations()}

    # --- touch ----------------------------------------------------------------------------------------

    async def touch(self, id: SessionId, at: datetime) -> None:
        session = await self.get(id)
        if session is None or session.state not in LIVE_STATES or session.last_seen_at >= at:
            return
        if len(self._touched) >= MAX_TOUCHED:
            await self._flush()
        self._touched[id] = max(at, self._touched.get(id, at))
        if self._flush_timer is None:
            wait = self._database.settings.flush_interval
            self._flush_timer = asyncio.get_running_loop().call_later(wait, self._flush_soon)

    def _flush_soon(self) -> None:
        self._flush_timer = None
        # Nobody waits for it; what fails is tried again.
        self._flushing = asyncio.get_running_loop().create_task(self._flush_or_retry())

    async def _flush_or_retry(self) -> None:
        with suppress(RoomkeyError):  # the breaker has said so
            await self._flush()
        if self._touched and self._is_open and self._flush_timer is None:
            wait = self._database.settings.flush_interval
            self._flush_timer = asyncio.get_running_loop().call_later(wait, self._flush_soon)

    async def _flush(self) -> None:
        """Make the touches durable."""
        seen = self._touched.copy()
        rows = [(micros(at), id.encode()) for id, at in sorted(seen.items())]
        for start in range(0, len(rows), self._database.settings.max_batch):
            part = rows[start : start + self._database.settings.max_batch]
            # It only moves forward, so twice is as once.
            await self._database.write(partial(run_many, query=self._queries.touch, rows=part), may_repeat=True)
        for id, at in seen.items():
            if self._touched.get(id) == at:
                del self._touched[id]

    # --- read -----------------------------------------------------------------------------------------

    async def get(self, id: SessionId) -> Session | None:
        self._check_open()
        return await self._reads.session(key_of(id))

    async def get_many(self, ids: Sequence[SessionId]) -> list[Session | None]:
        self._check_open()
        return await self._reads.sessions([key_of(id) for id in ids])

    async def get_with_secret(self, id: SessionId) -> tuple[Session, Secret] | None:
        self._check_open()
        return await self._reads.session_with_secret(key_of(id))

    async def list(self, filter: SessionFilter, page: Page) -> SessionPage:
        self._check_open()
        if filter.user_id is not None:
            return await self._reads.list_user(filter.user_id, filter, page)
        return await self._reads.list_all(filter, page)

    async def count(self, filter: SessionFilter) -> int:
        self._check_open()
        return await self._reads.count(filter)

    async def overdue(self, now: datetime, limit: int) -> Sequence[Session]:
        self._check_open()
        search = await self._reads.overdue(micros(now), limit)
        for id in search.misplaced:
            # Nobody waits for it, and reading goes on when nothing can be written.
            self._writer.enqueue(Write(int(id[:2], 16), partial(commit.tend, id=id, now=now), ids=[id]))
        return search.found

    async def ended_before(self, moment: datetime, limit: int) -> Sequence[Session]:
        self._check_open()
        return await self._reads.ended_before(micros(moment), limit)

    async def statistics(self, now: datetime) -> StorageStatistics:
        self._check_open()
        return await self._reads.statistics(now)

    # --- log ------------------------------------------------------------------------------------------

    async def events(self, partition: int, after: int = 0, limit: int = 1000) -> Sequence[LoggedEvent]:
        self._check_open()
        return await self._reads.events(partition, after, limit)

    async def heads(self) -> Mapping[int, int]:
        self._check_open()
        return await self._reads.heads()

    async def purge_events(self, before: datetime, limit: int = 10_000, *, fence: int | None = None) -> int:
        self._check_open()
        if fence is not None:
            await self._purge(FENCE_PARTITION, before, 0, fence)
        purged = 0
        for (partition,) in await self._reads.purgeable(micros(before)):
            while purged < limit:
                rows = min(limit - purged, PURGE_ROWS)
                done = await self._purge(partition, before, rows, fence)
                purged += done
                if done < rows:
                    break
        return purged

    async def _purge(self, partition: int, before: datetime, rows: int, fence: int | None) -> int:
        """Forget up to ``rows`` of the oldest events of a partition, in a transaction of their own."""
        queries = self._queries

        async def work(connection: AsyncConnection) -> int:
            locked = [partition] if fence is None else sorted({FENCE_PARTITION, partition})
            found = {row[0]: Partition(row) for row in await run(connection, queries.lock_partitions, locked)}
            if fence is not None:
                found[FENCE_PARTITION].fence = fenced(found[FENCE_PARTITION].fence, fence)
            place = found[partition]
            oldest = await run(connection, queries.oldest_events, partition, place.tail, rows)
            gone = 0
            for sequence, at in oldest:
                if at >= micros(before):
                    break
                place.tail = sequence
                gone += 1
            if gone:
                await run(connection, queries.remove_events, partition, place.tail)
            if gone or fence is not None:
                await run_many(connection, queries.put_partitions, [each.row() for _, each in sorted(found.items())])
            return gone

        # What was removed stays removed; a second try goes on behind it, and counts less than there was.
        return await self._database.write(work, may_repeat=True)

    # --- moving house ---------------------------------------------------------------------------------

    def export_sessions(self, partition: int) -> AsyncIterator[Sequence[SessionItem | Unreadable]]:
        self._check_open()
        return self._moving.sessions(partition)

    def export_epochs(self) -> AsyncIterator[Sequence[EpochItem | Unreadable]]:
        self._check_open()
        return self._moving.epochs()

    def export_checkpoints(self) -> AsyncIterator[Sequence[CheckpointItem]]:
        self._check_open()
        return self._moving.checkpoints()

    async def take_in(self, partition: int, items: Sequence[PartitionItem]) -> None:
        self._check_open()
        await self._moving.take_in(partition, items)

    async def take_in_checkpoints(self, items: Sequence[CheckpointItem]) -> None:
        self._check_open()
        await self._moving.take_in_checkpoints(items)

    # --- repair ---------------------------------------------------------------------------------------

    async def damaged(self) -> Sequence[DamagedRecord]:
        self._check_open()
        return await self._repair.damaged()

    async def set_aside(self, records: Sequence[DamagedRecord]) -> int:
        self._check_open()
        return await self._repair.set_aside(records)

    async def has_checksums(self) -> bool:
        return self._codec is not PLAIN_RECORDS

    # --- resealing ------------------------------------------------------------------------------------

    async def reseal(self, after: bytes, limit: int, *, only_counts: bool = False) -> Resealed:
        self._check_open()
        return await self._resealing.reseal(after, limit, only_counts=only_counts)


def _update(session: Session, event: SessionEvent, secret: Secret | None) -> Write:
    changing = partial(commit.update, session=session, event=event, secret=secret)
    return Write(partition_of_id(session.id), changing, ids=[session.id.encode()])


def _all_or_first(outcomes: Sequence[Any]) -> Sequence[Any]:
    """The outcomes, unless one of them is an error."""
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes
