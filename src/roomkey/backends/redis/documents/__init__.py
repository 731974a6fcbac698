"""Documents in Redis."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Final, Self

from roomkey.backends.damage import DamageNotes
from roomkey.backends.document_keys import (
    grave_digest,
    name_cursor,
    name_key,
    name_of,
    new_name_key,
    version_of,
)
from roomkey.backends.document_records import (
    DocumentEntry,
    encode_document,
)
from roomkey.backends.redis.documents.appending import Appender, Appendix, Outcome, Reached
from roomkey.backends.redis.documents.contents import AUTHORSHIP, SNAPSHOT, Contents
from roomkey.backends.redis.documents.layout import (
    Filed,
    Layout,
    Place,
    Row,
    filed,
    moment,
    text,
)
from roomkey.backends.redis.documents.listing import Listing
from roomkey.backends.redis.documents.moving import Moving, new_call
from roomkey.backends.redis.documents.outcomes import accepted
from roomkey.backends.redis.documents.reading import DocumentReader
from roomkey.backends.redis.documents.repair import Repair
from roomkey.backends.redis.documents.resealing import DocumentResealing
from roomkey.backends.redis.documents.versions import Versions
from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import RedisServer, RedisSettings
from roomkey.backends.taking_in import check_version
from roomkey.errors import Conflict, DocumentNotFound, NotFound, Overtaken, Serialization
from roomkey.ports import (
    CHECKSUMMED_RECORDS,
    PLAIN_RECORDS,
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
    RecordKind,
    Resealed,
    StoredDocument,
    VersionItem,
    VersionPage,
)

__all__ = ["RedisDocumentStore"]

_CREATE: Final = Script("document_create")
_COMPACT: Final = Script("document_compact")
_DELETE: Final = Script("document_delete")


class RedisDocumentStore:
    """
    ``DocumentStore`` in Redis, Redis Cluster or Valkey.

    Every write is one script in one slot, and safe to repeat when its answer was lost, see the scripts. What is
    durable is what Redis has written: with ``appendfsync everysec`` a crash may take the last second, and a failover
    what the replica had not got.
    """

    shared = True

    def __init__(
        self,
        server: str | RedisServer,
        settings: RedisSettings | None = None,
        *,
        codec: RecordCodec = CHECKSUMMED_RECORDS,
    ) -> None:
        """``server`` is its URL, or one that other stores use, too."""
        self._server = server if isinstance(server, RedisServer) else RedisServer(server, settings)
        self._codec = codec
        self._layout = Layout(self._server.prefix)
        self._contents = Contents(self._server, codec)
        self._damage = DamageNotes("documents")
        self._reader = DocumentReader(self._server, codec, self._contents, self._damage)
        self._listing = Listing(self._server, self._layout)
        self._reached = Reached()
        self._appender = Appender(self._server, self._reached)
        self._versions = Versions(self._server, codec, self._contents)
        self._moving = Moving(self._server, codec, self._layout, self._contents)
        self._repair = Repair(
            self._server,
            codec,
            self._layout,
            reader=self._reader,
            contents=self._contents,
            versions=self._versions,
            notes=self._damage,
        )
        self._resealing = DocumentResealing(self._server, codec, self._layout, self._reader)

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.__aexit__(kind, error, trace)

    async def ping(self) -> None:
        await self._server.ping()

    def degradations(self) -> Mapping[str, str]:
        return {**self._server.degradations(), **self._damage.degradations()}

    def _place(self, name: str) -> Place | None:
        key = name_key(name)
        return None if key is None else self._layout.place(key)

    # --- one ------------------------------------------------------------------------------------------

    async def create(self, name: str, lineage: str, now: datetime) -> DocumentRecord:
        place = self._layout.place(new_name_key(name))
        grave = grave_digest(place.name, lineage)
        new = encode_document(DocumentEntry.new(name, lineage, now))
        record = self._codec.encode(RecordKind.DOCUMENT, place.name, 0, new)
        answer = await self._server.run(
            _CREATE,
            [place.document, place.partition.graves, place.partition.names, place.partition.changes],
            [text(lineage), grave, record, moment(now), place.name],
            may_repeat=True,  # whoever comes second finds what the first one made
        )
        record, state = accepted(answer)
        return filed(place.name, record, state, self._codec).entry.record()

    async def find(self, name: str) -> DocumentRecord | None:
        found = await self._find(self._place(name))
        return None if found is None else found.entry.record()

    async def load(self, name: str) -> StoredDocument | None:
        place = self._place(name)
        return None if place is None else await self._reader.load(place)

    async def updates(self, name: str, lineage: str, after: int, limit: int = 1000) -> DocumentTail:
        place = self._place(name)
        tail = None if place is None else await self._reader.tail(place, after, limit)
        found, updates = (None, None) if tail is None else tail
        entry = _checked(found, lineage).entry
        return DocumentTail(entry.sequence, updates)

    async def delete(self, name: str, lineage: str, now: datetime) -> bool:
        del now
        place = self._place(name)
        if place is None:
            return False
        partition = place.partition
        answer = await self._server.run(
            _DELETE,
            [
                *(place.document, place.log, place.versions, partition.graves),
                *(partition.names, partition.log_updates, partition.log_bytes, partition.changes),
            ],
            [text(lineage), place.name, grave_digest(place.name, lineage), new_call(), partition.contents],
            may_repeat=True,  # a call that comes again finds its id in the grave
        )
        if answer == [b"missing"]:
            return False
        accepted(answer)
        return True

    async def was_deleted(self, name: str, lineage: str) -> bool:
        place = self._place(name)
        if place is None:
            return False
        return bool(await self._server.ask("HEXISTS", place.partition.graves, grave_digest(place.name, lineage)))

    async def _find(self, place: Place | None) -> Filed | None:
        return None if place is None else await self._reader.find(place)

    async def _existing(self, name: str, lineage: str) -> tuple[Place, Filed]:
        """The document of this name, which must be ``_checked``."""
        place = self._place(name)
        if place is None:
            raise DocumentNotFound("there is no such document")
        return place, _checked(await self._reader.find(place), lineage)

    # --- append ---------------------------------------------------------------------------------------

    async def append(
        self, name: str, lineage: str, updates: Sequence[DocumentUpdate], *, after: int | None = None
    ) -> int:
        outcome = await self._append_alone(name, lineage, updates, after)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _append_alone(
        self, name: str, lineage: str, updates: Sequence[DocumentUpdate], after: int | None
    ) -> Outcome:
        place = self._place(name)
        if place is None:
            return DocumentNotFound("there is no such document")
        appendix = Appendix.of(place, lineage, updates, self._codec, after) if updates else None
        base = self._reached.get(place.name, lineage)
        if appendix is None or base is None:
            entry = _checked(await self._reader.find(place), lineage).entry
            base = entry.sequence
            if appendix is None:
                return base if after in (None, base) else Overtaken("the document has changed")
        appendix.base = base
        (outcome,) = await self._appender.append([appendix])
        return outcome

    async def append_each(self, appends: Sequence[Append]) -> Sequence[AppendOutcome]:
        outcomes: dict[int, Outcome] = {}
        appendices: dict[int, Appendix] = {}
        unknown: dict[int, Place] = {}
        for number, each in enumerate(appends):
            place = self._place(each.name)
            if place is None:
                outcomes[number] = DocumentNotFound("there is no such document")
                continue
            base = self._reached.get(place.name, each.lineage)
            if base is None or not each.updates:
                unknown[number] = place
            if each.updates:
                appendix = appendices[number] = Appendix.of(place, each.lineage, each.updates, self._codec)
                appendix.base = base or 0
        for number, found in zip(unknown, await self._reader.find_each([*unknown.values()]), strict=True):
            try:
                sequence = _checked(found, appends[number].lineage).entry.sequence
            except (NotFound, Conflict, Serialization) as error:
                outcomes[number] = error
                appendices.pop(number, None)
                continue
            if number in appendices:
                appendices[number].base = sequence
            else:
                outcomes[number] = sequence
        appended = await self._appender.append([*appendices.values()])
        outcomes.update(zip(appendices, appended, strict=True))
        return [_own(outcomes[number]) for number in range(len(appends))]

    # --- compact ----------------------------------------------------------------------------------------

    async def compact(
        self, name: str, lineage: str, *, snapshot: bytes, upto: int, authorship: bytes, fence: int | None = None
    ) -> bool:
        place = self._place(name)
        found = await self._find(place)
        if place is None or found is None or found.entry.lineage != lineage:
            return False
        parts = {SNAPSHOT: snapshot, AUTHORSHIP: authorship}
        staged = await self._contents.stage(place, found.id, parts, upto=max(upto, 0))
        partition = place.partition
        keys = [place.document, place.log, partition.log_updates, partition.log_bytes, place.content(staged.id)]
        arguments = [
            *(text(lineage), place.name, _token(fence), upto, staged.id, staged.pieces),
            *(len(snapshot), len(authorship), partition.contents),
        ]
        cut = 0, 0
        while True:
            # May be repeated: the script knows the content by its id.
            answer = await self._server.run(_COMPACT, keys, [*arguments, *cut], may_repeat=True)
            match answer:
                case [b"missing"] | [b"another"]:
                    return False
                case [b"cut", *row]:
                    part = await self._reader.row(place, found, Row(*row), {})
                    cut = row[0], sum(len(update.data) for update in part.updates[upto + 1 - row[0] :])
                case _:
                    return bool(accepted(answer)[0])

    # --- versions -------------------------------------------------------------------------------------

    async def keep_version(
        self, name: str, lineage: str, version: NewVersion, *, fence: int | None = None
    ) -> DocumentVersion:
        place, found = await self._existing(name, lineage)
        return await self._versions.keep(place, found, version, _token(fence))

    async def versions(self, name: str, page: Page) -> VersionPage:
        before = None if page.cursor is None else version_of(page.cursor)
        place = self._place(name)
        found = await self._find(place)
        if place is None or found is None:
            return VersionPage([])
        return await self._versions.page(place, found, before, page.limit)

    async def version(self, name: str, number: int) -> tuple[DocumentVersion, bytes] | None:
        place = self._place(name)
        found = await self._find(place)
        return None if place is None or found is None else await self._versions.one(place, found, number)

    async def forget_versions(
        self, name: str, lineage: str, numbers: Sequence[int], *, fence: int | None = None
    ) -> int:
        place = self._place(name)
        return 0 if place is None else await self._versions.forget(place, lineage, numbers, _token(fence))

    # --- many -----------------------------------------------------------------------------------------

    async def heads(self, names: Sequence[str]) -> Sequence[DocumentHead | None]:
        places = {number: place for number, name in enumerate(names) if (place := self._place(name)) is not None}
        heads: list[DocumentHead | None] = [None] * len(names)
        for number, found in zip(places, await self._reader.find_each([*places.values()]), strict=True):
            if isinstance(found, Serialization):
                raise found
            heads[number] = None if found is None else DocumentHead(found.entry.lineage, found.entry.sequence)
        return heads

    async def changes(self) -> int:
        """As ``DocumentStore``: one round trip, in which each partition says its number."""
        return await self._listing.changes()

    async def list(self, prefix: str, page: Page) -> DocumentPage:
        after = None if page.cursor is None else name_of(page.cursor).encode()
        names = await self._listing.names(text(prefix), after, page.limit + 1)
        records = await self._records(names[: page.limit])
        more = len(names) > page.limit
        return DocumentPage([*records], name_cursor(names[page.limit - 1].decode()) if more else None)

    async def compactable(self, *, updates: int, size: int, limit: int) -> Sequence[DocumentRecord]:
        names = await self._listing.long_logs(updates=updates, size=size, limit=limit)
        long: list[DocumentRecord] = []
        for start in range(0, len(names), limit):
            records = await self._records(names[start : start + limit])
            long += [record for record in records if record.log_updates > updates or record.log_bytes > size]
            if len(long) >= limit:
                break
        return long[:limit]

    async def _records(self, names: Sequence[bytes]) -> Sequence[DocumentRecord]:
        """The documents that an index names, without those that are damaged, or gone by now."""
        records: list[DocumentRecord] = []
        for name, found in zip(names, await self._reader.find_each([*map(self._layout.place, names)]), strict=True):
            if isinstance(found, Serialization):
                self._damage.note(RecordKind.DOCUMENT, name, found)
            elif found is not None:
                records.append(found.entry.record())
        return records

    # --- moving house ---------------------------------------------------------------------------------

    async def last_version(self, name: str, lineage: str) -> int:
        _, found = await self._existing(name, lineage)
        return found.entry.last_version

    def export_graves(self) -> AsyncIterator[Sequence[GraveItem]]:
        return self._moving.graves()

    async def take_in(self, item: DocumentItem | VersionItem | GraveItem) -> None:
        match item:
            case DocumentItem():
                place = self._layout.place(new_name_key(item.stored.record.name))
                await self._moving.take_in_document(place, await self._reader.find(place), item)
            case VersionItem(name, lineage, version, content):
                place, found = await self._existing(name, lineage)
                held = await self._versions.one(place, found, version.number)
                if check_version(version, content, held):
                    await self._moving.take_in_version(place, found, version, content)
            case GraveItem():
                await self._moving.take_in_grave(item)

    # --- repair ---------------------------------------------------------------------------------------

    async def damaged(self) -> Sequence[DamagedRecord]:
        return await self._repair.damaged()

    async def set_aside(self, records: Sequence[DamagedRecord]) -> int:
        return await self._repair.set_aside(records)

    async def has_checksums(self) -> bool:
        return self._codec is not PLAIN_RECORDS

    # --- resealing ------------------------------------------------------------------------------------

    async def reseal(self, after: bytes, limit: int, *, only_counts: bool = False) -> Resealed:
        return await self._resealing.reseal(after, limit, only_counts=only_counts)


def _checked(found: Filed | Serialization | None, lineage: str) -> Filed:
    """
    ``found``, which must be a document of this lineage.

    Raises:
        NotFound, Conflict, Serialization: If it is none.
    """
    if isinstance(found, Serialization):
        raise found
    if found is None:
        raise DocumentNotFound("there is no such document")
    if found.entry.lineage != lineage:
        raise Conflict("the document is another one")
    return found


def _own(outcome: Outcome) -> AppendOutcome:
    """
    What became of an append.

    Raises:
        SessionError: If it is nothing that is the document's own.
    """
    if isinstance(outcome, int | NotFound | Conflict | Serialization):
        return outcome
    raise outcome


def _token(fence: int | None) -> int:
    """A fencing token as scripts are told of it."""
    return -1 if fence is None else fence
