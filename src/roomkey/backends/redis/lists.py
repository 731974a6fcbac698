"""What is read of sessions: one, many, those of a user, and all of them page by page."""

from collections.abc import AsyncIterator, Sequence
from itertools import islice
from typing import Any, Final

from roomkey.backends.cursors import decode_cursor, encode_cursor, not_ours
from roomkey.backends.redis.layout import (
    ID_BYTES,
    SHELVES,
    TIME_BYTES,
    Partition,
    id_key,
    id_of,
    user_prefix,
)
from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import Call, RedisServer
from roomkey.backends.redis.stored import Found, Translator
from roomkey.domain.session import Session, SessionFilter, SessionId, partition_of, partition_of_id
from roomkey.ports import Page, SessionPage

SCAN_LIMIT: Final = 2000
"""So many sessions are looked at for one page, so that a rare match does not read everything."""

_READ: Final = Script("sessions/read")
_LIST: Final = Script("sessions/list")

_ID: Final = b"i"
_PLACE: Final = b"u"
_PLACE_BYTES: Final = TIME_BYTES + ID_BYTES

Value = tuple[bytes, bytes | None]
"""A session as it is stored, and the epoch of its user."""


class Lists:
    """The reads. Each decides nothing, and no deadline."""

    def __init__(self, server: RedisServer, partitions: Sequence[Partition], translator: Translator) -> None:
        self._server = server
        self._partitions = partitions
        self._translator = translator

    # --- one ------------------------------------------------------------------------------------------

    async def value(self, id: SessionId) -> Value | None:
        """What is stored of a session."""
        key = id_key(id)
        if key is None:
            return None
        keys = self._partitions[partition_of_id(id)].read_keys(key)
        return _value(await self._server.run(_READ, keys, (key,), may_repeat=True))  # it changes nothing

    async def values(self, ids: Sequence[SessionId]) -> list[Value | None]:
        """The same for many, sent together."""
        calls: list[Call] = []
        asked: list[int] = []
        for position, id in enumerate(ids):
            key = id_key(id)
            if key is not None:
                asked.append(position)
                calls.append(Call(_READ, self._partitions[partition_of_id(id)].read_keys(key), (key,)))
        values: list[Value | None] = [None] * len(ids)
        replies = await self._server.run_many(calls, may_repeat=True)  # they change nothing
        for position, reply in zip(asked, replies, strict=True):
            values[position] = _value(reply)
        return values

    async def found(self, id: SessionId) -> Found | None:
        """A session with all that is known of it."""
        value = await self.value(id)
        return None if value is None else self._translator.found(id, *value)

    # --- of a user ------------------------------------------------------------------------------------

    async def of_user(self, user_id: str, filter: SessionFilter, page: Page) -> SessionPage:
        """A page of a user's sessions, oldest first."""
        after = None if page.cursor is None else decode_cursor(page.cursor, _PLACE, max_bytes=_PLACE_BYTES)
        if after is not None and len(after) != _PLACE_BYTES:
            raise not_ours()
        prefix = user_prefix(user_id)
        if prefix is None:
            return SessionPage([])
        partition = self._partitions[partition_of(user_id)]
        found: list[Session] = []
        looked_at = 0
        while True:
            low = b"[" + prefix if after is None else b"(" + prefix + after
            asked = page.limit + 1
            keys, arguments = partition.all, (prefix, low, b"(" + prefix + b"\xff", asked)
            epoch, *entries = await self._server.run(_LIST, keys, arguments, may_repeat=True)  # it changes nothing
            # The last one only tells that there are more.
            for place, value in islice(_pairs(entries), page.limit):
                if len(found) == page.limit or looked_at >= SCAN_LIMIT:
                    return SessionPage(found, None if after is None else encode_cursor(_PLACE, after))
                after = place[len(prefix) :]
                looked_at += 1
                session = self._translator.shown(id_of(partition.number, place[-ID_BYTES:]), value, b"%d" % epoch)
                if session is not None and filter.matches(session):
                    found.append(session)
            if len(entries) < 2 * asked:
                return SessionPage(found)
            if len(found) == page.limit and after is not None:
                return SessionPage(found, encode_cursor(_PLACE, after))

    # --- of everybody ---------------------------------------------------------------------------------

    async def of_all(self, filter: SessionFilter, page: Page) -> SessionPage:
        """A page in the order of the ids."""
        after = None if page.cursor is None else decode_cursor(page.cursor, _ID, max_bytes=1 + ID_BYTES)
        if after is not None and len(after) != 1 + ID_BYTES:
            raise not_ours()
        found: list[Session] = []
        last = after
        looked_at = 0
        async for ids in self._ids_after(after):
            start = 0
            while start < len(ids):
                if last is not None and (len(found) == page.limit or looked_at >= SCAN_LIMIT):
                    return SessionPage(found, encode_cursor(_ID, last))
                part = ids[start : start + page.limit - len(found)]
                start += len(part)
                looked_at += len(part)
                last = part[-1]
                found += await self._matching(part, filter)
        return SessionPage(found)

    async def _matching(self, places: Sequence[bytes], filter: SessionFilter) -> list[Session]:
        ids = [id_of(place[0], place[1:]) for place in places]
        shown = [
            None if value is None else self._translator.shown(id, *value)
            for id, value in zip(ids, await self.values(ids), strict=True)
        ]
        return [session for session in shown if session is not None and filter.matches(session)]

    async def _ids_after(self, after: bytes | None) -> AsyncIterator[list[bytes]]:
        """The places of sessions, partition and id, behind ``after``, in order."""
        first = 0 if after is None else after[0]
        start = 0 if after is None else after[1] >> 4
        # The page begins here, and mostly ends here.
        yield await self._ids(first, [start], after)
        if start + 1 < SHELVES:
            yield await self._ids(first, range(start + 1, SHELVES), after)
        inhabited = await self._inhabited(first + 1)
        for partition in inhabited:
            for shelves in (range(1), range(1, SHELVES)) if len(inhabited) > SHELVES else (range(SHELVES),):
                yield await self._ids(partition, shelves, after)

    async def _ids(self, partition: int, shelves: Sequence[int], after: bytes | None) -> list[bytes]:
        keys = self._partitions[partition].shelves
        found = await self._server.ask_many([("HKEYS", keys[shelf]) for shelf in shelves])
        places = [bytes([partition]) + id for ids in found for id in sorted(ids) if len(id) == ID_BYTES]
        return places if after is None else [place for place in places if place > after]

    async def _inhabited(self, first: int) -> list[int]:
        """The partitions from ``first`` on that have sessions."""
        candidates = range(first, len(self._partitions))
        states = [f"s{number}" for number in range(5)]
        figures = await self._server.ask_many(
            [("HMGET", self._partitions[number].figures, *states) for number in candidates]
        )
        return [
            number for number, each in zip(candidates, figures, strict=True) if any(int(value or 0) for value in each)
        ]


def _value(reply: Any) -> Value | None:
    """What ``read`` returned: two things, or less where the record is cut short."""
    if not reply:
        return None
    return reply[0], reply[1] if len(reply) > 1 else None


def _pairs(entries: Sequence[Any]) -> Sequence[tuple[bytes, bytes | None]]:
    return list(zip(entries[::2], entries[1::2], strict=True))
