"""Sessions in an LMDB file, the embedded default: durable, without a server, shared by the processes of a machine."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from roomkey.backends.lmdb import commit, moving, repair
from roomkey.backends.lmdb.commit import Commit, Newcomer
from roomkey.backends.lmdb.file import DataFile, FileSystemSettings, Transaction
from roomkey.backends.lmdb.inspection import Search
from roomkey.backends.lmdb.layout import micros, session_key
from roomkey.backends.lmdb.resealing import count, reseal
from roomkey.backends.lmdb.snapshot import SCAN_LIMIT, OverdueSearch, Snapshot
from roomkey.backends.lmdb.writer import Writer
from roomkey.domain.policy import SessionPolicy
from roomkey.domain.session import Deleted, Evicted, Session, SessionEvent, SessionFilter, SessionId
from roomkey.domain.token_uses import TokenUse
from roomkey.errors import Serialization, Storage
from roomkey.ports import (
    CHECKSUMMED_RECORDS,
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

__all__ = ["FileSystemSessionStorage", "FileSystemSettings"]

MAX_TOUCHED: Final = 50_000
"""So many touches wait at most; then ``touch`` waits for the disk."""

T = TypeVar("T")


class FileSystemSessionStorage:
    """
    ``SessionStorage`` in a directory of this machine.

    Reads come straight from the memory map, on the loop's thread; when the pages are in memory, that takes
    microseconds. Writes are grouped, see ``Writer``. Several processes may use one directory, but within a
    process only one storage can have it open. A directory of another machine (NFS, SMB) will not do: LMDB
    needs shared memory and locks.

    With the default ``codec`` every record carries a checksum; those of a directory that was made before there were
    any have none, and go on so.
    """

    shared = True

    def __init__(
        self,
        path: str | PathLike[str],
        settings: FileSystemSettings | None = None,
        *,
        codec: RecordCodec = CHECKSUMMED_RECORDS,
    ) -> None:
        self._directory = Path(path)
        self._settings = settings or FileSystemSettings()
        self._codec = codec
        self._touched: dict[SessionId, datetime] = {}
        self._flush_timer: asyncio.TimerHandle | None = None
        self._file: DataFile | None = None
        self._writer: Writer[DataFile, Commit]

    async def __aenter__(self) -> Self:
        open_file = partial(DataFile, codec=self._codec)
        self._writer = Writer(self._directory, self._settings, open_file=open_file, begin=self._begin)
        self._file = await self._writer.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        self._flush()
        self._file = None  # from now on nobody reads
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        await self._writer.close()
        self._touched.clear()

    # --- write ----------------------------------------------------------------------------------------

    async def create(self, new: Sequence[NewSession], policy: SessionPolicy, now: datetime) -> list[Evicted]:
        newcomers = [Newcomer.of(each) for each in new]
        return await self._write(partial(commit.create, newcomers=newcomers, policy=policy, now=now))

    async def update(self, session: Session, event: SessionEvent, *, secret: Secret | None = None) -> None:
        await self._write(partial(commit.update, session=session, event=event, secret=secret))

    async def update_many(self, changes: Sequence[tuple[Session, SessionEvent]]) -> list[bool]:
        return await self._write(partial(commit.update_many, changes=changes))

    async def note_use(self, id: SessionId, use: TokenUse, *, generation: int, window: timedelta) -> None:
        await self._write(partial(commit.note_use, id=id, use=use, generation=generation, window=window))

    async def delete(self, event: Deleted) -> bool:
        return await self._write(partial(commit.delete, event=event))

    async def revoke_user(
        self, user_id: str, now: datetime, *, actor: str, reason: str | None, except_session: SessionId | None
    ) -> Revocation:
        return await self._write(
            partial(commit.revoke_user, user_id=user_id, now=now, actor=actor, reason=reason, kept_id=except_session)
        )

    async def purge_events(self, before: datetime, limit: int = 10_000, *, fence: int | None = None) -> int:
        purged = 0
        while purged < limit:
            chunk = min(limit - purged, SCAN_LIMIT)
            done = await self._write(partial(commit.purge_events, before=before, limit=chunk, fence=fence))
            purged += done
            if done < chunk:
                break
        return purged

    async def ping(self) -> None:
        if self._file is None:
            raise Storage("the storage is not open")
        await self._writer.ping()

    def degradations(self) -> Mapping[str, str]:
        return {} if self._file is None else {**self._writer.degradations(), **self._file.damage.degradations()}

    async def _write(self, change: Callable[[Commit], T]) -> T:
        if self._file is None:
            raise Storage("the storage is not open")
        return await self._writer.submit(change)

    def _begin(self, transaction: Transaction, file: DataFile) -> Commit:
        # Its thread reads what was touched while ours changes it, entry by entry.
        return Commit(transaction, file, self._touched)

    # --- touch ----------------------------------------------------------------------------------------

    async def touch(self, id: SessionId, at: datetime) -> None:
        session = await self.get(id)
        if session is None or not session.state.is_live or session.last_seen_at >= at:
            return
        if len(self._touched) >= MAX_TOUCHED:
            seen = self._touched.copy()
            await self._write(partial(commit.touch, seen=seen))
            self._forget_touched(seen)
        self._touched[id] = at
        self._flush_later()

    def _flush_later(self) -> None:
        if self._flush_timer is None:
            wait = self._settings.flush_interval.total_seconds()
            self._flush_timer = asyncio.get_running_loop().call_later(wait, self._flush)

    def _flush(self) -> None:
        """Make the touches durable. Nobody waits for it; what fails is tried again."""
        self._flush_timer = None
        if self._touched:
            seen = self._touched.copy()
            future = self._writer.enqueue(partial(commit.touch, seen=seen))
            future.add_done_callback(partial(self._flushed, seen))

    def _flushed(self, seen: Mapping[SessionId, datetime], future: "asyncio.Future[None]") -> None:
        if not future.cancelled() and future.exception() is None:
            self._forget_touched(seen)
        if self._touched and self._file is not None:
            self._flush_later()

    def _forget_touched(self, seen: Mapping[SessionId, datetime]) -> None:
        for id, at in seen.items():
            if self._touched.get(id) == at:
                del self._touched[id]

    # --- read -----------------------------------------------------------------------------------------

    def _snapshot(self) -> Snapshot:
        if self._file is None:
            raise Storage("the storage is not open")
        return Snapshot(self._file, self._touched)

    async def get(self, id: SessionId) -> Session | None:
        with self._snapshot() as snapshot:
            return snapshot.session(session_key(id))

    async def get_many(self, ids: Sequence[SessionId]) -> list[Session | None]:
        with self._snapshot() as snapshot:
            return [snapshot.readable(session_key(id)) for id in ids]

    async def get_with_secret(self, id: SessionId) -> tuple[Session, Secret] | None:
        with self._snapshot() as snapshot:
            return snapshot.session_with_secret(session_key(id))

    async def list(self, filter: SessionFilter, page: Page) -> SessionPage:
        with self._snapshot() as snapshot:
            if filter.user_id is not None:
                return snapshot.list_user(filter.user_id, filter, page)
            return snapshot.list_all(filter, page)

    async def count(self, filter: SessionFilter) -> int:
        if filter.user_id is None and filter.created_before is None and filter.created_after is None:
            counters = await self._look(Snapshot.counters)
            return counters.count(filter.state)
        counted = 0
        page = Page(limit=SCAN_LIMIT)
        while True:
            found = await self.list(filter, page)
            counted += len(found)
            if found.next_cursor is None:
                return counted
            page = Page(cursor=found.next_cursor, limit=SCAN_LIMIT)
            await asyncio.sleep(0)

    async def overdue(self, now: datetime, limit: int) -> Sequence[Session]:
        search = OverdueSearch(micros(now), limit)
        while not search.ended:
            with self._snapshot() as snapshot:
                snapshot.overdue(search)
            if search.misplaced or search.strays:
                # Nobody waits for it, and reading goes on when the disk is full.
                self._writer.enqueue(partial(commit.tend, ids=search.misplaced, strays=search.strays, now=now))
                search.misplaced, search.strays = [], []
            await asyncio.sleep(0)
        return search.found

    async def ended_before(self, moment: datetime, limit: int) -> Sequence[Session]:
        with self._snapshot() as snapshot:
            found, strays = snapshot.ended_before(micros(moment), limit)
        if strays:
            self._writer.enqueue(partial(commit.remove_strays, strays=strays, name="ended"))
        return found

    async def statistics(self, now: datetime) -> StorageStatistics:
        counters = await self._look(Snapshot.counters)
        return counters.statistics(now)

    async def events(self, partition: int, after: int = 0, limit: int = 1000) -> Sequence[LoggedEvent]:
        return await self._look(lambda snapshot: snapshot.events(partition, after, limit))

    async def heads(self) -> Mapping[int, int]:
        return await self._look(Snapshot.heads)

    async def _look(self, look: Callable[[Snapshot], T]) -> T:
        """What needs the counters; if they are damaged, a commit counts anew before."""
        try:
            with self._snapshot() as snapshot:
                return look(snapshot)
        except Serialization:
            await self._write(commit.count_if_damaged)
        with self._snapshot() as snapshot:
            return look(snapshot)

    # --- moving house ---------------------------------------------------------------------------------

    def _export(self) -> moving.Export:
        if self._file is None:
            raise Storage("the storage is not open")
        return moving.Export(self._file, self._touched)

    async def export_sessions(self, partition: int) -> AsyncIterator[Sequence[SessionItem | Unreadable]]:
        after = b""
        while True:
            with self._export() as snapshot:
                items, after = snapshot.sessions(partition, after)
            if not items:
                return
            yield items
            await asyncio.sleep(0)

    async def export_epochs(self) -> AsyncIterator[Sequence[EpochItem | Unreadable]]:
        after = b""
        while True:
            with self._export() as snapshot:
                items, after = snapshot.epochs(after)
            if not items:
                return
            yield items
            await asyncio.sleep(0)

    async def export_checkpoints(self) -> AsyncIterator[Sequence[CheckpointItem]]:
        with self._export() as snapshot:
            items = snapshot.checkpoints()
        yield items

    async def take_in(self, partition: int, items: Sequence[PartitionItem]) -> None:
        await self._write(partial(moving.take_in, partition=partition, items=items))

    async def take_in_checkpoints(self, items: Sequence[CheckpointItem]) -> None:
        await self._write(partial(moving.take_in_checkpoints, items=items))

    # --- repair ---------------------------------------------------------------------------------------

    async def damaged(self) -> Sequence[DamagedRecord]:
        search = Search(repair.CHECKS)
        while not search.ended:
            with self._snapshot() as snapshot:
                search.go_on(snapshot.rows())
            await asyncio.sleep(0)
        return search.found

    async def set_aside(self, records: Sequence[DamagedRecord]) -> int:
        done = await self._write(partial(repair.set_aside, records=records))
        if done and self._file is not None:
            self._file.damage.forget()
        return done

    async def has_checksums(self) -> bool:
        if self._file is None:
            raise Storage("the storage is not open")
        return self._file.has_checksums

    async def reseal(self, after: bytes, limit: int, *, only_counts: bool = False) -> Resealed:
        if only_counts:
            with self._snapshot() as snapshot:
                return count(snapshot.rows(), repair.SEALED, after, limit)
        return await self._write(partial(reseal, places=repair.SEALED, after=after, limit=limit))
