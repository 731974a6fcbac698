"""Reading documents: what is known of them, their logs in slices, and whole ones as they are at one moment."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from roomkey.backends.document_records import Authors, decode_batch
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


class DocumentReader:
    """Everything that is read of single documents."""

    def __init__(self, server: RedisServer, codec: RecordCodec, contents: Contents) -> None:
        self._server = server
        self._codec = codec
        self._contents = contents

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
                latest, updates = loaded
                return StoredDocument(
                    record=latest.entry.record(),
                    snapshot=base[0],
                    upto=latest.entry.upto,
                    authorship=base[1],
                    updates=updates,
                )

    async def _check_gone(self, place: Place, found: Filed) -> None:
        now = await self.find(place)
        if now is not None and (now.id, now.content) == (found.id, found.content):
            raise Serialization("a part of a document is missing")

    async def _rest(
        self, place: Place, found: Filed, slice: Sequence[Row]
    ) -> tuple[Filed, list[DocumentUpdate]] | None:
        """The log to its end, from a first slice on; ``None`` if the document became another one meanwhile."""
        authors: Authors = {}
        base = found.id, found.entry.upto
        updates = [*self._updates(found, found.entry.upto, slice, authors)]
        while found.entry.upto + len(updates) < found.entry.sequence:
            latest, slice = await self._slice(place, found.entry.upto + len(updates))
            if latest is None or (latest.id, latest.entry.upto) != base:
                return None
            found = latest
            updates += self._updates(found, found.entry.upto + len(updates), slice, authors)
        return found, updates

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
        return found, [*self._updates(found, after, slice, {})][:limit]

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

    def _updates(self, found: Filed, after: int, slice: Sequence[Row], known: Authors) -> Iterator[DocumentUpdate]:
        """
        The updates behind number ``after`` in rows that begin with the one that has the next.

        Raises:
            Serialization: If they are not all there.
        """
        expected = after + 1
        for row in slice:
            updates = self.row(found, row, known)
            if row.first < expected:
                del updates[: expected - row.first]  # they were appended together with some that are known
            elif row.first > expected:
                raise Serialization("updates of a document are missing")
            expected += len(updates)
            yield from updates
        if expected == after + 1 and after < found.entry.sequence:
            raise Serialization("updates of a document are missing")

    def row(self, found: Filed, row: Row, known: Authors) -> list[DocumentUpdate]:
        """
        The updates of a row.

        Raises:
            Serialization: If it is damaged.
        """
        updates = decode_batch(self._codec.decode(RecordKind.UPDATES, found.id + row.id, 0, row.record), known)
        if len(updates) != row.count:
            raise Serialization("updates of a document cannot be read")
        return updates
