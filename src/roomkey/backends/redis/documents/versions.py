"""The versions of documents: records in a stream, newest last, each with the id of its content."""

from collections.abc import Sequence
from secrets import token_hex
from typing import Any, Final

from msgspec.structs import replace

from roomkey.backends.document_keys import version_cursor
from roomkey.backends.document_records import decode_version, encode_version, numbered
from roomkey.backends.redis.documents.contents import VERSION, Contents
from roomkey.backends.redis.documents.layout import MAX_VERSION, Filed, Place, text
from roomkey.backends.redis.documents.outcomes import accepted
from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import RedisServer
from roomkey.errors import Serialization
from roomkey.ports import DocumentVersion, NewVersion, RecordCodec, RecordKind, VersionPage

FORGOTTEN_AT_A_TIME: Final = 500

_KEEP: Final = Script("document_keep_version")
_FORGET: Final = Script("document_forget_versions")


class Versions:
    """What is done with versions."""

    def __init__(self, server: RedisServer, codec: RecordCodec, contents: Contents) -> None:
        self._server = server
        self._codec = codec
        self._contents = contents

    async def keep(self, place: Place, found: Filed, version: NewVersion, fence: int) -> DocumentVersion:
        """Keep a state of a document; ``fence`` is -1 without one."""
        staged = await self._contents.stage(place, found.id, {VERSION: version.content})
        # Only the script knows its number, which is therefore no part of the record.
        unnumbered = encode_version(numbered(version, 0))
        record = self._codec.encode(RecordKind.VERSION, found.id + staged.id, 0, unnumbered)
        answer = await self._server.run(
            _KEEP,
            [place.document, place.versions, place.content(staged.id)],
            [text(found.entry.lineage), fence, staged.id, staged.pieces, record],
            may_repeat=True,  # the content knows which version it is
        )
        (number,) = accepted(answer)
        return numbered(version, number)

    async def page(self, place: Place, found: Filed, before: int | None, limit: int) -> VersionPage:
        """Versions with numbers below ``before``, the newest first."""
        start = "+" if before is None else f"({min(before, MAX_VERSION + 1)}-0"
        entries: Any = await self._server.ask("XREVRANGE", place.versions, *(start, "-", "COUNT", limit + 1))
        versions = [self._version(found, entry)[0] for entry in entries[:limit]]
        return VersionPage(versions, version_cursor(versions[-1].number) if len(entries) > limit else None)

    async def one(self, place: Place, found: Filed, number: int) -> tuple[DocumentVersion, bytes] | None:
        """A version with its content."""
        if not 0 < number <= MAX_VERSION:
            return None
        for is_last in (False, True):
            entries: Any = await self._server.ask("XRANGE", place.versions, f"{number}-0", f"{number}-0")
            if not entries:
                return None
            version, id = self._version(found, entries[0])
            content = await self._contents.read(place, found.id, id, VERSION, size=version.size)
            if content is not None:
                return version, content
            if is_last:
                break
            # Somebody may have dropped it just now.
        raise Serialization("a part of a version is missing")

    async def forget(self, place: Place, lineage: str, numbers: Sequence[int], fence: int) -> int:
        """Drop versions; how many there were."""
        possible = [number for number in dict.fromkeys(numbers) if 0 < number <= MAX_VERSION]
        forgotten = 0
        for start in range(0, max(len(possible), 1), FORGOTTEN_AT_A_TIME):
            some = possible[start : start + FORGOTTEN_AT_A_TIME]
            answer = await self._server.run(
                _FORGET,
                [place.document, place.versions],
                [text(lineage), fence, token_hex(8), place.partition.contents, *some],
                may_repeat=True,  # the document has the answer of a call that comes again
            )
            if answer in ([b"missing"], [b"another"]):
                break
            forgotten += accepted(answer)[0]
        return forgotten

    def _version(self, found: Filed, entry: Any) -> tuple[DocumentVersion, bytes]:
        """What an entry of the stream says, and the id of its content."""
        stream_id, (_, content, _, record) = entry
        decoded = decode_version(self._codec.decode(RecordKind.VERSION, found.id + content, 0, record))
        return replace(decoded, number=int(stream_id.partition(b"-")[0])), content
