"""Copying documents: graves first, so that nothing comes back, then each document with its versions."""

import asyncio
from collections.abc import AsyncIterator, Container
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct, field

from roomkey.backends.document_keys import grave_digest
from roomkey.backends.moving import digests
from roomkey.backends.moving.copying import Foreign, Progress, Report
from roomkey.errors import Conflict, NotFound, Serialization
from roomkey.ports import DocumentItem, DocumentVersion, GraveItem, MovableDocuments, Page, VersionItem

AT_ONCE: Final = 8
"""How many documents are copied at a time, each of which may be large."""


class _Whole(Struct):
    """A document with all that belongs to it, as digests by what they are of."""

    document: dict[str, bytes] = field(default_factory=dict[str, bytes])
    versions: dict[str, bytes] = field(default_factory=dict[str, bytes])


class DocumentsCopy:
    """Copies a store of documents. ``bring`` and then ``compare``; ``check`` before both."""

    def __init__(self, source: MovableDocuments, target: MovableDocuments, report: Report, progress: Progress) -> None:
        self._source = source
        self._target = target
        self._report = report
        self._progress = progress
        self._copied: dict[str, tuple[str, int, int]] | None = None

    async def check(self) -> None:
        """
        Return if the target has nothing but what may come from the source: documents as they are there or were
        before, or that were deleted there since.

        Raises:
            Foreign: If it has anything else.
        """
        graves = await _graves(self._source)
        own = len((await _graves(self._target)).keys() - graves.keys())
        async for name in _names(self._target):
            own += await self._is_own(name, graves)
        if own:
            raise Foreign(
                "the target is neither empty nor a copy of this source that was begun: it has documents of its own"
            )

    async def _is_own(self, name: str, graves: Container[bytes]) -> bool:
        record, original = await self._target.find(name), await self._source.find(name)
        if record is None:
            return False
        if original is not None and original.lineage == record.lineage:
            return record.sequence > original.sequence
        return grave_digest(name.encode(), record.lineage) not in graves

    # --- bring ----------------------------------------------------------------------------------------

    async def bring(self) -> None:
        """Write what the target lacks, and take out what is not in the source any more."""
        copied: dict[str, tuple[str, int, int]] = {}
        self._copied = copied
        await self._bury()
        names = [name async for name in _names(self._source)]
        for start in range(0, len(names), AT_ONCE):
            self._progress("copying documents", start, len(names))
            try:
                async with asyncio.TaskGroup() as group:
                    for name in names[start : start + AT_ONCE]:
                        group.create_task(self._bring(name, copied))
            except BaseExceptionGroup as failures:
                raise failures.exceptions[0] from None
        self._progress("copying documents", len(names), len(names))

    async def _bury(self) -> None:
        graves, held = await _graves(self._source), await _graves(self._target)
        for name in [name async for name in _names(self._target)]:
            record = await self._target.find(name)
            if record is not None and grave_digest(name.encode(), record.lineage) in graves:
                await self._target.delete(name, record.lineage, datetime.now(UTC))
        section = self._report.section("graves")
        for digest, grave in graves.items():
            if digest not in held:
                await self._target.take_in(grave)
                section.written += 1

    async def _bring(self, name: str, copied: dict[str, tuple[str, int, int]]) -> None:
        try:
            item = await _item(self._source, name)
            if item is None:
                return
            record = item.stored.record
            copied[name] = record.lineage, record.sequence, item.stored.upto
            held = await _item(self._target, name)
            if held is None or digests.of_document(held) != digests.of_document(item):
                await self._target.take_in(item)
                self._report.section("documents").written += 1
            await self._bring_versions(name, record.lineage)
        except Serialization as error:
            self._report.cannot_be_read(f"document {name!r}: {error}")

    async def _bring_versions(self, name: str, lineage: str) -> None:
        versions, held = await _versions(self._source, name), await _versions(self._target, name)
        gone = held.keys() - versions.keys()
        if gone:
            await self._target.forget_versions(name, lineage, [*gone])
        for number, version in sorted(versions.items()):
            if held.get(number) == version:
                continue
            found = await self._source.version(name, number)
            if found is not None:
                await self._target.take_in(VersionItem(name, lineage, *found))
                self._report.section("versions").written += 1

    # --- compare --------------------------------------------------------------------------------------

    async def compare(self) -> None:
        """Read both sides and report every difference."""
        names = [name async for name in _names(self._source)]
        mine, theirs = await _graves(self._source), await _graves(self._target)
        self._report.compare("graves", _as_digests(mine), _as_digests(theirs))
        extra = {name async for name in _names(self._target)} - {*names}
        for number, name in enumerate([*names, *sorted(extra)]):
            self._progress("comparing documents", number, len(names) + len(extra))
            await self._compare(name)
        self._progress("comparing documents", len(names) + len(extra), len(names) + len(extra))

    async def _compare(self, name: str) -> None:
        try:
            mine = await self._whole(self._source, name)
        except Serialization as error:
            self._report.cannot_be_read(f"document {name!r}: {error}")
            return
        try:
            theirs = await self._whole(self._target, name)
        except Serialization as error:
            self._report.differs(f"document {name!r} cannot be read in the target: {error}")
            return
        self._report.compare("documents", mine.document, theirs.document)
        self._report.compare("versions", mine.versions, theirs.versions)

    async def _whole(self, store: MovableDocuments, name: str) -> _Whole:
        whole = _Whole()
        item = await _item(store, name)
        if store is self._source:
            self._note_change(name, item)
        if item is None:
            return whole
        record = item.stored.record
        whole.document[f"document {name!r}"] = digests.of_document(item)
        document = digests.whose(name, record.lineage)
        for number in await _versions(store, name):
            found = await store.version(name, number)
            if found is not None:
                whole.versions[f"version {number} of {name!r}"] = digests.of_version(document, *found)
        return whole

    def _note_change(self, name: str, item: DocumentItem | None) -> None:
        if self._copied is None:
            return
        stored = None if item is None else item.stored
        now = None if stored is None else (stored.record.lineage, stored.record.sequence, stored.upto)
        if now != self._copied.get(name):
            self._report.changed = True


async def _item(store: MovableDocuments, name: str) -> DocumentItem | None:
    stored = await store.load(name)
    if stored is None:
        return None
    try:
        return DocumentItem(stored, await store.last_version(name, stored.record.lineage))
    except (NotFound, Conflict):
        return None  # it was deleted in between


async def _names(store: MovableDocuments) -> AsyncIterator[str]:
    page = Page(limit=500)
    while True:
        found = await store.list("", page)
        for record in found.documents:
            yield record.name
        if found.next_cursor is None:
            return
        page = Page(cursor=found.next_cursor, limit=500)


async def _versions(store: MovableDocuments, name: str) -> dict[int, DocumentVersion]:
    versions: dict[int, DocumentVersion] = {}
    page = Page(limit=500)
    while True:
        found = await store.versions(name, page)
        versions |= {version.number: version for version in found.versions}
        if found.next_cursor is None:
            return versions
        page = Page(cursor=found.next_cursor, limit=500)


async def _graves(store: MovableDocuments) -> dict[bytes, GraveItem]:
    return {grave.digest: grave async for batch in store.export_graves() for grave in batch}


def _as_digests(graves: dict[bytes, GraveItem]) -> dict[str, bytes]:
    # Where the name is not known on one side, the digest still says which document it is of.
    return {f"the grave {digest.hex()[:16]}": digest for digest in graves}
