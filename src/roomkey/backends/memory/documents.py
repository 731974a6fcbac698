"""Documents in the memory of one process: the default of tests, and the yardstick of the other backends."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from types import TracebackType
from typing import Self

from msgspec import Struct, field

from roomkey.backends.document_keys import (
    grave_digest,
    name_cursor,
    name_key,
    name_of,
    new_name_key,
    version_cursor,
    version_of,
)
from roomkey.backends.document_records import numbered
from roomkey.backends.fences import fenced
from roomkey.backends.taking_in import check_document, check_version
from roomkey.errors import Conflict, DocumentNotFound, NotFound, Overtaken
from roomkey.ports import (
    Append,
    AppendOutcome,
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
    StoredDocument,
    VersionItem,
    VersionPage,
)


class _Document(Struct):
    """A document with everything that belongs to it."""

    lineage: str
    created_at: datetime
    updated_at: datetime
    upto: int = 0
    snapshot: bytes | None = None
    authorship: bytes | None = None
    log: list[DocumentUpdate] = field(default_factory=list[DocumentUpdate])
    log_bytes: int = 0
    versions: dict[int, tuple[DocumentVersion, bytes]] = field(default_factory=dict[int, tuple[DocumentVersion, bytes]])
    last_version: int = 0
    fence: int = 0

    @property
    def sequence(self) -> int:
        return self.upto + len(self.log)


class MemoryDocumentStore:
    """
    ``DocumentStore`` in dictionaries. Nothing survives the process.

    Every method checks and writes without awaiting in between, so none needs a lock.
    """

    shared = False

    def __init__(self) -> None:
        self._documents: dict[str, _Document] = {}
        self._names: list[str] = []  # sorted: code points sort as their UTF-8 does
        self._graves: dict[bytes, str | None] = {}
        self._changes = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def create(self, name: str, lineage: str, now: datetime) -> DocumentRecord:
        if grave_digest(new_name_key(name), lineage) in self._graves:
            raise Conflict("this document was deleted")
        document = self._documents.get(name)
        if document is None:
            self._changes += 1
            document = self._documents[name] = _Document(lineage, now, now)
            insort(self._names, name)
        return _record(name, document)

    async def find(self, name: str) -> DocumentRecord | None:
        document = self._documents.get(name)
        return None if document is None else _record(name, document)

    async def load(self, name: str) -> StoredDocument | None:
        document = self._documents.get(name)
        if document is None:
            return None
        return StoredDocument(
            record=_record(name, document),
            snapshot=document.snapshot,
            upto=document.upto,
            authorship=document.authorship,
            updates=tuple(document.log),
        )

    async def append(
        self, name: str, lineage: str, updates: Sequence[DocumentUpdate], *, after: int | None = None
    ) -> int:
        document = self._existing(name, lineage)
        if after not in (None, document.sequence):
            raise Overtaken("the document has changed")
        self._changes += 1
        document.log.extend(updates)
        document.log_bytes += _size(updates)
        document.updated_at = max([document.updated_at, *(update.at for update in updates)])
        return document.sequence

    async def append_each(self, appends: Sequence[Append]) -> Sequence[AppendOutcome]:
        outcomes: list[AppendOutcome] = []
        for each in appends:
            try:
                outcomes.append(await self.append(each.name, each.lineage, each.updates))
            except (NotFound, Conflict) as error:
                outcomes.append(error)
        return outcomes

    async def heads(self, names: Sequence[str]) -> Sequence[DocumentHead | None]:
        found = map(self._documents.get, names)
        return [None if document is None else DocumentHead(document.lineage, document.sequence) for document in found]

    async def changes(self) -> int:
        return self._changes

    async def updates(self, name: str, lineage: str, after: int, limit: int = 1000) -> DocumentTail:
        document = self._existing(name, lineage)
        if after < document.upto:
            return DocumentTail(document.sequence, None)
        start = after - document.upto
        return DocumentTail(document.sequence, document.log[start : start + limit])

    async def compact(
        self, name: str, lineage: str, *, snapshot: bytes, upto: int, authorship: bytes, fence: int | None = None
    ) -> bool:
        document = self._of(name, lineage)
        if document is None:
            return False
        document.fence = fenced(document.fence, fence)
        if not document.upto < upto <= document.sequence:
            return False
        merged = upto - document.upto
        document.log_bytes -= _size(document.log[:merged])
        del document.log[:merged]
        document.upto, document.snapshot, document.authorship = upto, snapshot, authorship
        return True

    async def delete(self, name: str, lineage: str, now: datetime) -> bool:
        del now
        if name not in self._documents:
            return False
        self._existing(name, lineage)
        del self._documents[name]
        del self._names[bisect_left(self._names, name)]
        self._graves[grave_digest(new_name_key(name), lineage)] = name
        self._changes += 1
        return True

    async def was_deleted(self, name: str, lineage: str) -> bool:
        key = name_key(name)
        return key is not None and grave_digest(key, lineage) in self._graves

    async def list(self, prefix: str, page: Page) -> DocumentPage:
        start = bisect_left(self._names, prefix)
        if page.cursor is not None:
            start = max(start, bisect_right(self._names, name_of(page.cursor)))
        names = [name for name in islice(self._names, start, start + page.limit + 1) if name.startswith(prefix)]
        found = [_record(name, self._documents[name]) for name in names[: page.limit]]
        return DocumentPage(found, name_cursor(found[-1].name) if len(names) > page.limit else None)

    async def compactable(self, *, updates: int, size: int, limit: int) -> Sequence[DocumentRecord]:
        long = (
            _record(name, document)
            for name, document in self._documents.items()
            if len(document.log) > updates or document.log_bytes > size
        )
        return [*islice(long, limit)]

    async def keep_version(
        self, name: str, lineage: str, version: NewVersion, *, fence: int | None = None
    ) -> DocumentVersion:
        document = self._existing(name, lineage)
        document.fence = fenced(document.fence, fence)
        document.last_version += 1
        kept = numbered(version, document.last_version)
        document.versions[kept.number] = kept, version.content
        return kept

    async def versions(self, name: str, page: Page) -> VersionPage:
        before = None if page.cursor is None else version_of(page.cursor)
        document = self._documents.get(name)
        if document is None:
            return VersionPage([])
        newest_first = (version for version, _ in reversed(document.versions.values()))
        behind = (version for version in newest_first if before is None or version.number < before)
        found = [*islice(behind, page.limit + 1)]
        more = len(found) > page.limit
        del found[page.limit :]
        return VersionPage(found, version_cursor(found[-1].number) if more else None)

    async def version(self, name: str, number: int) -> tuple[DocumentVersion, bytes] | None:
        document = self._documents.get(name)
        return None if document is None else document.versions.get(number)

    async def forget_versions(
        self, name: str, lineage: str, numbers: Sequence[int], *, fence: int | None = None
    ) -> int:
        document = self._of(name, lineage)
        if document is None:
            return 0
        document.fence = fenced(document.fence, fence)
        return sum(document.versions.pop(number, None) is not None for number in numbers)

    # --- moving house ---------------------------------------------------------------------------------

    async def last_version(self, name: str, lineage: str) -> int:
        return self._existing(name, lineage).last_version

    async def export_graves(self) -> AsyncIterator[Sequence[GraveItem]]:
        yield [GraveItem(digest, name) for digest, name in self._graves.items()]

    async def take_in(self, item: DocumentItem | VersionItem | GraveItem) -> None:
        self._changes += 1
        match item:
            case DocumentItem():
                self._take_in_document(item)
            case VersionItem(name, lineage, version, content):
                document = self._existing(name, lineage)
                if check_version(version, content, document.versions.get(version.number)):
                    versions = {**document.versions, version.number: (version, content)}
                    document.versions = dict(sorted(versions.items()))
                    document.last_version = max(document.last_version, version.number)
            case GraveItem(digest, name):
                self._graves.setdefault(digest, name)

    def _take_in_document(self, item: DocumentItem) -> None:
        stored, record = item.stored, item.stored.record
        if grave_digest(new_name_key(record.name), record.lineage) in self._graves:
            raise Conflict("this document was deleted")
        document = self._documents.get(record.name)
        if document is None:
            document = self._documents[record.name] = _Document(record.lineage, record.created_at, record.updated_at)
            insort(self._names, record.name)
        check_document(item, document.lineage, document.sequence, document.last_version)
        document.created_at, document.updated_at = record.created_at, record.updated_at
        document.upto, document.snapshot, document.authorship = stored.upto, stored.snapshot, stored.authorship
        document.log = [*stored.updates]
        document.log_bytes = record.log_bytes
        document.last_version = item.last_version

    async def ping(self) -> None:
        pass

    def degradations(self) -> Mapping[str, str]:
        return {}

    def _of(self, name: str, lineage: str) -> _Document | None:
        document = self._documents.get(name)
        return document if document is not None and document.lineage == lineage else None

    def _existing(self, name: str, lineage: str) -> _Document:
        document = self._documents.get(name)
        if document is None:
            raise DocumentNotFound("there is no such document")
        if document.lineage != lineage:
            raise Conflict("the document is another one")
        return document


def _record(name: str, document: _Document) -> DocumentRecord:
    return DocumentRecord(
        name=name,
        lineage=document.lineage,
        sequence=document.sequence,
        created_at=document.created_at,
        updated_at=document.updated_at,
        log_updates=len(document.log),
        log_bytes=document.log_bytes,
        snapshot_bytes=len(document.snapshot or b""),
    )


def _size(updates: Sequence[DocumentUpdate]) -> int:
    return sum(len(update.data) for update in updates)
