"""What waits for an endpoint: counted, cut off at the front if it is too much, and shown with everything else of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from heapq import nsmallest
from typing import Final

import msgspec
from msgspec import Struct

from roomkey.hooks.outbox import SPACE, moment
from roomkey.ports import ObjectStore

READ_AT_ONCE: Final = 500


class EndpointFigures(Struct, frozen=True, kw_only=True):
    """How an endpoint stands, as the node sees it that sends; counts are since that has had its turn."""

    at: datetime
    node: str
    waiting: int = 0
    oldest: datetime | None = None
    delivered: int = 0
    failed: int = 0
    """Messages that were given up."""
    attempts_failed: int = 0
    dropped: int = 0
    """Messages that were never sent, because too many waited."""
    is_away: bool = False
    last_failure: str | None = None
    last_failure_at: datetime | None = None

    def in_words(self) -> str:
        """The figures, for health."""
        since = "" if self.oldest is None else f", the oldest since {self.oldest:%Y-%m-%d %H:%M:%S}Z"
        return (
            f"{self.waiting} waiting{since}, {self.delivered} delivered, {self.failed} given up, "
            f"{self.attempts_failed} attempts failed, {self.dropped} dropped"
        )


decode_figures: Final = msgspec.msgpack.Decoder(EndpointFigures).decode


class _Order(Struct, frozen=True):
    """As much of an entry as is needed to count it."""

    order: int


_order_of: Final = msgspec.msgpack.Decoder(_Order).decode


class Backlog:
    """Everything that waits under a prefix. Looking through it takes as long as there is much of it."""

    def __init__(self, objects: ObjectStore, prefix: str) -> None:
        self._objects = objects
        self._prefix = prefix

    async def count(self) -> tuple[int, datetime | None]:
        """How much waits, and since when the oldest does. Raises ``Storage``."""
        count, oldest = 0, None
        async for order, _ in self._orders():
            count += 1
            oldest = order if oldest is None else min(oldest, order)
        return count, None if oldest is None else moment(oldest)

    async def drop_oldest(self, count: int) -> int:
        """Remove so much of it, the oldest first; returns how much that was. Raises ``Storage``."""
        dropped = 0
        while dropped < count:
            oldest = nsmallest(min(count - dropped, READ_AT_ONCE), [each async for each in self._orders()])
            if not oldest:
                break
            await self._objects.commit(SPACE, dict.fromkeys(name for _, name in oldest))
            dropped += len(oldest)
        return dropped

    async def _orders(self) -> AsyncIterator[tuple[int, str]]:
        """Everything that waits: its order, and its name."""
        after = ""
        while found := await self._objects.list(SPACE, prefix=self._prefix, after=after, limit=READ_AT_ONCE):
            for each in found:
                with suppress(msgspec.MsgspecError, UnicodeDecodeError):
                    yield _order_of(each.value).order, each.name
            after = found[-1].name
            await asyncio.sleep(0)
