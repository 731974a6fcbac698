"""
Periodic work on documents, open or not: compaction, versions, eviction.

A document whose maintenance fails does not delay the others.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

import structlog

from roomkey.documents.crdt.authorship import Authorship
from roomkey.documents.crdt.replica import Replica
from roomkey.documents.document import Document
from roomkey.documents.loading import SERVER, assemble, in_slices
from roomkey.documents.open_documents import OpenDocuments
from roomkey.documents.turns import Turn
from roomkey.errors import LeaseLost, RoomkeyError, Serialization
from roomkey.ports import Append, Author, DocumentRecord, DocumentVersion, NewVersion, Page, StoredDocument
from roomkey.ports.observing import Deed

COMPACTIONS_AT_A_TIME: Final = 32

MAX_UNMERGEABLE: Final = 1_000

QUIET_BEFORE_VERSION: Final = timedelta(seconds=30)
"""Time after the last client left until a version is kept, if the document has changed."""

_log = structlog.get_logger("roomkey.documents")


class Maintenance:
    """Looks after the documents of a library and its storage. ``run`` never ends; ``sweep`` does all of it once."""

    def __init__(self, open_documents: OpenDocuments) -> None:
        self._open_documents = open_documents
        self._settings = open_documents.settings
        self._unmergeable: dict[str, int] = {}

    async def run(self) -> None:
        """Sweep every ``settings.sweep_interval``, until cancelled. A storage that is away is reported."""
        while True:
            await asyncio.sleep(self._settings.sweep_interval.total_seconds())
            try:
                await self.sweep(self._open_documents.clock.now())
            except RoomkeyError as error:
                _log.warning("documents_not_compacted", code=error.code, error=str(error))

    async def sweep(self, now: datetime) -> None:
        """Do what is due."""
        open_documents = self._open_documents
        for document in open_documents:
            document.rest(now)
            if document.lineage and not document.is_gone:
                await self._safely(document.name, lambda document=document: self._look_after(document, now))
        open_documents.evict(now)
        for record in await self._compactable():
            await self._safely(record.name, lambda record=record: self._merge(record))

    async def _merge(self, record: DocumentRecord) -> None:
        try:
            await self.compact(record)
        except Serialization:
            self._unmergeable[record.name] = record.sequence
            raise

    async def _compactable(self) -> list[DocumentRecord]:
        """The longest logs, without those that could not be merged and have not changed since."""
        if len(self._unmergeable) > MAX_UNMERGEABLE:
            self._unmergeable.clear()
        found = await self._open_documents.store.compactable(
            updates=self._settings.compact_updates,
            size=self._settings.compact_bytes,
            limit=COMPACTIONS_AT_A_TIME + len(self._unmergeable),
        )
        return [record for record in found if self._unmergeable.get(record.name) != record.sequence]

    async def _safely(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except LeaseLost:
            pass  # another node does it
        except RoomkeyError as error:
            _log.warning("document_upkeep_failed", document=name, error=str(error))

    # --- logs -----------------------------------------------------------------------------------------

    async def compact(self, record: DocumentRecord) -> bool:
        """Merge the log of a document into its snapshot; whether there was anything to merge, and nobody at it."""
        async with self._open_documents.turns.at(record.name) as turn:
            return turn is not None and await self._compact(record, turn)

    async def _compact(self, record: DocumentRecord, turn: Turn) -> bool:
        stored = await self._open_documents.store.load(record.name)
        if stored is None or not stored.updates:
            return False
        replica = self._live_replica(stored) or await assemble(stored)
        authorship = Authorship.unpack(stored.authorship)
        async for update in in_slices(stored.updates):
            authorship.record(update)
        authorship.bindings = replica.identities.bindings
        await self._keep_waiting(stored, replica)
        return await self._open_documents.store.compact(
            record.name,
            stored.record.lineage,
            snapshot=replica.snapshot(),
            upto=stored.record.sequence,
            authorship=authorship.pack(),
            fence=turn.fence,
        )

    async def _keep_waiting(self, stored: StoredDocument, replica: Replica) -> None:
        """What cannot be used yet is not in the snapshot: it goes to the end of the log, whose beginning is dropped."""
        waiting = set(replica.waiting)
        if not waiting:
            return
        updates = [update for update in stored.updates if update.data in waiting]
        head = await self._open_documents.store.append(stored.record.name, stored.record.lineage, updates)
        self._open_documents.relay.appended(Append(stored.record.name, stored.record.lineage, updates), head)
        document = self._open_documents.find(stored.record.name)
        if document is not None and document.lineage == stored.record.lineage:
            document.appended(len(updates), head)

    def _live_replica(self, stored: StoredDocument) -> Replica | None:
        """The replica that is open here, if everything that is stored is in it: it may have more."""
        document = self._open_documents.find(stored.record.name)
        if document is None or document.is_gone or document.lineage != stored.record.lineage:
            return None
        return document.replica if document.sequence >= stored.record.sequence else None

    # --- open documents -------------------------------------------------------------------------------

    async def _look_after(self, document: Document, now: datetime) -> None:
        if document.has_gap:
            await self._open_documents.catching_up.catch_up(document)
        if self._wants_version(document, now):
            async with self._open_documents.turns.at(document.name) as turn:
                if turn is not None:
                    await self._keep_automatic_version(document, now, turn)

    async def _keep_automatic_version(self, document: Document, now: datetime, turn: Turn) -> None:
        if turn.fence is not None:
            # Another node may have kept this state already, or one that is hardly older.
            newest = await self._open_documents.store.versions(document.name, Page(limit=1))
            for version in newest.versions:
                document.version_kept(version.sequence, version.at)
            if not self._wants_version(document, now):
                return
        await keep_version(self._open_documents, document, None, now, turn=turn)
        await self._forget_old_versions(document, turn)

    def _wants_version(self, document: Document, now: datetime) -> bool:
        if not document.has_changed_since_version or not document.is_saved:
            return False
        is_quiet = not document.has_audience and now - document.used_at >= QUIET_BEFORE_VERSION
        return is_quiet or now - document.version_at >= self._settings.version_interval

    async def _forget_old_versions(self, document: Document, turn: Turn) -> None:
        store = self._open_documents.store
        numbers: list[int] = []
        page = Page(limit=500)
        while True:
            found = await store.versions(document.name, page)
            numbers.extend(version.number for version in found.versions if version.label is None)
            if found.next_cursor is None:
                break
            page = Page(cursor=found.next_cursor, limit=500)
        if old := numbers[self._settings.max_automatic_versions :]:
            await store.forget_versions(document.name, document.lineage, old, fence=turn.fence)


async def keep_version(
    open_documents: OpenDocuments,
    document: Document,
    label: str | None,
    now: datetime,
    author: Author = SERVER,
    *,
    restored: int | None = None,
    turn: Turn | None = None,
) -> DocumentVersion:
    """
    Keep a version of a document as it is now; ``restored`` is the number of the one that is about to be restored.
    ``turn`` is that of this node, if other nodes would keep it, too.

    Raises:
        NotFound, Conflict: If it was deleted meanwhile.
        LeaseLost: If it is another node's turn by now.
    """
    version = NewVersion(
        at=now,
        author=author,
        label=label,
        sequence=document.sequence,
        content=document.replica.since(),
        restored=restored,
    )
    fence = None if turn is None else turn.fence
    deed = Deed(kind="kept", document=document.name, lineage=document.lineage, author=author, at=now, label=label)
    async with open_documents.observer.doing(deed):
        kept = await open_documents.store.keep_version(document.name, document.lineage, version, fence=fence)
        deed.number, deed.version, deed.is_done = kept.number, kept.sequence, True
    document.version_kept(version.sequence, now)
    return kept
