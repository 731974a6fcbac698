"""Writing the records of documents anew, under the key that the codec seals with now."""

from collections.abc import Sequence
from functools import partial
from typing import Final

from roomkey.backends.redis.documents.contents import VERSION
from roomkey.backends.redis.documents.layout import Filed, Layout, Place
from roomkey.backends.redis.documents.reading import DocumentReader
from roomkey.backends.redis.resealing import Entry, Resealer, Tally
from roomkey.backends.redis.resealing import Place as FieldPlace
from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import RedisServer
from roomkey.backends.resealing import Sealed, sealed_anew
from roomkey.errors import Serialization
from roomkey.ports import RecordCodec, RecordKind, Resealed, SealingCodec

NAMES_AT_ONCE: Final = 50
PIECES_AT_ONCE: Final = 8
"""Number of pieces of a content in one answer: 2 MiB."""

_DOCUMENT: Final = Script("document_reseal")

_NUMBER: Final = b"version"
"""The field of a content that says which version it is."""


class DocumentResealing:
    """``Resealable`` for documents."""

    def __init__(self, server: RedisServer, codec: RecordCodec, layout: Layout, reader: DocumentReader) -> None:
        self._server = server
        self._codec = codec
        self._layout = layout
        self._reader = reader

    async def reseal(self, after: bytes, limit: int, *, only_counts: bool) -> Resealed:
        """``Resealable.reseal``: whole documents, one after the other."""
        if not isinstance(self._codec, SealingCodec):
            return Resealed(None, 0, 0, 0)
        tally = Tally()
        number, last = (after[0], after[1:]) if after else (0, b"")
        while number < len(self._layout.partitions) and tally.looked_at < limit:
            names = await self._names(number, last)
            for name in names:
                one = _DocumentResealer(self._server, self._codec, self._reader, only_counts=only_counts)
                await one.reseal(self._layout.place(name))
                tally.add(*one.tally)
            number, last = (number, names[-1]) if len(names) == NAMES_AT_ONCE else (number + 1, b"")
        return tally.resealed_upto(bytes([number]) + last if number < len(self._layout.partitions) else None)

    async def _names(self, number: int, last: bytes) -> Sequence[bytes]:
        start = b"(" + last if last else "-"
        key = self._layout.partitions[number].names
        return await self._server.ask("ZRANGEBYLEX", key, start, "+", "LIMIT", 0, NAMES_AT_ONCE)


class _DocumentResealer(Resealer):
    """Writes all that belongs to a document anew."""

    def __init__(self, server: RedisServer, codec: SealingCodec, reader: DocumentReader, *, only_counts: bool) -> None:
        super().__init__(server, codec, only_counts=only_counts)
        self._reader = reader

    async def reseal(self, place: Place) -> None:
        """Write everything anew that belongs to the document there."""
        (found,) = await self._reader.find_each([place])
        if isinstance(found, Serialization):
            self.tally.add(1, 0, 1)
        elif found is not None:
            await self._reseal(place, found)
            if self.tally.left and await self._is_another(place, found):
                self.tally.left = 0  # what belonged to it is gone

    async def _is_another(self, place: Place, found: Filed) -> bool:
        (now,) = await self._reader.find_each([place])
        return now is None or (not isinstance(now, Serialization) and now.id != found.id)

    async def _reseal(self, place: Place, found: Filed) -> None:
        await self._record(place)
        await self.stream(place.log, partial(_row, found))
        if found.content:
            await self._content(place, found, found.content)
        versions: list[Entry] = await self._server.ask("XRANGE", place.versions, "-", "+")
        await self.stream(place.versions, partial(_version, found))
        for _, fields in versions:
            await self._content(place, found, fields[1])

    async def _record(self, place: Place) -> None:
        record: bytes = await self._server.ask("HGET", place.document, "record") or b""
        anew, left = sealed_anew(self._codec, [Sealed(None, RecordKind.DOCUMENT, place.name, 0, record)])
        self.tally.add(1, len(anew), left)
        if anew and not self._only_counts:
            # May be repeated: what was written is not what was read.
            await self._server.run(_DOCUMENT, [place.document], [record, anew[0].record], may_repeat=True)

    async def _content(self, place: Place, found: Filed, id: bytes) -> None:
        key = place.content(id)
        fields = [field for field in await self._server.ask("HKEYS", key) if field != _NUMBER]
        for start in range(0, len(fields), PIECES_AT_ONCE):
            some = fields[start : start + PIECES_AT_ONCE]
            values = await self._server.ask("HMGET", key, *some)
            pieces = [each for each in zip(some, values, strict=True) if each[1] is not None]
            await self.hash(key, [_piece(found, id, *each) for each in pieces])


def _row(found: Filed, entry: Entry) -> Sealed[bytes] | None:
    id, fields = entry
    if len(fields) != 8:
        return None
    return Sealed(id, RecordKind.UPDATES, found.id + fields[1], 0, fields[7])


def _version(found: Filed, entry: Entry) -> Sealed[bytes] | None:
    id, fields = entry
    if len(fields) != 4:
        return None
    return Sealed(id, RecordKind.VERSION, found.id + fields[1], 0, fields[3])


def _piece(found: Filed, content: bytes, field: bytes, value: bytes) -> Sealed[FieldPlace]:
    upto = 0 if field.startswith(VERSION) else found.entry.upto
    return Sealed(FieldPlace(field), RecordKind.CONTENT, found.id + content + field, upto, value)
