"""The reads: sessions as they were committed, lists, searches by time, the log, figures."""

import struct
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from heapq import heappop, heappush
from typing import Any, Final, NamedTuple

from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncConnection

from roomkey.backends.cursors import decode_cursor, encode_cursor, not_ours
from roomkey.backends.session_changes import Held
from roomkey.backends.sql.database import Database
from roomkey.backends.sql.grouping import Grouped
from roomkey.backends.sql.rows import KEY_BYTES, NUMBER_OF, STATES, Records, SessionQueries, micros
from roomkey.backends.sql.statements import Query, Row, run
from roomkey.domain.lifecycle import deadline
from roomkey.domain.session import LIVE_STATES, Session, SessionFilter, SessionId
from roomkey.ports import LoggedEvent, Page, Secret, SessionPage, StorageStatistics

SCAN_LIMIT: Final = 5000
"""Maximum number of sessions that are looked at for one page, where few may match."""

SEARCH_ROWS: Final = 500
"""Number of sessions that a search by time loads at once."""

READS_IN_FLIGHT: Final = 2
IDS_PER_READ: Final = 500

_ID: Final = b"i"
_ENTRY: Final = b"u"
_TIME: Final = struct.Struct(">q")
_FIRST: Final = -(2**63)
_LAST: Final = 2**63 - 1
_BEHIND_ALL: Final = b"\xff" * KEY_BYTES


class OverdueSearch:
    """
    A search for overdue sessions, page by page of the index.

    Entries of the index may be early, so a session waits until no entry can come before its true place. ``found`` are
    the overdue, the most overdue first; ``misplaced`` those whose entry is not right any more.
    """

    def __init__(self, now: int, limit: int) -> None:
        self._now = now
        self._limit = limit
        self._waiting: list[tuple[int, SessionId, Session]] = []
        self.found: list[Session] = []
        self.misplaced: list[bytes] = []

    @property
    def is_done(self) -> bool:
        """Whether as many as wanted are found."""
        return len(self.found) >= self._limit

    def reach(self, position: int) -> None:
        """Release what is due by ``position``."""
        while self._waiting and self._waiting[0][0] <= position and not self.is_done:
            self.found.append(heappop(self._waiting)[2])

    def end(self) -> None:
        """Release the rest: no more entries come."""
        self.reach(_LAST)

    def meet(self, session: Session, position: int) -> None:
        """Take in a session whose entry is at ``position``."""
        due = deadline(session)
        place = None if due is None else micros(due)
        if place != position:
            self.misplaced.append(session.id.encode())
        if place is not None and place <= self._now:
            heappush(self._waiting, (place, session.id, session))


class Bounds(NamedTuple):
    """The conditions of a filter but for the user, as the statements take them."""

    lowest_state: int
    highest_state: int
    after: int
    before: int

    @classmethod
    def of(cls, filter: SessionFilter) -> "Bounds":
        """Those of ``filter``."""
        number = None if filter.state is None else NUMBER_OF[filter.state]
        lowest, highest = (0, len(STATES) - 1) if number is None else (number, number)
        after = _FIRST if filter.created_after is None else micros(filter.created_after)
        before = _LAST if filter.created_before is None else micros(filter.created_before)
        return cls(lowest, highest, after, before)


class Reads:
    """Reads of one store. ``touched`` is what was seen of sessions and is not in the table yet."""

    def __init__(
        self, database: Database, queries: SessionQueries, records: Records, touched: Mapping[SessionId, datetime]
    ) -> None:
        self._database = database
        self._queries = queries
        self._records = records
        self._touched = touched
        # Reads of one turn of the loop are one statement.
        self._by_id: Grouped[bytes] = Grouped(
            self._rows, max_batch=IDS_PER_READ, max_waiting=database.settings.max_waiting, in_flight=READS_IN_FLIGHT
        )

    async def close(self) -> None:
        """Finish what is under way."""
        await self._by_id.close()

    # --- one ------------------------------------------------------------------------------------------

    async def session(self, id: bytes | None) -> Session | None:
        """The session with this id."""
        row = None if id is None else await self._by_id.submit(id)
        return None if row is None else self._as_read(row, self._records.held(row))

    async def session_with_secret(self, id: bytes | None) -> tuple[Session, Secret] | None:
        """The session with this id, and its secret."""
        row = None if id is None else await self._by_id.submit(id)
        if row is None:
            return None
        held = self._records.held(row)
        return self._as_read(row, held), held.secret

    async def sessions(self, ids: Sequence[bytes | None]) -> list[Session | None]:
        """The sessions in the order of ``ids``."""
        wanted = sorted({id for id in ids if id is not None})
        rows: dict[bytes, Row] = {}
        for start in range(0, len(wanted), IDS_PER_READ):
            found = await self._run(self._queries.get, wanted[start : start + IDS_PER_READ])
            rows |= {row[0]: row for row in found}
        held = {id: self._records.readable(row) for id, row in rows.items()}
        sessions = {id: self._as_read(rows[id], each) for id, each in held.items() if each is not None}
        return [None if id is None else sessions.get(id) for id in ids]

    async def _rows(self, ids: list[bytes]) -> list[Row | None]:
        found = {row[0]: row for row in await self._run(self._queries.get, list(dict.fromkeys(ids)))}
        return [found.get(id) for id in ids]

    async def _run(self, query: Query, *parameters: Any) -> list[Row]:
        async def work(connection: AsyncConnection) -> list[Row]:
            return await run(connection, query, *parameters)

        return await self._database.read(work)

    def _as_read(self, row: Row, held: Held) -> Session:
        session = held.as_read(row[7] or 0)
        if not self._touched or session.state not in LIVE_STATES:
            return session
        seen = self._touched.get(session.id)
        if seen is None or seen <= session.last_seen_at:
            return session
        return replace(session, last_seen_at=seen)

    def _readable(self, rows: Sequence[Row]) -> list[Session]:
        """The sessions of ``rows`` that are not damaged."""
        return [self._as_read(row, held) for row in rows if (held := self._records.readable(row)) is not None]

    # --- lists ----------------------------------------------------------------------------------------

    async def list_all(self, filter: SessionFilter, page: Page) -> SessionPage:
        """A page in the order of the ids."""
        after = b"" if page.cursor is None else decode_cursor(page.cursor, _ID, max_bytes=KEY_BYTES)
        is_selective = filter != SessionFilter()
        boundary = await self._run(self._queries.boundary, after, SCAN_LIMIT) if is_selective else []
        last = boundary[0][0] if boundary else _BEHIND_ALL
        rows = await self._run(self._queries.list_all, after, last, *Bounds.of(filter), page.limit + 1)
        sessions = self._readable(rows[: page.limit])
        if len(rows) > page.limit:
            return SessionPage(sessions, encode_cursor(_ID, rows[page.limit - 1][0]))
        return SessionPage(sessions, encode_cursor(_ID, last) if boundary else None)

    async def list_user(self, user_id: str, filter: SessionFilter, page: Page) -> SessionPage:
        """A page of a user's sessions, oldest first."""
        created, id = (_FIRST, b"") if page.cursor is None else _entry_of(page.cursor)
        user = user_id.encode("utf-8", "surrogatepass")
        place = created, created, id
        rows = await self._run(self._queries.list_user, user, *place, *Bounds.of(filter), page.limit + 1)
        sessions = self._readable(rows[: page.limit])
        if len(rows) <= page.limit:
            return SessionPage(sessions)
        last = rows[page.limit - 1]
        return SessionPage(sessions, encode_cursor(_ENTRY, _TIME.pack(last[8]) + last[0]))

    async def count(self, filter: SessionFilter) -> int:
        """How many sessions match."""
        bounds = Bounds.of(filter)
        if filter.user_id is not None:
            user = filter.user_id.encode("utf-8", "surrogatepass")
            rows = await self._run(self._queries.count_user, user, *bounds)
        elif filter.created_before is None and filter.created_after is None:
            states = await self._figures(0)
            return sum(states[bounds.lowest_state : bounds.highest_state + 1])
        else:
            rows = await self._run(self._queries.count_all, *bounds)
        return rows[0][0]

    # --- by time --------------------------------------------------------------------------------------

    async def overdue(self, now: int, limit: int) -> OverdueSearch:
        """The overdue sessions."""
        search = OverdueSearch(now, limit)
        place, id = _FIRST, b""
        while not search.is_done:
            rows = await self._run(self._queries.overdue, place, now, place, id, SEARCH_ROWS)
            for row in rows:
                place, id = row[4], row[0]
                search.reach(place)
                held = None if search.is_done else self._records.readable(row)
                if held is not None:
                    search.meet(self._as_read(row, held), place)
            if len(rows) < SEARCH_ROWS:
                search.end()
                break
        return search

    async def ended_before(self, moment: int, limit: int) -> list[Session]:
        """Sessions whose end is older than ``moment``."""
        found: list[Session] = []
        place, id = _FIRST, b""
        while len(found) < limit:
            rows = await self._run(self._queries.ended_before, place, moment, place, id, min(limit, SEARCH_ROWS))
            found += self._readable(rows)
            if len(rows) < min(limit, SEARCH_ROWS):
                break
            place, id = rows[-1][5], rows[-1][0]
        return found[:limit]

    # --- log and figures ------------------------------------------------------------------------------

    async def events(self, partition: int, after: int, limit: int) -> list[LoggedEvent]:
        """Events of a partition behind ``after``."""
        rows = await self._run(self._queries.events, partition, after, limit)
        return [LoggedEvent(number, self._records.event(partition, number, record)) for number, record in rows]

    async def heads(self) -> dict[int, int]:
        """The last sequence number of every partition that has one."""
        return {id: head for id, head in await self._run(self._queries.heads)}  # noqa: C416  # rows are no tuples

    async def purgeable(self, before: int) -> list[Row]:
        """The partitions whose first event is older than ``before``."""
        return await self._run(self._queries.purgeable, before)

    async def statistics(self, now: datetime) -> StorageStatistics:
        """The counters of all partitions."""
        *states, created_today, ended, ended_micros = await self._figures(now.toordinal())
        return StorageStatistics(
            states=dict(zip(STATES, states, strict=True)),
            created_today=created_today,
            ended=ended,
            ended_duration=timedelta(microseconds=ended_micros),
        )

    async def _figures(self, day: int) -> list[int]:
        (row,) = await self._run(self._queries.statistics, day)
        return [int(value) for value in row]


def _entry_of(cursor: str) -> tuple[int, bytes]:
    position = decode_cursor(cursor, _ENTRY, max_bytes=_TIME.size + KEY_BYTES)
    if len(position) < _TIME.size:
        raise not_ours()
    return _TIME.unpack_from(position)[0], position[_TIME.size :]
