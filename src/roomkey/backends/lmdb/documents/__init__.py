"""Documents in an LMDB file of their own, so that much text never keeps sessions waiting."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from roomkey.backends.document_keys import name_key, name_of, new_name_key, version_of
from roomkey.backends.lmdb.documents import commit, moving, repair
from roomkey.backends.lmdb.documents.commit import Batch, DocumentChanges, checked
from roomkey.backends.lmdb.documents.layout import DocumentFile
from roomkey.backends.lmdb.documents.snapshot import SLICE_UPDATES, Loading, LongLogSearch, Snapshot
from roomkey.backends.lmdb.file import FileSystemSettings
from roomkey.backends.lmdb.inspection import Search
from roomkey.backends.lmdb.resealing import count, reseal
from roomkey.backends.lmdb.writer import Writer
from roomkey.errors import Storage
from roomkey.ports import (
    CHECKSUMMED_RECORDS,
    Append,
    AppendOutcome,
    DamagedRecord,
    DocumentHead,
    DocumentItem,
    DocumentPage,
    DocumentRecord,
    DocumentTail,
    DocumentUpdate,
    DocumentVersion,
    GraveItem,
    NewVersion,
    Page,
    RecordCodec,
    Resealed,
    StoredDocument,
    VersionItem,
    VersionPage,
)

__all__ = ["FileSystemDocumentStore"]

MAX_IN_FLIGHT_BYTES: Final = 32 * 1024 * 1024
"""When so much is on its way to the disk, further content waits, because it is there twice meanwhile."""

T = TypeVar("T")


class FileSystemDocumentStore:
    """
    ``DocumentStore`` in a directory of this machine, to which what is said of ``FileSystemSessionStorage`` applies.

    A directory of sessions is not one of documents. What a deletion or a compaction leaves behind is removed in
    the background, some of it in each commit.
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
        self._file: DocumentFile | None = None
        self._writer: Writer[DocumentFile, DocumentChanges]
        self._in_flight = 0
        self._landed = asyncio.Event()
        self._sweeping = False

    async def __aenter__(self) -> Self:
        open_file = partial(DocumentFile, codec=self._codec)
        self._writer = Writer(self._directory, self._settings, open_file=open_file, begin=DocumentChanges)
        self._file = await self._writer.open()
        self._sweep_soon()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        self._file = None  # from now on nobody reads
        await self._writer.close()
        self._sweeping = False

    # --- write ----------------------------------------------------------------------------------------

    async def create(self, name: str, lineage: str, now: datetime) -> DocumentRecord:
        key = new_name_key(name)
        return await self._write(partial(commit.create, name=key, lineage=lineage, now=now))

    async def append(
        self, name: str, lineage: str, updates: Sequence[DocumentUpdate], *, after: int | None = None
    ) -> int:
        async with self._taking_off(sum(len(update.data) for update in updates)):
            batch = Batch.of(updates) if updates else None
            return await self._write(
                partial(commit.append, name=name_key(name), lineage=lineage, batch=batch, after=after)
            )

    async def append_each(self, appends: Sequence[Append]) -> Sequence[AppendOutcome]:
        async with self._taking_off(sum(len(update.data) for each in appends for update in each.updates)):
            prepared = [
                (name_key(each.name), each.lineage, Batch.of(each.updates) if each.updates else None)
                for each in appends
            ]
            return await self._write(partial(commit.append_each, appends=prepared))

    async def compact(
        self, name: str, lineage: str, *, snapshot: bytes, upto: int, authorship: bytes, fence: int | None = None
    ) -> bool:
        async with self._taking_off(len(snapshot) + len(authorship)):
            done = await self._write(
                partial(
                    commit.compact,
                    name=name_key(name),
                    lineage=lineage,
                    snapshot=snapshot,
                    upto=upto,
                    authorship=authorship,
                    fence=fence,
                )
            )
        if done:
            self._sweep_soon()
        return done

    async def delete(self, name: str, lineage: str, now: datetime) -> bool:
        del now
        done = await self._write(partial(commit.delete, name=name_key(name), lineage=lineage))
        if done:
            self._sweep_soon()
        return done

    async def keep_version(
        self, name: str, lineage: str, version: NewVersion, *, fence: int | None = None
    ) -> DocumentVersion:
        async with self._taking_off(len(version.content)):
            return await self._write(
                partial(commit.keep_version, name=name_key(name), lineage=lineage, version=version, fence=fence)
            )

    async def forget_versions(
        self, name: str, lineage: str, numbers: Sequence[int], *, fence: int | None = None
    ) -> int:
        return await self._write(
            partial(commit.forget_versions, name=name_key(name), lineage=lineage, numbers=numbers, fence=fence)
        )

    async def ping(self) -> None:
        if self._file is None:
            raise Storage("the storage is not open")
        await self._writer.ping()

    def degradations(self) -> Mapping[str, str]:
        return {} if self._file is None else {**self._writer.degradations(), **self._file.damage.degradations()}

    async def _write(self, change: Callable[[DocumentChanges], T]) -> T:
        if self._file is None:
            raise Storage("the storage is not open")
        return await self._writer.submit(change)

    @asynccontextmanager
    async def _taking_off(self, size: int) -> AsyncGenerator[None]:
        """Wait until there is room for more on the way to the disk. A large content may overdraw it once."""
        # Not for ever: what is on its way is given up when the disk does not answer in time.
        while self._in_flight >= MAX_IN_FLIGHT_BYTES:
            self._landed.clear()
            await self._landed.wait()
        self._in_flight += size
        try:
            yield
        finally:
            self._in_flight -= size
            self._landed.set()

    # --- sweep ----------------------------------------------------------------------------------------

    def _sweep_soon(self) -> None:
        """Remove what is left behind. Nobody waits for it; what fails is tried again when there is more."""
        if self._file is not None and not self._sweeping:
            self._sweeping = True
            self._writer.enqueue(commit.sweep).add_done_callback(self._swept)

    def _swept(self, future: "asyncio.Future[bool]") -> None:
        self._sweeping = False
        if not future.cancelled() and future.exception() is None and future.result():
            self._sweep_soon()

    # --- read -----------------------------------------------------------------------------------------

    def _snapshot(self) -> Snapshot:
        if self._file is None:
            raise Storage("the storage is not open")
        return Snapshot(self._file)

    async def find(self, name: str) -> DocumentRecord | None:
        with self._snapshot() as snapshot:
            found = snapshot.find(name_key(name))
        return None if found is None else found.entry.record()

    async def heads(self, names: Sequence[str]) -> Sequence[DocumentHead | None]:
        with self._snapshot() as snapshot:
            return [snapshot.head(name_key(name)) for name in names]

    async def changes(self) -> int:
        if self._file is None:
            raise Storage("the storage is not open")
        return self._writer.commits_of_others()

    async def load(self, name: str) -> StoredDocument | None:
        key = name_key(name)
        if key is None:
            return None
        loading = Loading(key)
        while True:
            with self._snapshot() as snapshot:
                snapshot.load(loading)
            if loading.ended:
                return loading.document
            await asyncio.sleep(0)

    async def updates(self, name: str, lineage: str, after: int, limit: int = 1000) -> DocumentTail:
        with self._snapshot() as snapshot:
            return snapshot.tail(name_key(name), lineage, after, min(limit, SLICE_UPDATES))

    async def was_deleted(self, name: str, lineage: str) -> bool:
        key = name_key(name)
        with self._snapshot() as snapshot:
            return key is not None and snapshot.was_deleted(key, lineage)

    async def list(self, prefix: str, page: Page) -> DocumentPage:
        after = None if page.cursor is None else name_of(page.cursor).encode()
        with self._snapshot() as snapshot:
            return snapshot.list(prefix.encode("utf-8", "surrogatepass"), after, page.limit)

    async def compactable(self, *, updates: int, size: int, limit: int) -> Sequence[DocumentRecord]:
        search = LongLogSearch(updates=updates, size=size, limit=limit)
        while True:
            with self._snapshot() as snapshot:
                snapshot.long_logs(search)
            if search.ended:
                return [*search.found.values()]
            await asyncio.sleep(0)

    async def versions(self, name: str, page: Page) -> VersionPage:
        before = None if page.cursor is None else version_of(page.cursor)
        with self._snapshot() as snapshot:
            return snapshot.versions(name_key(name), before, page.limit)

    async def version(self, name: str, number: int) -> tuple[DocumentVersion, bytes] | None:
        with self._snapshot() as snapshot:
            return snapshot.version(name_key(name), number)

    # --- moving house ---------------------------------------------------------------------------------

    async def last_version(self, name: str, lineage: str) -> int:
        with self._snapshot() as snapshot:
            return checked(snapshot.find(name_key(name)), lineage).entry.last_version

    async def export_graves(self) -> AsyncIterator[Sequence[GraveItem]]:
        after = b""
        while True:
            with self._snapshot() as snapshot:
                graves = snapshot.graves(after)
            if not graves:
                return
            yield graves
            after = graves[-1].digest
            await asyncio.sleep(0)

    async def take_in(self, item: DocumentItem | VersionItem | GraveItem) -> None:
        async with self._taking_off(_weight(item)):
            await self._write(partial(moving.take_in, item=item))

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


def _weight(item: DocumentItem | VersionItem | GraveItem) -> int:
    match item:
        case DocumentItem(stored):
            return stored.record.log_bytes + stored.record.snapshot_bytes
        case VersionItem(content=content):
            return len(content)
        case GraveItem():
            return 0
