"""The reads: what one moment of the file contains. Nothing here awaits, so a snapshot never stays open."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from heapq import heappop, heappush, merge
from typing import Final

from msgspec.structs import replace

from roomkey.backends.cursors import decode_cursor, encode_cursor, not_ours
from roomkey.backends.lmdb.file import DataFile, ReadTransaction, Tables
from roomkey.backends.lmdb.inspection import Rows
from roomkey.backends.lmdb.layout import (
    ENDED,
    EPOCH,
    HEADER,
    LIVE,
    TIME,
    Counters,
    UserEntry,
    micros,
    time_and_key,
    user_key,
    user_prefix,
)
from roomkey.backends.lmdb.log import Log, counters_value
from roomkey.backends.lmdb.write_batch import checked_figures
from roomkey.backends.records import decode_session, decode_session_only
from roomkey.domain.lifecycle import deadline
from roomkey.domain.session import Session, SessionFilter, SessionId, SessionState
from roomkey.errors import Serialization
from roomkey.ports import PLAIN_RECORDS, LoggedEvent, Page, RecordKind, Secret, SessionPage

SCAN_LIMIT: Final = 2000
"""So many sessions are looked at between two turns of the event loop: some six milliseconds."""

MAX_CURSOR_BYTES: Final = 255
"""Far more than an id and a time take, and with what else is in a key less than LMDB allows."""

_ID: Final = b"i"
_ENTRY: Final = b"u"

SESSION = RecordKind.SESSION
FIGURES = RecordKind.FIGURES
EXPIRED, INVALIDATED = SessionState.EXPIRED, SessionState.INVALIDATED


class OverdueSearch:
    """
    A search for overdue sessions, which may take several snapshots.

    ``found`` are they, the most overdue first; ``misplaced`` those whose entry in the index is no longer
    right, and ``strays`` entries of no session that stands there. It ends when ``limit`` are found or everything
    was seen; until then it goes on from ``start``.
    """

    __slots__ = ("_waiting", "ended", "found", "limit", "misplaced", "now", "start", "strays")

    def __init__(self, now: int, limit: int) -> None:
        self.now = now
        self.limit = limit
        self.start = b""
        self.ended = False
        self.found: list[Session] = []
        self.misplaced: list[SessionId] = []
        self.strays: list[bytes] = []
        # Entries may be early, so sessions wait here until no entry can come before their true place.
        self._waiting: list[tuple[int, SessionId, Session]] = []

    def reach(self, position: int) -> bool:
        """Release what is due by ``position``; whether to look at the entry there."""
        while self._waiting and self._waiting[0][0] <= position and len(self.found) < self.limit:
            self.found.append(heappop(self._waiting)[2])
        self.ended = position > self.now or len(self.found) >= self.limit
        return not self.ended

    def meet(self, session: Session, position: int) -> None:
        """Take in the session whose entry is at ``position``."""
        due = deadline(session)
        place = None if due is None else micros(due)
        if place != position:
            self.misplaced.append(session.id)
        if place is not None and place <= self.now:
            heappush(self._waiting, (place, session.id, session))


class Snapshot(ReadTransaction[Tables]):
    """
    One moment of the sessions.

    They are seen with the touches that are not in the file yet, and as invalidated if their user was
    revoked after they were issued.
    """

    __slots__ = ("_touched",)

    def __init__(self, file: DataFile, touched: Mapping[SessionId, datetime]) -> None:
        super().__init__(file)
        self._touched = touched

    # --- one ------------------------------------------------------------------------------------------

    def session(self, key: bytes | None) -> Session | None:
        """The session with this key."""
        found = self._found(key)
        return None if found is None else self._as_read(*found)

    def readable(self, key: bytes | None) -> Session | None:
        """Like ``session`` for everybody who has others to deal with, too: one that is damaged does not count."""
        try:
            return self.session(key)
        except Serialization:
            return None

    def session_with_secret(self, key: bytes | None) -> tuple[Session, Secret] | None:
        """The session with this key, and its secret."""
        if not key:
            return None
        value = self._get(key, None, self._file.tables.sessions)
        if value is None:
            return None
        codec = self._file.codec
        try:
            if codec is not PLAIN_RECORDS:
                value = codec.decode(SESSION, key, 0, value)
            session, secret = decode_session(value[HEADER.size :])
            if codec is PLAIN_RECORDS:
                check_place(session, key)
        except Serialization as error:
            self._file.damage.note(SESSION, key, error)
            raise
        return self._as_read(session, value), secret

    def _found(self, key: bytes | None) -> tuple[Session, bytes] | None:
        """A session as it lies in the file, and the value that it was made of."""
        if not key:
            return None
        value = self._get(key, None, self._file.tables.sessions)
        if value is None:
            return None
        codec = self._file.codec
        try:
            if codec is not PLAIN_RECORDS:
                value = codec.decode(SESSION, key, 0, value)
            session = decode_session_only(value[HEADER.size :])
            if codec is PLAIN_RECORDS:
                check_place(session, key)
        except Serialization as error:
            self._file.damage.note(SESSION, key, error)
            raise
        return session, value

    def _as_read(self, session: Session, value: bytes) -> Session:
        state = session.state
        if state is EXPIRED or state is INVALIDATED:
            return session
        key = user_key(session.user_id)
        epoch = None if key is None else self._get(key, None, self._file.tables.epochs)
        if epoch is not None and self._is_over(key, epoch, value):
            return replace(session, state=INVALIDATED, reason=None)
        seen = self._touched.get(session.id) if self._touched else None
        if seen is not None and seen > session.last_seen_at:
            return replace(session, last_seen_at=seen)
        return session

    def _is_over(self, user: bytes | None, epoch: bytes, value: bytes) -> bool:
        """Whether the user was revoked after the session was issued. If that cannot be told, nobody is let in."""
        try:
            epoch = checked_figures(self._file.codec.decode(FIGURES, user or b"", 0, epoch), EPOCH.size)
        except Serialization as error:
            self._file.damage.note(FIGURES, user or b"", error)
            return True
        return epoch > value[: EPOCH.size]  # as bytes they compare like the numbers

    def _standing(self, position: int, key: bytes) -> Session | None:
        """
        The session that an index of time has at ``position``.

        Raises:
            LookupError: If the entry is of none that stands there.
        """
        try:
            found = self._found(key)
        except Serialization:
            return None
        if found is None or HEADER.unpack_from(found[1])[1] != position:
            raise LookupError
        return self._as_read(*found)

    # --- many -----------------------------------------------------------------------------------------

    def list_all(self, filter: SessionFilter, page: Page) -> SessionPage:
        """A page in the order of the ids."""
        after = None if page.cursor is None else _id_of(page.cursor)
        found: list[Session] = []
        last = b""
        for looked_at, key in enumerate(self._keys(self._file.tables.sessions, after or b"")):
            if len(found) == page.limit or looked_at > SCAN_LIMIT:
                return SessionPage(found, encode_cursor(_ID, last))
            if key == after:
                continue
            last = key
            session = self.readable(key)
            if session is not None and filter.matches(session):
                found.append(session)
        return SessionPage(found)

    def list_user(self, user_id: str, filter: SessionFilter, page: Page) -> SessionPage:
        """A page of a user's sessions, oldest first."""
        after = None if page.cursor is None else _entry_of(page.cursor)
        found: list[Session] = []
        last = after
        for looked_at, entry in enumerate(self.entries(user_id, after)):
            if last is not None and (len(found) == page.limit or looked_at == SCAN_LIMIT):
                return SessionPage(found, encode_cursor(_ENTRY, last.pack()))
            last = entry
            session = self.readable(entry.id)
            if session is not None and filter.matches(session):
                found.append(session)
        return SessionPage(found)

    def entries(self, user_id: str, after: UserEntry | None = None) -> Iterator[UserEntry]:
        """The entries of a user's sessions, behind ``after``."""
        key = user_key(user_id)
        if key is None:
            return
        prefix = user_prefix(key)
        for entry in merge(self._entries(prefix, LIVE, after), self._entries(prefix, ENDED, after)):
            if entry != after:
                yield entry

    def _entries(self, prefix: bytes, part: bytes, after: UserEntry | None) -> Iterator[UserEntry]:
        common = prefix + part
        for key in self._keys(self._file.tables.users, common if after is None else after.key(prefix, part)):
            if not key.startswith(common):
                return
            entry = UserEntry.of(key, prefix)
            if entry is not None:
                yield entry

    # --- chores ---------------------------------------------------------------------------------------

    def overdue(self, search: OverdueSearch) -> None:
        """Take the search a turn further."""
        for looked_at, entry in enumerate(self._keys(self._file.tables.deadlines, search.start)):
            if looked_at == SCAN_LIMIT:
                search.start = entry
                return
            place = time_and_key(entry)
            if place is None:
                search.strays.append(entry)
                continue
            if not search.reach(place[0]):
                return
            try:
                session = self._standing(*place)
            except LookupError:
                search.strays.append(entry)
            else:
                if session is not None:
                    search.meet(session, place[0])
        search.reach(search.now + 1)

    def ended_before(self, moment: int, limit: int) -> tuple[list[Session], list[bytes]]:
        """Sessions whose end is older than ``moment``, and entries of no session that stands there."""
        found: list[Session] = []
        strays: list[bytes] = []
        for entry in self._keys(self._file.tables.ended, b""):
            place = time_and_key(entry)
            if place is None:
                strays.append(entry)
                continue
            if place[0] >= moment or len(found) == limit:
                break
            try:
                session = self._standing(*place)
            except LookupError:
                strays.append(entry)
            else:
                if session is not None:
                    found.append(session)
        return found, strays

    def rows(self) -> Rows[Tables]:
        """Everything, row by row."""
        return Rows(self._transaction, self._file.tables, self._file.codec)

    # --- log and figures ------------------------------------------------------------------------------

    def events(self, partition: int, after: int, limit: int) -> list[LoggedEvent]:
        """Events of a partition behind ``after``."""
        return Log(self._transaction, self._file, self.counters()).read(partition, after, limit)

    def heads(self) -> dict[int, int]:
        """The last sequence number of every partition that has one."""
        value = self._figures()
        return {} if value is None else Counters.heads_of(value)

    def counters(self) -> Counters:
        """
        The counters.

        Raises:
            Serialization: If they are damaged; the next commit counts anew.
        """
        return Counters(self._figures())

    def _figures(self) -> bytes | None:
        return counters_value(self._transaction, self._file.tables, self._file.codec)


def check_place(session: Session, key: bytes) -> None:
    """
    See to it that a record is at its place; a codec that knows places has done so.

    Raises:
        Serialization: If it is another session's.
    """
    if session.id.encode() != key:
        raise Serialization("a session record is at a wrong place")


def _id_of(cursor: str) -> bytes:
    return decode_cursor(cursor, _ID, max_bytes=MAX_CURSOR_BYTES)


def _entry_of(cursor: str) -> UserEntry:
    position = decode_cursor(cursor, _ENTRY, max_bytes=MAX_CURSOR_BYTES)
    if len(position) < TIME.size:
        raise not_ours()
    return UserEntry.unpack(position)
