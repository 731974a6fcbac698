"""
Looking now and then whether the last publication of each room was heard.

One that is lost before a silence leaves no hole by which its room would know.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from roomkey.backends.redis.cluster.layout import decode_head
from roomkey.backends.redis.cluster.listening import Ears, Subscription
from roomkey.backends.redis.server import RedisServer
from roomkey.errors import Storage
from roomkey.ports import Position

AT_A_TIME: Final = 500
"""Rooms that are asked for together."""

ON_ITS_WAY_SECONDS: Final = 1.0
"""How long what was published may take to be heard."""


class Comparison:
    """Compares where rooms stand with what was heard of them. Rooms that somebody listens to are not forgotten."""

    def __init__(self, server: RedisServer, ears: Ears, *, every: timedelta, lifetime: int) -> None:
        """Rooms are remembered for ``lifetime`` milliseconds from then on."""
        self._server = server
        self._ears = ears
        self._every = every.total_seconds()
        self._lifetime = lifetime

    async def run(self) -> None:
        """Do it again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._every)
            rooms = self._ears.rooms
            for start in range(0, len(rooms), AT_A_TIME):
                try:
                    await self._compare(rooms[start : start + AT_A_TIME])
                except Storage:
                    break  # the server says itself what is wrong

    async def _compare(self, rooms: Sequence[Subscription]) -> None:
        heads: Sequence[bytes | None] = await self._server.ask_many(
            [("GETEX", room.place.head, "PX", self._lifetime) for room in rooms]
        )
        suspects: list[tuple[Subscription, Position | None]] = []
        for room, head in zip(rooms, heads, strict=True):
            found = None if head is None else decode_head(head)
            former, room.compared = room.compared, found
            if _is_behind(room.last, found) if room.last is not None else former not in {None, found}:
                suspects.append((room, room.last))
        if not suspects:
            return
        await asyncio.sleep(ON_ITS_WAY_SECONDS)
        for room, last in suspects:
            if room.last is last and room in self._ears:
                room.gap()


def _is_behind(last: Position, found: Position | None) -> bool:
    """Whether there is more than what was heard last, or another history."""
    return found is None or last.epoch != found.epoch or last.offset < found.offset
