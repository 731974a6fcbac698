"""What looks at all documents: pages of names, and long logs. Each step asks all partitions in one pipeline."""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct, field

from roomkey.backends.redis.documents.layout import Layout, Partition
from roomkey.backends.redis.server import RedisServer

_MORE: Final = 4
"""Names that a partition is asked for beyond its share, so that one question is enough nearly always."""

_BEHIND_ALL: Final = b"\xff"
"""A byte that is in no text."""


class _Source(Struct):
    """The names of a partition, as far as they were read."""

    partition: Partition
    names: list[bytes] = field(default_factory=list[bytes])
    has_more: bool = True


class Listing:
    """The indexes of all partitions as if they were one."""

    def __init__(self, server: RedisServer, layout: Layout) -> None:
        self._server = server
        self._layout = layout

    async def names(self, prefix: bytes, after: bytes | None, limit: int) -> list[bytes]:
        """The first names that begin with ``prefix`` and stand behind ``after``, in order."""
        low = b"[" + prefix if after is None or after < prefix else b"(" + after
        sources = [_Source(partition) for partition in self._layout.partitions]
        chunk = limit // len(sources) + _MORE
        merged: list[bytes] = []
        asked = sources
        while asked:
            await self._read(asked, low, b"(" + prefix + _BEHIND_ALL, chunk)
            merged = sorted(name for source in sources for name in source.names)[:limit]
            # A partition may have more for this page only if what it has so far does not reach beyond its end.
            asked = [
                source
                for source in sources
                if source.has_more and (len(merged) < limit or source.names[-1] < merged[-1])
            ]
            chunk *= 2
        return merged

    async def _read(self, sources: Sequence[_Source], low: bytes, high: bytes, chunk: int) -> None:
        answers = await self._server.ask_many(
            [
                (
                    "ZRANGEBYLEX",
                    source.partition.names,
                    b"(" + source.names[-1] if source.names else low,
                    *(high, "LIMIT", 0, chunk),
                )
                for source in sources
            ]
        )
        for source, found in zip(sources, answers, strict=True):
            source.names += found
            source.has_more = len(found) == chunk

    async def long_logs(self, *, updates: int, size: int, limit: int) -> list[bytes]:
        """The names of documents with more updates or bytes in their logs, ``limit`` of a partition at most."""
        answers = await self._server.ask_many(
            [
                ("ZRANGEBYSCORE", key, f"({least}", "+inf", "LIMIT", 0, limit)
                for partition in self._layout.partitions
                for key, least in ((partition.log_updates, updates), (partition.log_bytes, size))
            ]
        )
        return [*dict.fromkeys(name for found in answers for name in found)]

    async def changes(self) -> int:
        """How often something was written."""
        answers = await self._server.ask_many([("GET", partition.changes) for partition in self._layout.partitions])
        return sum(int(answer or 0) for answer in answers)
