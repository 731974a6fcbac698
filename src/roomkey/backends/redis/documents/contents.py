"""Snapshots, authorship and the contents of versions: in pieces, so that none keeps the server busy for long."""

from collections.abc import Mapping
from secrets import token_hex
from typing import Final, NamedTuple

from roomkey.backends.redis.documents.layout import Filed, Place
from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import RedisServer
from roomkey.errors import Serialization
from roomkey.ports import RecordCodec, RecordKind

PIECE_BYTES: Final = 256 * 1024

STAGED_SECONDS: Final = 600
"""How long a content stays that nothing leads to: longer than any caller waits."""

ID_BYTES: Final = 12

SNAPSHOT: Final = b"s"
AUTHORSHIP: Final = b"a"
VERSION: Final = b"v"

_STAGE: Final = Script("content_stage")


class Staged(NamedTuple):
    """A content that was stored, and that nothing leads to yet."""

    id: bytes
    pieces: int


class Contents:
    """
    The contents in Redis. Each is written once, under an id of its own, and never changes.

    So whoever reads one gets all of it as it was, or notices that it is gone.
    """

    def __init__(self, server: RedisServer, codec: RecordCodec) -> None:
        self._server = server
        self._codec = codec

    async def stage(self, place: Place, lineage: bytes, parts: Mapping[bytes, bytes], *, upto: int = 0) -> Staged:
        """Store a content of the document of this lineage. ``upto`` is how far a snapshot goes."""
        id = token_hex(ID_BYTES).encode()
        key = place.content(id)
        pieces = {
            b"%s%d" % (part, number): content[start : start + PIECE_BYTES]
            for part, content in parts.items()
            for number, start in enumerate(range(0, len(content), PIECE_BYTES))
        }
        for where, piece in pieces.items():
            stored = self._codec.encode(RecordKind.CONTENT, lineage + id + where, upto, piece)
            # May be repeated: the same piece comes to the same place.
            await self._server.run(_STAGE, [key], [where, stored, STAGED_SECONDS], may_repeat=True)
        return Staged(id, len(pieces))

    async def read(
        self, place: Place, lineage: bytes, id: bytes, part: bytes, *, size: int, upto: int = 0
    ) -> bytes | None:
        """
        A part of a content, ``size`` bytes in all; ``None`` if it is gone.

        Raises:
            Serialization: If it is damaged.
        """
        key = place.content(id)
        places = [b"%s%d" % (part, number) for number in range(-(-size // PIECE_BYTES))]
        stored = await self._server.ask_many([("HGET", key, where) for where in places])
        if None in stored:
            return None
        content = b"".join(
            self._codec.decode(RecordKind.CONTENT, lineage + id + where, upto, piece)
            for where, piece in zip(places, stored, strict=True)
        )
        if len(content) != size:
            raise Serialization("a part of a document is missing")
        return content

    async def snapshot(self, place: Place, found: Filed) -> tuple[bytes | None, bytes | None] | None:
        """The snapshot of a document and its authorship; ``None`` if they are gone by now."""
        entry = found.entry
        if entry.authorship_bytes is None:
            return None, None
        sizes = {SNAPSHOT: entry.snapshot_bytes, AUTHORSHIP: entry.authorship_bytes}
        snapshot, authorship = [
            await self.read(place, found.id, found.content, part, size=size, upto=entry.upto)
            for part, size in sizes.items()
        ]
        return None if snapshot is None or authorship is None else (snapshot, authorship)
