"""The history of one session, read from the event log of its partition."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from roomkey.domain.session import Session, SessionEvent, SessionId, UserRevoked, partition_of_id
from roomkey.errors import InvalidInput, NotFound
from roomkey.ports import EventLog, Page
from roomkey.security import tokens

STEP: Final = 1_000
"""Events of the partition that are read at a time."""

MAX_LOOKED_AT: Final = 10_000
"""Events of the partition that are looked at for one page."""

MARGIN: Final = timedelta(minutes=5)
"""Beyond what the clocks of nodes differ by, so that events of a log are nearly in the order of their times."""

CLOSE_ENOUGH: Final = 500
"""Events that are read on the way to the first one rather than to be searched."""


class SessionHistory(Struct, frozen=True):
    """
    One part of what happened to a session, the oldest first. ``next_cursor`` is ``None`` at the end, and only there.

    It begins with the retention of the log: what is older is missing. A part may be shorter than asked for, even empty.
    """

    events: Sequence[SessionEvent]
    next_cursor: str | None = None


async def history(log: EventLog, id: SessionId, session: Session | None, page: Page) -> SessionHistory:
    """
    A part of the history of the session with this id. ``session`` is how it is stored, if it is.

    Raises:
        InvalidInput: If the cursor is not ours.
        NotFound: If there is neither a session nor anything about one in the log.
    """
    if not tokens.is_session_id(id):
        raise NotFound("there is no such session")
    head = (await log.heads()).get(partition_of_id(id), 0)
    if page.cursor is not None:
        after = _sequence(page.cursor)
    else:
        after = 0 if session is None else await _before(log, id, session.created_at - MARGIN, head)
    found = await _read(log, id, after, head, page.limit, last=None if session is None else session.version)
    if session is None and page.cursor is None and found == SessionHistory([]):
        raise NotFound("there is no such session")
    return found


async def _read(log: EventLog, id: SessionId, after: int, head: int, limit: int, *, last: int | None) -> SessionHistory:
    """At most ``limit`` events of the session behind ``after``, or all up to its version ``last``."""
    found: list[SessionEvent] = []
    stop = min(head, after + MAX_LOOKED_AT)
    while after < stop:
        batch = await log.events(partition_of_id(id), after, STEP)
        if not batch:
            return SessionHistory(found)  # what is left cannot be read
        for logged in batch:
            event, after = logged.event, logged.sequence
            if event.session != id or isinstance(event, UserRevoked):
                continue
            found.append(event)
            if event.version == last:
                return SessionHistory(found)
            if len(found) == limit:
                return SessionHistory(found, str(after))
    return SessionHistory(found, str(after) if after < head else None)


async def _before(log: EventLog, id: SessionId, moment: datetime, head: int) -> int:
    """A place in the log behind which everything lies that happened at ``moment`` or later, by halving."""
    low, high = 0, head
    while high - low > CLOSE_ENOUGH:
        middle = (low + high) // 2
        behind = await log.events(partition_of_id(id), middle, 1)
        if behind and behind[0].event.at < moment:
            low = behind[0].sequence
        else:
            high = middle
    return low


def _sequence(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 19):
        raise InvalidInput("the cursor was not issued for this list")
    return int(cursor)
