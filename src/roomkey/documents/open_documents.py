"""
The open documents of this node: loaded once for any number of callers, kept while in use, evicted when idle.

A document that could not be loaded is not open: no client gets into it, and nothing is stored in its place. An open
document stays the same object until it is evicted, in one step, when it has no clients, no pins and nothing to
store; the next caller then loads it anew.
"""

import asyncio
import ctypes
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from functools import partial
from inspect import isawaitable
from secrets import token_hex
from typing import Any, Final

import structlog
from msgspec import Struct

from roomkey.documents.catching_up import CatchingUp
from roomkey.documents.document import Document
from roomkey.documents.loading import SERVER, Seed, assemble, everything, seed_update
from roomkey.documents.relay import Peers, Relay
from roomkey.documents.settings import DocumentSettings
from roomkey.documents.turns import Turns
from roomkey.documents.writer import DocumentWriter, GroupCommit
from roomkey.errors import RoomkeyError, Storage, StorageLost
from roomkey.ports import Author, Clock, DocumentRecord, DocumentStore, Page
from roomkey.ports.observing import UNOBSERVED, Deed, DocumentObserver
from roomkey.wire.lib0 import read_state

LINEAGE_BYTES: Final = 12

FLUSH_SECONDS: Final = 10.0
"""Maximum time that shutdown waits for unsaved changes."""

MAX_TOMBSTONES: Final = 1_000
"""Number of deleted documents whose Yjs client ids are remembered, in memory only."""

ALARM_SECONDS: Final = 5.0
"""Age of an unsaved change from which health is degraded."""

_log = structlog.get_logger("roomkey.documents")


class DocumentStatistics(Struct, frozen=True, kw_only=True):
    """Where the documents of this node stand. Sizes are bytes of Yjs updates."""

    open: int
    idle: int
    bytes: int
    dirty: int
    """Documents of which something is not stored yet."""
    unsaved_updates: int
    unsaved_bytes: int
    lag_seconds: float
    """For how long the oldest change has been waiting for storage."""
    loads: int
    evictions: int


class OpenDocuments:
    """Opens and evicts documents. Usable while ``at_work`` is entered; all on one event loop."""

    def __init__(
        self,
        store: DocumentStore,
        *,
        settings: DocumentSettings | None = None,
        clock: Clock,
        seed: Seed | None = None,
        peers: Peers | None = None,
        observer: DocumentObserver = UNOBSERVED,
    ) -> None:
        """``peers`` are the other nodes; with them ``relay`` must be entered before ``at_work``."""
        self.store = store
        self.observer = observer
        self.settings = settings or DocumentSettings()
        self.clock = clock
        self._seed = seed
        self._open: dict[str, Document] = {}
        self._loading: dict[str, asyncio.Future[None]] = {}
        self._creating: dict[str, asyncio.Future[None]] = {}
        self._tombstones: dict[str, frozenset[int]] = {}
        self._group_commit: GroupCommit
        self.relay = Relay(peers, self)
        leases = peers.leases if peers is not None and store.shared else None
        self.turns = Turns(leases, "" if peers is None else peers.node)
        self.catching_up = CatchingUp(
            store, clock, turns=self.turns, forget=self.forget, adopt=self._adopt, appended=self.relay.appended
        )
        self._crew: asyncio.TaskGroup | None = None
        self._at_work: set[asyncio.Task[None]] = set()
        self._loads = 0
        self._evictions = 0

    @asynccontextmanager
    async def at_work(self) -> AsyncGenerator[None]:
        """Documents can be opened until this is left; what is not stored then is stored, if storage answers."""
        try:
            async with asyncio.TaskGroup() as crew:
                self._crew = crew
                is_on, settings = self.relay.is_on, self.settings
                self._group_commit = GroupCommit(
                    self.store,
                    interval=settings.share_interval if is_on else settings.save_interval,
                    spawn=self.spawn,
                    appended=self.relay.appended if is_on else None,
                    observer=self.observer,
                )
                try:
                    yield
                    await self.settle()
                finally:
                    self._crew = None
                    self._close_all()
        except BaseExceptionGroup as failures:
            # No task of ours raises, so this is what the block raised, wrapped up by the group.
            raise failures.exceptions[0] from None

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """
        Run ``work`` in the background, at most until this closes. A failure is logged and stops no other work.

        Raises:
            Storage: If the library is not at work.
        """
        if self._crew is None:
            work.close()
            raise Storage("documents are not open")
        task = self._crew.create_task(_safely(work))
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)
        task.add_done_callback(lambda _: work.close())  # it may be cancelled before it has begun

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Document]:
        return iter(tuple(self._open.values()))

    def find(self, name: str) -> Document | None:
        """The document, if it is open."""
        return self._open.get(name)

    # --- opening --------------------------------------------------------------------------------------

    @asynccontextmanager
    async def using(self, name: str, *, create: bool, author: Author = SERVER) -> AsyncGenerator[Document]:
        """
        The document ``name``, open at least until the block is left; clients keep it open for longer.

        With ``create`` it is made, by ``author``, if it is not stored yet; without, it may be one of which there is
        nothing.

        Raises:
            Storage, Serialization: If it cannot be loaded. Nothing was changed.
            StorageLost: If storage has lost it.
        """
        document = await self._current(name)
        with document.pin():  # without an await since it was found
            if create and not document.lineage:
                await self._create(document, author)
            if document.is_gone:
                raise Storage("the document was replaced at this moment")
            try:
                yield document
            finally:
                document.touch(self.clock.now())

    async def _current(self, name: str) -> Document:
        """The document with everything that was stored before this was called, by whichever process."""
        while True:
            document = self._open.get(name)
            while document is None or document.is_gone:
                await self._once(self._loading, name, partial(self._load, name))
                document = self._open.get(name)
            if not self.store.shared:
                return document
            with document.pin():
                await self.catching_up.refresh(document)
            if document.is_withheld:
                raise StorageLost("the document is not in the storage any more, and nobody has deleted it")
            if not document.is_gone:
                return document

    async def _once(
        self, running: dict[str, asyncio.Future[None]], name: str, work: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """Do ``work`` for all who ask for the same at the same time; each of them gets what it raises."""
        outcome = running.get(name)
        if outcome is None:
            outcome = asyncio.get_running_loop().create_future()
            outcome.add_done_callback(_look_at)
            self.spawn(self._settle_with(outcome, running, name, work))
            running[name] = outcome
        try:
            async with asyncio.timeout(self.settings.load_timeout.total_seconds()):
                await asyncio.shield(outcome)
        except TimeoutError:
            raise Storage("the document could not be opened in time") from None

    async def _settle_with(
        self,
        outcome: asyncio.Future[None],
        running: dict[str, asyncio.Future[None]],
        name: str,
        work: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        try:
            await work()
        except RoomkeyError as error:
            outcome.set_exception(error)
        except BaseException:
            outcome.set_exception(Storage("the document could not be opened"))
            raise
        else:
            outcome.set_result(None)
        finally:
            del running[name]

    async def _load(self, name: str) -> None:
        if (lost := self._open.get(name)) is not None:
            await lost.settle()  # what it took must be in what is loaded
        if len(self._open) >= self.settings.max_open_documents and not self._evict_oldest():
            raise Storage("as many documents are open as may be")
        await self.relay.watch(name)
        try:
            document = await self._loaded(name)
        except BaseException:
            if name not in self._open:
                self.relay.unwatch(name)
            raise
        self._loads += 1
        self._open[name] = document
        self.relay.opened(document)

    async def _loaded(self, name: str) -> Document:
        def create(author: Author | None) -> None:
            self.spawn(self._create(document, author or SERVER))

        document = Document(
            name,
            self.settings,
            now=self.clock.now(),
            creator=create,
            tombstones=self._tombstones.get(name, frozenset()),
            elsewhere=self.relay if self.relay.is_on else None,
        )
        stored = await self.store.load(name)
        if stored is not None:
            document.adopt(stored.record, self._writer(document, stored.record), await assemble(stored))
            if not document.version:  # its creator stopped before this
                self._seed_document(document, await self._seed_of(name), self.clock.now())
            newest = await self.store.versions(name, Page(limit=1))
            for version in newest.versions:
                document.version_kept(version.sequence, version.at)
        document.bury(self._tombstones.get(name, frozenset()))
        return document

    def _writer(self, document: Document, record: DocumentRecord) -> DocumentWriter:
        return DocumentWriter(
            self._group_commit,
            document.name,
            lineage=record.lineage,
            sequence=record.sequence,
            keeper=_Keeper(self, document),
        )

    async def _create(self, document: Document, author: Author) -> None:
        """Have a document stored that was only open so far."""
        await self._once(self._creating, document.name, partial(self._create_now, document, author))

    async def _create_now(self, document: Document, author: Author) -> None:
        if document.lineage:
            return
        now = self.clock.now()
        roots = await self._seed_of(document.name)  # before there is anything: if it fails, nothing was stored
        lineage = token_hex(LINEAGE_BYTES)
        deed = Deed(kind="created", document=document.name, lineage=lineage, author=author, at=now)
        async with self.observer.doing(deed):
            record = await self.store.create(document.name, lineage, now)
            deed.is_done = record.lineage == lineage  # otherwise another process was faster
        stored = await self.store.load(document.name)
        if stored is None or stored.record.lineage != record.lineage:
            raise Storage("the document was replaced at this moment")
        document.learn(everything(stored), now)
        document.adopt(stored.record, self._writer(document, stored.record))
        self._seed_document(document, roots, now)
        if deed.is_done:
            document.begin_pristine()
            self.relay.created(document.name, lineage, document.sequence)

    async def _seed_of(self, name: str) -> Mapping[str, Any] | None:
        said = None if self._seed is None else self._seed(name)
        if not isawaitable(said):
            return said
        try:
            async with asyncio.timeout(self.settings.load_timeout.total_seconds()):
                return await said
        except TimeoutError:
            raise Storage("the application did not say in time what the document begins with") from None

    def _seed_document(self, document: Document, roots: Mapping[str, Any] | None, now: datetime) -> None:
        """Write down what a document begins with, unless something was written before."""
        if roots and not document.version:
            document.take_missing(seed_update(document.lineage, roots), SERVER, now)

    # --- others write, too ----------------------------------------------------------------------------

    async def _adopt(self, document: Document) -> None:
        """Have a document that was only open so far be the one that somebody else has stored."""
        await self._once(self._creating, document.name, partial(self._adopt_now, document))

    async def _adopt_now(self, document: Document) -> None:
        stored = await self.store.load(document.name)
        if stored is None or document.lineage or document.is_gone:
            return
        document.learn(everything(stored), self.clock.now())
        document.adopt(stored.record, self._writer(document, stored.record))

    async def delete(self, document: Document, author: Author = SERVER) -> None:
        """
        Delete a document that is open, here and on all nodes, for ``author``.

        Raises:
            Conflict: If storage has another one by now.
        """
        now = self.clock.now()
        deed = Deed(kind="deleted", document=document.name, lineage=document.lineage, author=author, at=now)
        deed.version = document.version
        async with self.observer.doing(deed):
            deed.is_done = await self.store.delete(document.name, document.lineage, now)
        self.forget(document)
        self.relay.deleted(document.name, document.lineage, read_state(document.replica.state()))

    def forget(self, document: Document) -> None:
        """The document was deleted, here or elsewhere: nothing of it may get into another one of its name."""
        self._bury(document.name, frozenset(read_state(document.replica.state())))
        self._close(document)
        document.end()

    def deleted_elsewhere(self, name: str, lineage: str, clients: frozenset[int]) -> None:
        """Another node has deleted a document."""
        self._bury(name, clients)
        document = self._open.get(name)
        if document is not None and document.lineage == lineage:
            more = frozenset(read_state(document.replica.state())) - clients
            self.forget(document)
            if more:  # what was not stored yet
                self.relay.deleted(name, lineage, more)
        elif document is not None:
            document.bury(clients)

    def _bury(self, name: str, clients: frozenset[int]) -> None:
        """Remember the document's Yjs client ids: their copies must not get into the next document of this name."""
        buried = self._tombstones.pop(name, frozenset())
        self._tombstones[name] = buried | clients
        if len(self._tombstones) > MAX_TOMBSTONES:
            del self._tombstones[next(iter(self._tombstones))]

    # --- putting away ---------------------------------------------------------------------------------

    def tick(self) -> None:
        """Let go of documents that are gone. Called several times a second."""
        for document in tuple(self._open.values()):
            if document.is_gone:
                if document.is_saved:
                    self._close(document)
            else:
                document.tick()
        self.relay.tick(self.clock.now())

    def evict(self, now: datetime) -> None:
        """Close documents that were idle for long, and the longest idle ones beyond the bytes that they may take."""
        before = self._evictions
        idle = sorted((each for each in self._open.values() if each.is_idle), key=lambda document: document.used_at)
        size = sum(document.size for document in idle)
        for document in idle:
            is_fresh = now - document.used_at < self.settings.idle_timeout
            # Without a lineage a caller asked for a document that does not exist.
            if not document.lineage or not is_fresh or size > self.settings.max_idle_bytes:
                size -= document.size
                self._evict(document)
        if self._evictions > before:
            give_back_memory()

    def _evict_oldest(self) -> bool:
        idle = [document for document in self._open.values() if document.is_idle]
        if idle:
            self._evict(min(idle, key=lambda document: document.used_at))
        return bool(idle)

    def _evict(self, document: Document) -> None:
        self._close(document)
        document.evict()
        self._evictions += 1

    def _close(self, document: Document) -> None:
        if self._open.get(document.name) is document:
            del self._open[document.name]
            self.relay.unwatch(document.name)

    def statistics(self) -> DocumentStatistics:
        """The figures now."""
        documents = tuple(self._open.values())
        savers = [writer for document in documents if (writer := document.writer) is not None and not writer.is_idle]
        waiting = [since for writer in savers if (since := writer.unsaved_since) is not None]
        lag = (self.clock.now() - min(waiting)).total_seconds() if waiting else 0.0
        return DocumentStatistics(
            open=len(documents),
            idle=sum(document.is_idle for document in documents),
            bytes=sum(document.size for document in documents),
            dirty=len(savers),
            unsaved_updates=sum(writer.unsaved for writer in savers),
            unsaved_bytes=sum(writer.unsaved_bytes for writer in savers),
            lag_seconds=max(0.0, lag),
            loads=self._loads,
            evictions=self._evictions,
        )

    def degradations(self) -> Mapping[str, str]:
        """What health calls degraded: changes that wait for storage longer than they should."""
        found: dict[str, str] = {}
        if lost := [document.name for document in self._open.values() if document.is_withheld]:
            found["documents_lost"] = (
                f"{len(lost)} open documents are not in the storage any more, and nobody has deleted them: "
                "restore it, or restart the nodes to give them up"
            )
        statistics = self.statistics()
        if statistics.lag_seconds >= ALARM_SECONDS:
            waiting = f"{statistics.unsaved_updates} changes of {statistics.dirty} documents"
            found["documents"] = f"{waiting} are not saved, the oldest for {statistics.lag_seconds:.0f} s"
        return found

    # --- the end --------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Wait until everything is stored and told to other nodes, for a while."""
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                for document in tuple(self._open.values()):
                    await document.settle()
                await self.relay.settle()
        except TimeoutError:
            statistics = self.statistics()
            _log.error("documents_not_saved", documents=statistics.dirty, updates=statistics.unsaved_updates)

    def _close_all(self) -> None:
        for document in tuple(self._open.values()):
            document.close()
            self._close(document)
        for task in tuple(self._at_work):
            task.cancel()


class _Keeper:
    """A document as its writer sees it."""

    def __init__(self, open_documents: OpenDocuments, document: Document) -> None:
        self._open_documents = open_documents
        self._document = document
        self.compute = document.compute
        self.land = document.land

    def lost(self) -> None:
        document, library = self._document, self._open_documents
        if library.store.shared and document.lineage:
            library.spawn(library.catching_up.missing(document))
        else:
            library.forget(document)

    def receded(self) -> None:
        self._open_documents.spawn(self._open_documents.catching_up.recover(self._document))

    def overtaken(self) -> None:
        library = self._open_documents
        if not library.relay.expects_more(self._document):
            library.spawn(library.catching_up.catch_up(self._document))

    async def catch_up(self) -> None:
        if self._open_documents.store.shared:
            await self._open_documents.catching_up.refresh(self._document)


def give_back_memory() -> None:
    """
    Have the C library return to the system what was freed: of small pieces it keeps everything otherwise.

    Takes a millisecond or so, and does nothing where there is no glibc.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


async def _safely(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Storage as error:
        _log.warning("document_work_failed", code=error.code, error=str(error))
    except Exception:  # noqa: BLE001  # one document must not end the work for all others
        _log.exception("document_work_failed")


def _look_at(outcome: asyncio.Future[None]) -> None:
    """Retrieve the exception, so that asyncio does not warn when every caller has gone."""
    if not outcome.cancelled():
        outcome.exception()
