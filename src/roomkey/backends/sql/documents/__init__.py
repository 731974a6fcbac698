"""Documents in a database of SQL: PostgreSQL, MariaDB and MySQL, SQLite."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Final, Self, TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.damage import DamageNotes
from roomkey.backends.document_keys import name_key, name_of, new_name_key, version_of
from roomkey.backends.sql.database import Database, DatabaseSettings, opened
from roomkey.backends.sql.dialects import Dialect
from roomkey.backends.sql.documents.changes import MAX_VERSION, Again, Appending, Batch, Changes, checked
from roomkey.backends.sql.documents.layout import MAX_NUMBER, DocumentQueries
from roomkey.backends.sql.documents.moving import GRAVES, MovingQueries, TakingIn
from roomkey.backends.sql.documents.reading import Reading
from roomkey.backends.sql.documents.repair import DocumentRepair, RepairQueries
from roomkey.backends.sql.documents.resealing import DocumentResealing
from roomkey.backends.sql.documents.sweeping import Sweeper
from roomkey.backends.sql.documents.writers import Writers
from roomkey.backends.sql.statements import execute, load, run
from roomkey.errors import ConfigurationError, Storage
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
    Resealed,
    StoredDocument,
    VersionItem,
    VersionPage,
)

__all__ = ["DatabaseDocumentStore"]

_log = structlog.get_logger("roomkey.storage")

LEAST_PACKET_BYTES: Final = 4 * 1024 * 1024
"""What MariaDB and MySQL have to take at once: twice ``statements.BYTES_PER_STATEMENT`` when escaped, and some room."""

MAX_ROUNDS: Final = 100
"""How often a change is made anew because others were faster. Each time, somebody got somewhere."""

T = TypeVar("T")


class DatabaseDocumentStore:
    """
    ``DocumentStore`` in a database of SQL, which several processes may use.

    What a deletion or a compaction leaves behind is removed right behind it, in transactions of their own.
    """

    shared = True

    def __init__(
        self,
        database: str | Database,
        settings: DatabaseSettings | None = None,
        *,
        codec: RecordCodec = CHECKSUMMED_RECORDS,
    ) -> None:
        """``database`` is a URL, or one that other stores use, too; ``settings`` go with a URL."""
        self._database = opened(database, settings)
        self._codec = codec
        self._queries = load("documents", self._database.dialect, DocumentQueries)
        self._moving = load("document_moving", self._database.dialect, MovingQueries)
        self._repair = load("document_repair", self._database.dialect, RepairQueries)
        self._resealing = DocumentResealing(self._database, self._repair, codec)
        self._writers = Writers(self._database)
        self._sweeper = Sweeper(self._database, self._queries, codec)
        self._database.add_check(check_packets)
        self._damage = DamageNotes("documents")

    async def __aenter__(self) -> Self:
        await self._database.__aenter__()
        try:
            await self._writers.forget()
            await self._sweep()
        except BaseException:
            await self._database.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._database.__aexit__(kind, error, trace)

    # --- write ----------------------------------------------------------------------------------------

    async def create(self, name: str, lineage: str, now: datetime) -> DocumentRecord:
        key = new_name_key(name)
        return await self._write(lambda changes: changes.create(key, lineage, now))

    async def append(
        self, name: str, lineage: str, updates: Sequence[DocumentUpdate], *, after: int | None = None
    ) -> int:
        appending = _prepared(Append(name, lineage, updates))
        if after is not None:
            return await self._write(lambda changes: changes.append_behind(appending, after))
        (outcome,) = await self._write(lambda changes: changes.append_each([appending]))
        if isinstance(outcome, int):
            return outcome
        raise outcome

    async def append_each(self, appends: Sequence[Append]) -> Sequence[AppendOutcome]:
        if not appends:
            return []
        prepared = [_prepared(each) for each in appends]
        return await self._write(lambda changes: changes.append_each(prepared))

    async def compact(
        self, name: str, lineage: str, *, snapshot: bytes, upto: int, authorship: bytes, fence: int | None = None
    ) -> bool:
        done = await self._write(
            lambda changes: changes.compact(
                name_key(name), lineage, snapshot=snapshot, upto=upto, authorship=authorship, fence=fence
            )
        )
        if done:
            await self._sweep()
        return done

    async def delete(self, name: str, lineage: str, now: datetime) -> bool:
        del now
        done = await self._write(lambda changes: changes.delete(name_key(name), lineage))
        if done:
            await self._sweep()
        return done

    async def keep_version(
        self, name: str, lineage: str, version: NewVersion, *, fence: int | None = None
    ) -> DocumentVersion:
        return await self._write(lambda changes: changes.keep_version(name_key(name), lineage, version, fence))

    async def forget_versions(
        self, name: str, lineage: str, numbers: Sequence[int], *, fence: int | None = None
    ) -> int:
        forgotten = await self._write(lambda changes: changes.forget_versions(name_key(name), lineage, numbers, fence))
        if forgotten:
            await self._sweep()
        return forgotten

    async def ping(self) -> None:
        await self._writers.ping()

    def degradations(self) -> Mapping[str, str]:
        return {**self._database.degradations(), **self._damage.degradations()}

    async def _write(self, change: Callable[[Changes], Awaitable[T]]) -> T:
        async def work(connection: AsyncConnection) -> T:
            return await change(Changes(connection, self._queries, self._codec))

        return await self._until_done(work)

    async def _until_done(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        for _ in range(MAX_ROUNDS):
            try:
                return await self._writers.write(work)
            except Again:
                continue
        raise Storage("others change the document all the time")

    async def _sweep(self) -> None:
        """Nobody waits for what is left behind: what fails is done after the next write that leaves something."""
        try:
            await self._sweeper.sweep()
        except Storage as error:
            _log.warning("storage_not_swept", error=str(error))

    # --- read -----------------------------------------------------------------------------------------

    async def _read(self, look: Callable[[Reading], Awaitable[T]], *, snapshot: bool = False) -> T:
        async def work(connection: AsyncConnection) -> T:
            return await look(Reading(connection, self._queries, self._codec, self._damage))

        return await self._database.read(work, snapshot=snapshot)

    async def find(self, name: str) -> DocumentRecord | None:
        key = name_key(name)
        if key is None:
            return None
        found = await self._read(lambda reading: reading.find(key))
        return None if found is None else found.entry.record()

    async def load(self, name: str) -> StoredDocument | None:
        key = name_key(name)
        return None if key is None else await self._read(lambda reading: reading.load(key), snapshot=True)

    async def heads(self, names: Sequence[str]) -> Sequence[DocumentHead | None]:
        keys = [name_key(name) for name in names]
        return await self._read(lambda reading: reading.heads(keys))

    async def changes(self) -> int:
        return await self._writers.writes()

    async def updates(self, name: str, lineage: str, after: int, limit: int = 1000) -> DocumentTail:
        key = name_key(name)
        return await self._read(lambda reading: reading.tail(key, lineage, after, limit), snapshot=True)

    async def was_deleted(self, name: str, lineage: str) -> bool:
        key = name_key(name)
        return key is not None and await self._read(lambda reading: reading.was_deleted(key, lineage))

    async def list(self, prefix: str, page: Page) -> DocumentPage:
        start = prefix.encode("utf-8", "surrogatepass")
        end = start + b"\xff"  # behind all that begin with it: UTF-8 has no such byte
        if page.cursor is not None:
            start = max(start, name_of(page.cursor).encode() + b"\0")
        return await self._read(lambda reading: reading.page(start, end, page.limit))

    async def compactable(self, *, updates: int, size: int, limit: int) -> Sequence[DocumentRecord]:
        return await self._read(lambda reading: reading.backlog(updates, size, limit))

    async def versions(self, name: str, page: Page) -> VersionPage:
        before = MAX_NUMBER if page.cursor is None else min(version_of(page.cursor), MAX_NUMBER)
        key = name_key(name)
        if key is None:
            return VersionPage([])
        return await self._read(lambda reading: reading.versions(key, before, page.limit))

    async def version(self, name: str, number: int) -> tuple[DocumentVersion, bytes] | None:
        key = name_key(name)
        if key is None or not 0 < number <= MAX_VERSION:
            return None
        return await self._read(lambda reading: reading.version(key, number), snapshot=True)

    # --- moving house ---------------------------------------------------------------------------------

    async def last_version(self, name: str, lineage: str) -> int:
        key = name_key(name)
        found = None if key is None else await self._read(lambda reading: reading.find(key))
        return checked(found, lineage).entry.last_version

    async def export_graves(self) -> AsyncIterator[Sequence[GraveItem]]:
        after = b""
        while rows := await self._database.read(
            lambda connection, after=after: run(connection, self._moving.graves, after, GRAVES)
        ):
            after = rows[-1][0]
            yield [GraveItem(digest, None if name is None else name.decode()) for digest, name in rows]

    async def take_in(self, item: DocumentItem | VersionItem | GraveItem) -> None:
        async def work(connection: AsyncConnection) -> None:
            reading = Reading(connection, self._queries, self._codec, self._damage)
            await TakingIn(connection, (self._queries, self._moving), self._codec, reading).take_in(item)

        await self._until_done(work)
        if isinstance(item, DocumentItem):
            await self._sweep()

    # --- repair ---------------------------------------------------------------------------------------

    async def damaged(self) -> Sequence[DamagedRecord]:
        found: list[DamagedRecord] = []
        after = 0
        while ids := await self._database.read(lambda connection, after=after: self._repairing(connection).ids(after)):
            after = ids[-1]
            for number in ids:
                found += await self._database.read(
                    lambda connection, number=number: self._repairing(connection).damaged(number), snapshot=True
                )
        return found

    async def set_aside(self, records: Sequence[DamagedRecord]) -> int:
        done = 0
        for record in records:
            done += await self._until_done(
                lambda connection, place=record.place: self._repairing(connection).set_aside(place)
            )
        if done:
            self._damage.forget()
        return done

    async def has_checksums(self) -> bool:
        return self._codec is not PLAIN_RECORDS

    # --- resealing ------------------------------------------------------------------------------------

    async def reseal(self, after: bytes, limit: int, *, only_counts: bool = False) -> Resealed:
        return await self._resealing.reseal(after, limit, only_counts=only_counts)

    def _repairing(self, connection: AsyncConnection) -> DocumentRepair:
        return DocumentRepair(connection, (self._queries, self._repair), self._codec)


async def check_packets(database: Database, connection: AsyncConnection) -> None:
    """
    ``database.Check``: whether the server takes statements as large as ours.

    Raises:
        ConfigurationError: If it does not.
    """
    if database.dialect is not Dialect.MYSQL:
        return
    ((size,),) = await execute(connection, database.dialect, "SELECT @@max_allowed_packet", ())
    if size < LEAST_PACKET_BYTES:
        raise ConfigurationError(
            f"max_allowed_packet of {database.place} is {size} bytes; documents need {LEAST_PACKET_BYTES}"
        )


def _prepared(append: Append) -> Appending:
    batch = Batch.of(append.updates) if append.updates else None
    return Appending(name_key(append.name), append.lineage, batch)
