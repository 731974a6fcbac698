"""What of documents is damaged in Redis, and putting it aside."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, NamedTuple

import structlog

from roomkey.backends.damage import DamageNotes, NewerSchema, shown
from roomkey.backends.document_records import decode_batch, encode_batch, lost_updates
from roomkey.backends.redis.documents.contents import Contents
from roomkey.backends.redis.documents.layout import Filed, Layout, Partition, Place, Row, damaged
from roomkey.backends.redis.documents.moving import new_call
from roomkey.backends.redis.documents.reading import DocumentReader
from roomkey.backends.redis.documents.versions import Versions
from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import RedisServer
from roomkey.errors import Serialization
from roomkey.ports import DamagedRecord, RecordCodec, RecordKind

READ_AT_ONCE: Final = 50
"""Rows or versions in one answer."""

_PUT_ASIDE: Final = Script("document_put_aside")
_REPLACE_ROW: Final = Script("document_replace_row")
_DROP_VERSION: Final = Script("document_drop_version")
_UNLIST: Final = Script("document_unlist")

_DOCUMENT, _ROW, _CONTENT, _VERSION, _ENTRY = b"d", b"r", b"c", b"v", b"e"

_SEPARATOR: Final = b":"

_log = structlog.get_logger("roomkey.storage")


class _Flaw(NamedTuple):
    """
    Something that is damaged. ``number`` is that of its first update, of its version, or of the index that it is in.

    ``row`` is what was read, if it is updates.
    """

    what: bytes
    name: bytes
    error: Serialization
    number: int = 0
    row: Row | None = None


class Repair:
    """What looks at everything."""

    def __init__(
        self,
        server: RedisServer,
        codec: RecordCodec,
        layout: Layout,
        *,
        reader: DocumentReader,
        contents: Contents,
        versions: Versions,
        notes: DamageNotes,
    ) -> None:
        self._server = server
        self._codec = codec
        self._layout = layout
        self._reader = reader
        self._contents = contents
        self._versions = versions
        self._notes = notes

    async def damaged(self) -> list[DamagedRecord]:
        """``Repairable.damaged``."""
        return [
            _damaged(flaw)
            for partition in self._layout.partitions
            for name in await self._names(partition)
            async for flaw in self._flaws(name)
        ]

    async def set_aside(self, records: Sequence[DamagedRecord]) -> int:
        """
        ``Repairable.set_aside``.

        A snapshot stays: without it there is no document, and what can be read of it may still be of use.
        """
        wanted: dict[bytes, dict[bytes, DamagedRecord]] = {}
        for record in records:
            name = record.place.split(_SEPARATOR, 2)[-1]
            wanted.setdefault(name, {})[record.place] = record
        done = 0
        for name, places in wanted.items():
            for flaw in [flaw async for flaw in self._flaws(name)]:
                record = places.get(_place(flaw))
                if record is None or isinstance(flaw.error, NewerSchema) or not await self._put_right(flaw):
                    continue
                done += 1
                _log.warning("storage_record_set_aside", kind=record.kind.value, key=record.key)
        if done:
            self._notes.forget()
        return done

    # --- look -----------------------------------------------------------------------------------------

    async def _names(self, partition: Partition) -> list[bytes]:
        """All names that an index has."""
        found = await self._server.ask_many([("ZRANGE", key, 0, -1) for key in _indexes(partition)])
        return sorted({name for names in found for name in names})

    async def _flaws(self, name: bytes) -> AsyncIterator[_Flaw]:
        """What is damaged of the document of this name."""
        place = self._layout.place(name)
        (found,) = await self._reader.find_each([place])
        if isinstance(found, Serialization):
            yield _Flaw(_DOCUMENT, name, found)
        elif found is None:
            scores = await self._server.ask_many([("ZSCORE", key, name) for key in _indexes(place.partition)])
            for number, score in enumerate(scores):
                if score is not None:
                    yield _Flaw(_ENTRY, name, Serialization("no document stands there"), number)
        else:
            async for flaw in self._rows(place, found):
                yield flaw
            if (error := await self._snapshot(place, found)) is not None:
                yield _Flaw(_CONTENT, name, error)
            async for flaw in self._kept(place, found):
                yield flaw

    async def _rows(self, place: Place, found: Filed) -> AsyncIterator[_Flaw]:
        async for id, fields in self._entries(place.log):
            first = int(id.partition(b"-")[0])
            try:
                _, row_id, _, digits, _, _, _, record = fields
                count = int(digits)
            except ValueError:
                yield _Flaw(_ROW, place.name, Serialization("updates of a document cannot be read"), first)
                continue
            row = Row(first, count, row_id, record)
            try:
                updates = decode_batch(self._codec.decode(RecordKind.UPDATES, found.id + row_id, 0, record), {})
                if len(updates) != row.count:
                    raise Serialization("updates of a document cannot be read")  # noqa: TRY301  # as the codec does
            except Serialization as error:
                yield _Flaw(_ROW, place.name, error, first, row)

    async def _snapshot(self, place: Place, found: Filed) -> Serialization | None:
        try:
            if await self._contents.snapshot(place, found) is None:
                now = await self._reader.find(place)
                if now is not None and now.content == found.content:
                    return damaged()
        except Serialization as error:
            return error
        return None

    async def _kept(self, place: Place, found: Filed) -> AsyncIterator[_Flaw]:
        async for entry in self._entries(place.versions):
            number = int(entry[0].partition(b"-")[0])
            try:
                await self._versions.one(place, found, number)
            except Serialization as error:
                yield _Flaw(_VERSION, place.name, error, number)

    async def _entries(self, key: bytes) -> AsyncIterator[Any]:
        after = b"-"
        while entries := await self._server.ask("XRANGE", key, after, "+", "COUNT", READ_AT_ONCE):
            for entry in entries:
                yield entry
            after = b"(" + entries[-1][0]

    # --- put right ------------------------------------------------------------------------------------

    async def _put_right(self, flaw: _Flaw) -> bool:
        place = self._layout.place(flaw.name)
        partition = place.partition
        call = new_call()
        where = b"%b:%d:%b:%b" % (flaw.what, flaw.number, call, flaw.name)
        run = self._server.run
        # All may be repeated: what is gone stays so; only the number may be too small then.
        if flaw.what == _DOCUMENT:
            record, state = await self._server.ask("HMGET", place.document, "record", "state")
            away = partition.tag + b"aside:" + call + b":"
            keys = [
                *(place.document, place.log, place.versions, partition.aside),
                *(partition.names, partition.log_updates, partition.log_bytes, partition.changes),
                *(away + b"log", away + b"versions"),
            ]
            return bool(await run(_PUT_ASIDE, keys, [flaw.name, call, record or b"", state or b""], may_repeat=True))
        if flaw.what == _ROW and flaw.row is not None:
            return await self._replace(place, flaw.row, where)
        if flaw.what == _VERSION:
            keys = [place.versions, partition.aside]
            return bool(await run(_DROP_VERSION, keys, [flaw.number, where], may_repeat=True))
        if flaw.what == _ENTRY:
            keys = [_indexes(partition)[flaw.number], place.document, partition.aside]
            return bool(await run(_UNLIST, keys, [flaw.name, where], may_repeat=True))
        return False

    async def _replace(self, place: Place, row: Row, where: bytes) -> bool:
        """Put updates that change nothing in the place of a row, so that the others keep their numbers."""
        found = await self._reader.find(place)
        if found is None:
            return False
        lost = encode_batch(lost_updates(row.count, found.entry.updated_at))
        record = self._codec.encode(RecordKind.UPDATES, found.id + row.id, 0, lost)
        arguments = [row.first, row.record, record, where]
        # May be repeated: the second time another row stands there.
        return bool(
            await self._server.run(_REPLACE_ROW, [place.log, place.partition.aside], arguments, may_repeat=True)
        )


def _indexes(partition: Partition) -> Sequence[bytes]:
    return partition.names, partition.log_updates, partition.log_bytes


def _place(flaw: _Flaw) -> bytes:
    return b"%b:%d:%b" % (flaw.what, flaw.number, flaw.name)


_KINDS: Final = {
    _DOCUMENT: (RecordKind.DOCUMENT, ""),
    _ROW: (RecordKind.UPDATES, ", update {}"),
    _CONTENT: (RecordKind.CONTENT, ", snapshot"),
    _VERSION: (RecordKind.VERSION, ", version {}"),
    _ENTRY: (RecordKind.FIGURES, " in index {}"),
}


def _damaged(flaw: _Flaw) -> DamagedRecord:
    kind, rest = _KINDS[flaw.what]
    return DamagedRecord(
        kind=kind,
        key=f"{shown(flaw.name)}{rest.format(flaw.number)}",
        reason=str(flaw.error),
        place=_place(flaw),
        is_newer=isinstance(flaw.error, NewerSchema),
    )
