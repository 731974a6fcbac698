"""Reading documents: what is known of them, their logs in slices, and whole ones as they are at one moment."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from roomkey.backends.damage import DamageNotes, NewerSchema
from roomkey.backends.document_records import Authors, decode_batch, lost_updates
from roomkey.backends.redis.documents.contents import Contents
from roomkey.backends.redis.documents.layout import Filed, Place, Row, filed
from roomkey.backends.redis.documents.outcomes import accepted
from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import Call, RedisServer
from roomkey.errors import Serialization
from roomkey.ports import DocumentUpdate, RecordCodec, RecordKind, StoredDocument

SLICE_BYTES: Final = 1024 * 1024
"""So much of a log is in one answer: a millisecond or two, in which the server does nothing else."""

SLICE_UPDATES: Final = 10_000

_OF_SNAPSHOT: Final = -1

_FIND: Final = Script("document_find")
_TAIL: Final = Script("document_tail")
_SET_ASIDE: Final = Script("document_set_aside")


class LogPart(NamedTuple):
    """Updates, in order; ``lost`` of them cannot be read and have something in their place that changes nothing."""

    updates: list[DocumentUpdate]
    lost: int


class DocumentReader:
    """Everything that is read of single documents."""

    def __init__(self, server: RedisServer, codec: RecordCodec, contents: Contents, damage: DamageNotes) -> None:
        self._server = server
        self._codec = codec
        self._contents = contents
        self._damage = damage

    async def find(self, place: Place) -> Filed | None:
        """
        The document there.

        Raises:
            Serialization: If it is damaged.
        """
        (found,) = await self.find_each([place])
        if isinstance(found, Serialization):
            raise found
        return found

    async def find_each(self, places: Sequence[Place]) -> list[Filed | Serialization | None]:
        """The documents there, in one pipeline; a damaged one is the error that it would be alone."""
        calls = [Call(_FIND, [place.document]) for place in places]
        answers = await self._server.run_many(calls, may_repeat=True)  # they are reads
        return [self._found(place, answer) for place, answer in zip(places, answers, strict=True)]

    def _found(self, place: Place, answer: Sequence[Any]) -> Filed | Serialization | None:
        if answer[0] == b"missing":
            return None
        try:
            record, state = accepted(answer)
            return filed(place.name, record, state, self._codec)
        except Serialization as error:
            return error

    async def load(self, place: Place) -> StoredDocument | None:
        """
        The whole document, as it is when the last slice of its log is read.

        A log does nothing but grow until the document is compacted or deleted; then this begins anew.
        """
        while True:
            found, slice = await self._slice(place, _OF_SNAPSHOT)
            if found is None:
                return None
            base = await self._contents.snapshot(place, found)
            if base is None:
                await self._check_gone(place, found)
                continue
            loaded = await self._rest(place, found, slice)
            if loaded is not None:
                latest, log = loaded
                return StoredDocument(
                    record=latest.entry.record(),
                    snapshot=base[0],
                    upto=latest.entry.upto,
                    authorship=base[1],
                    updates=log.updates,
                    lost=log.lost,
                )

    async def _check_gone(self, place: Place, found: Filed) -> None:
        now = await self.find(place)
        if now is not None and (now.id, now.content) == (found.id, found.content):
            raise Serialization("a part of a document is missing")

    async def _rest(self, place: Place, found: Filed, slice: Sequence[Row]) -> tuple[Filed, LogPart] | None:
        """The log to its end, from a first slice on; ``None`` if the document became another one meanwhile."""
        authors: Authors = {}
        upto = found.entry.upto
        log = await self._read(place, found, upto, slice, authors)
        while upto + len(log.updates) < found.entry.sequence:
            latest, slice = await self._slice(place, upto + len(log.updates))
            if latest is None or (latest.id, latest.entry.upto) != (found.id, upto):
                return None
            found = latest
            more = await self._read(place, found, upto + len(log.updates), slice, authors)
            log = LogPart(log.updates + more.updates, log.lost + more.lost)
        if upto == 0 and log.updates and log.lost == len(log.updates):
            raise Serialization("nothing of a document can be read")
        return found, log

    async def tail(self, place: Place, after: int, limit: int) -> tuple[Filed, list[DocumentUpdate] | None] | None:
        """
        The document, and some of its updates behind number ``after``, at most ``limit``; ``None`` instead of these if
        they were compacted.
        """
        found, slice = await self._slice(place, after, limit)
        if found is None:
            return None
        if after < found.entry.upto:
            return found, None
        part = await self._read(place, found, after, slice, {})
        return found, part.updates[:limit]

    async def _slice(self, place: Place, after: int, limit: int = SLICE_UPDATES) -> tuple[Filed | None, list[Row]]:
        # May be repeated: it is a read.
        answer = await self._server.run(
            _TAIL, [place.document, place.log], [after, SLICE_BYTES, min(limit, SLICE_UPDATES)], may_repeat=True
        )
        match answer:
            case [b"missing"]:
                return None, []
            case _:
                record, state, *slice = accepted(answer)
                return filed(place.name, record, state, self._codec), [Row(*row) for row in slice]

    async def _read(self, place: Place, found: Filed, after: int, slice: Sequence[Row], known: Authors) -> LogPart:
        """The updates behind number ``after`` in rows that begin with the one that has the next."""
        updates: list[DocumentUpdate] = []
        lost = 0
        for row in slice:
            expected = after + len(updates) + 1
            if row.first > expected:
                gap = self._lost(found, expected, row.first - expected)
                updates, lost, expected = updates + gap.updates, lost + gap.lost, row.first
            part = await self.row(place, found, row, known)
            behind = part.updates[expected - row.first :]  # before it some were appended together that are known
            updates += behind
            lost += len(behind) if part.lost else 0
        if not slice and after < found.entry.sequence:
            return self._lost(found, after + 1, found.entry.sequence - after)
        return LogPart(updates, lost)

    async def row(self, place: Place, found: Filed, row: Row, known: Authors) -> LogPart:
        """
        The updates of a row, or what stands in their place, if they cannot be read: then their bytes are put aside.

        Raises:
            NewerSchema: If a newer Roomkey wrote it.
        """
        try:
            updates = decode_batch(self._codec.decode(RecordKind.UPDATES, found.id + row.id, 0, row.record), known)
        except NewerSchema:
            raise
        except Serialization:
            updates = []
        if len(updates) == row.count:
            return LogPart(updates, 0)
        where = b"%s:%d:%s" % (found.id.hex().encode(), row.first, place.name)
        # May be repeated: the first one stays.
        await self._server.run(_SET_ASIDE, [place.partition.aside], [where, row.record], may_repeat=True)
        return self._lost(found, row.first, row.count)

    def _lost(self, found: Filed, first: int, count: int) -> LogPart:
        self._damage.note_torn(found.entry.name, first, count)
        return LogPart(lost_updates(count, found.entry.updated_at), count)
