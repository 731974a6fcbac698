"""Moving house: documents, versions and graves in Redis that are handed over, or taken in as they were elsewhere."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from secrets import token_bytes, token_hex
from typing import Final

from msgspec.structs import replace

from roomkey.backends.document_keys import grave_digest, name_key
from roomkey.backends.document_records import DocumentEntry, encode_batch, encode_document, encode_version
from roomkey.backends.redis.connection import Argument
from roomkey.backends.redis.documents.appending import ROW_ID_BYTES
from roomkey.backends.redis.documents.contents import AUTHORSHIP, SNAPSHOT, STAGED_SECONDS, VERSION, Contents, Staged
from roomkey.backends.redis.documents.layout import Filed, Layout, Place, lineage_id, moment, text
from roomkey.backends.redis.documents.outcomes import accepted
from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import RedisServer
from roomkey.backends.taking_in import check_document
from roomkey.errors import Conflict
from roomkey.ports import (
    DocumentItem,
    DocumentUpdate,
    DocumentVersion,
    GraveItem,
    RecordCodec,
    RecordKind,
    StoredDocument,
)

ROW_BYTES: Final = 256 * 1024
"""How much of a log is put into one row: not much more than others put there, if they put much."""

MAX_GRAVES: Final = 1000
"""Graves in a batch."""

_CALL_BYTES: Final = 8
_CALL_DIGITS: Final = 2 * _CALL_BYTES

_STAGE: Final = Script("log_stage")
_TAKE_IN: Final = Script("document_take_in")
_TAKE_VERSION: Final = Script("document_take_version")
_TAKE_GRAVE: Final = Script("document_take_grave")

_NO_CONTENT: Final = Staged(b"", 0)


def new_call() -> bytes:
    """What a call is known by if it comes again."""
    return token_hex(_CALL_BYTES).encode()


class Moving:
    """What hands over and takes in."""

    def __init__(self, server: RedisServer, codec: RecordCodec, layout: Layout, contents: Contents) -> None:
        self._server = server
        self._codec = codec
        self._layout = layout
        self._contents = contents

    async def graves(self) -> AsyncIterator[Sequence[GraveItem]]:
        """``MovableDocuments.export_graves``."""
        for partition in self._layout.partitions:
            found: Mapping[bytes, bytes] = await self._server.ask("HGETALL", partition.graves)
            graves = [GraveItem(digest, value[_CALL_DIGITS:].decode()) for digest, value in found.items()]
            for start in range(0, len(graves), MAX_GRAVES):
                yield graves[start : start + MAX_GRAVES]

    async def take_in_grave(self, item: GraveItem) -> None:
        """Without its name, nobody knows where it belongs."""
        name = None if item.name is None else name_key(item.name)
        if name is not None:
            partition = self._layout.place(name).partition
            value = b"0" * _CALL_DIGITS + name
            # May be repeated: the first one stays.
            await self._server.run(
                _TAKE_GRAVE, [partition.graves, partition.changes], [item.digest, value], may_repeat=True
            )

    # --- documents ------------------------------------------------------------------------------------

    async def take_in_document(self, place: Place, found: Filed | None, item: DocumentItem) -> None:
        """Let it take the place of what was ``found``."""
        stored, record = item.stored, item.stored.record
        if found is not None:
            check_document(item, found.entry.lineage, found.entry.sequence, found.entry.last_version)
        lineage = lineage_id(place.name, record.lineage)
        content = _NO_CONTENT
        if stored.authorship is not None:
            parts = {SNAPSHOT: stored.snapshot or b"", AUTHORSHIP: stored.authorship}
            content = await self._contents.stage(place, lineage, parts, upto=stored.upto)
        call = new_call()
        log = place.content(call)
        rows = await self._stage_log(log, lineage, stored)
        partition = place.partition
        keys = [
            *(place.document, place.log, partition.names, partition.log_updates, partition.log_bytes),
            *(partition.changes, partition.graves, log, place.content(content.id)),
        ]
        arguments: list[Argument] = [
            *(place.name, grave_digest(place.name, record.lineage), call, b"" if found is None else found.state),
            self._codec.encode(RecordKind.DOCUMENT, place.name, 0, encode_document(_new(item))),
            *(content.id, content.pieces, rows, partition.contents),
            *(text(record.lineage), record.sequence, stored.upto, moment(record.updated_at)),
            sum(len(update.data) for update in stored.updates),
            len(stored.snapshot or b""),
            -1 if stored.authorship is None else len(stored.authorship),
            item.last_version,
        ]
        # May be repeated: the document knows the call.
        _check(await self._server.run(_TAKE_IN, keys, arguments, may_repeat=True))

    async def _stage_log(self, key: bytes, lineage: bytes, stored: StoredDocument) -> int:
        """Store the log where nothing leads to yet, row by row; how many it are."""
        first = stored.upto + 1
        number = size = 0
        for number, updates in enumerate(_rows(stored.updates), 1):  # noqa: B007  # it is how many there were
            id = token_bytes(ROW_ID_BYTES)
            size += sum(len(update.data) for update in updates)
            row = self._codec.encode(RecordKind.UPDATES, lineage + id, 0, encode_batch(updates))
            # May be repeated: the log knows its rows by their numbers.
            await self._server.run(_STAGE, [key], [STAGED_SECONDS, first, id, len(updates), size, row], may_repeat=True)
            first += len(updates)
        return number

    # --- versions -------------------------------------------------------------------------------------

    async def take_in_version(self, place: Place, found: Filed, version: DocumentVersion, content: bytes) -> None:
        """Let it be one of the document that was ``found``, which has none of its number."""
        staged = await self._contents.stage(place, found.id, {VERSION: content})
        unnumbered = encode_version(replace(version, number=0))
        record = self._codec.encode(RecordKind.VERSION, found.id + staged.id, 0, unnumbered)
        answer = await self._server.run(
            _TAKE_VERSION,
            [place.document, place.versions, place.content(staged.id)],
            [text(found.entry.lineage), version.number, staged.id, staged.pieces, record],
            may_repeat=True,  # the content knows that it is a version
        )
        _check(answer)


def _check(answer: Sequence[bytes]) -> None:
    if answer[0] == b"stale":
        raise Conflict("somebody else writes to what is taken in")
    accepted(answer)


def _new(item: DocumentItem) -> DocumentEntry:
    record = item.stored.record
    return DocumentEntry.new(record.name, record.lineage, record.created_at)


def _rows(updates: Sequence[DocumentUpdate]) -> Iterator[Sequence[DocumentUpdate]]:
    row: list[DocumentUpdate] = []
    size = 0
    for update in updates:
        row.append(update)
        size += len(update.data)
        if size >= ROW_BYTES:
            yield row
            row, size = [], 0
    if row:
        yield row
