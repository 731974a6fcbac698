"""
Sessions that were read a moment ago, so that authenticating a request need not ask a storage on another machine.

What was read before a change arrived never enters after it: a read that is under way is told of events as entries
are. Only what opens something is answered from here; whoever is refused, and whatever changes rights, asks storage.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from time import monotonic
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from roomkey.domain.lifecycle import overdue
from roomkey.domain.session import AnyEvent, Session, SessionId, SessionState, UserRevoked, partition_of_id
from roomkey.errors import RoomkeyError
from roomkey.ports import Secret, SessionStorage
from roomkey.security import tokens

MAX_AGE: Final = timedelta(seconds=2)
"""Age from which nothing is answered, whether or not anything was heard of it."""

CAPACITY: Final = 10_000

MARGIN: Final = timedelta(seconds=1)
"""What must be left of a session's time."""

USABLE: Final = frozenset({SessionState.PENDING, SessionState.ACTIVE})

Found = tuple[Session, Secret]


class NearCacheStatistics(Struct, frozen=True):
    """How often it answered since the start, how often storage was asked, and how many sessions are in it."""

    hits: int
    misses: int
    entries: int


class _Entry:
    __slots__ = ("found", "read_at")

    def __init__(self, found: Found, read_at: float) -> None:
        self.found = found
        self.read_at = read_at


class _Reading:
    """A read under way, and what has been heard since it began."""

    __slots__ = ("least_version", "revoked", "spoilt")

    def __init__(self) -> None:
        self.least_version = 0
        """What is older was overtaken by an event."""
        self.revoked: set[str] = set()
        """Users whose sessions have ended meanwhile."""
        self.spoilt = False
        """Nobody knows what has happened meanwhile."""

    def may_enter(self, session: Session) -> bool:
        return not self.spoilt and session.version >= self.least_version and session.user_id not in self.revoked


class NearCache:
    """
    The latest reads of a remote storage, for one loop.

    Whoever commits or hears of events calls ``forget`` with them, before the command that made them returns. The
    oldest entry goes where there is no room.
    """

    def __init__(
        self,
        storage: SessionStorage,
        *,
        capacity: int = CAPACITY,
        max_age: timedelta = MAX_AGE,
        now: Callable[[], float] = monotonic,
    ) -> None:
        """``now`` is in seconds, on a clock that is never set."""
        self._storage = storage
        self._capacity = capacity
        self._max_age = max_age.total_seconds()
        self._now = now
        # In the order in which they were read.
        self._entries: dict[SessionId, _Entry] = {}
        self._of_user: dict[str, set[SessionId]] = {}
        self._readings: dict[SessionId, list[_Reading]] = {}
        self._is_blind = False
        self._hits = 0
        self._misses = 0

    # --- what is asked --------------------------------------------------------------------------------

    def opened_by(self, token: str, id: SessionId, now: datetime) -> Found | None:
        """
        The session ``id`` and its secret, if a moment ago ``token`` was its current one and there is time left.

        ``None`` says nothing about it: ask with ``read``.
        """
        entry = self._entries.get(id)
        if entry is None:
            return None
        if self._now() - entry.read_at >= self._max_age:
            self._drop(id)
            return None
        session, secret = entry.found
        # Somebody may have been active on another node, so nobody's time is over before storage says so.
        if overdue(session, now + MARGIN) is not None or not tokens.same(tokens.digest(token), secret.current):
            return None
        self._hits += 1
        return entry.found

    async def read(self, id: SessionId) -> Found | None:
        """The session and its secret as storage has them now; ``None`` if there is none."""
        self._misses += 1
        reading, begun = _Reading(), self._now()
        self._readings.setdefault(id, []).append(reading)
        try:
            found = await self._storage.get_with_secret(id)
        finally:
            readings = self._readings[id]
            readings.remove(reading)
            if not readings:
                del self._readings[id]
        # No await between what was heard and this.
        if found is not None and found[0].state in USABLE and not self._is_blind and reading.may_enter(found[0]):
            self._enter(found, begun)
        return found

    def _enter(self, found: Found, read_at: float) -> None:
        session = found[0]
        present = self._entries.get(session.id)
        if present is not None:
            if present.found[0].version > session.version:
                return  # a later read was faster
            self._drop(session.id)
        while self._entries and len(self._entries) >= self._capacity:
            self._drop(next(iter(self._entries)))
        self._entries[session.id] = _Entry(found, read_at)
        self._of_user.setdefault(session.user_id, set()).add(session.id)

    def _drop(self, id: SessionId) -> None:
        entry = self._entries.pop(id, None)
        if entry is None:
            return
        user = entry.found[0].user_id
        ids = self._of_user[user]
        ids.discard(id)
        if not ids:
            del self._of_user[user]

    async def warm(self, ids: Iterable[SessionId]) -> None:
        """Read these sessions, one after the other, as far as there is room and storage answers."""
        for id, _ in zip(ids, range(self._capacity), strict=False):
            try:
                await self.read(id)
            except RoomkeyError:
                return

    # --- what is heard --------------------------------------------------------------------------------

    def forget(self, events: Sequence[AnyEvent]) -> None:
        """Drop what these events have changed, unless it was read after them. Repetitions do not matter."""
        for event in events:
            if isinstance(event, UserRevoked):
                self._forget_user(event.user)
            else:
                self._forget_session(event.session, event.version)

    def _forget_session(self, id: SessionId, version: int) -> None:
        entry = self._entries.get(id)
        if entry is not None and entry.found[0].version < version:
            self._drop(id)
        for reading in self._readings.get(id, ()):
            reading.least_version = max(reading.least_version, version)

    def _forget_user(self, user: str) -> None:
        for id in tuple(self._of_user.get(user, ())):
            self._drop(id)
        for readings in self._readings.values():
            for reading in readings:
                reading.revoked.add(user)

    def forget_partition(self, partition: int) -> None:
        """Drop what may have changed unheard."""
        for id in [id for id in self._entries if partition_of_id(id) == partition]:
            self._drop(id)
        for id, readings in self._readings.items():
            if partition_of_id(id) == partition:
                for reading in readings:
                    reading.spoilt = True

    def forget_session(self, id: SessionId) -> None:
        """Drop a session of which something has changed that is no event."""
        self._drop(id)
        for reading in self._readings.get(id, ()):
            reading.spoilt = True

    def seen(self, id: SessionId, at: datetime) -> None:
        """The user of the session was active, and storage is about to be told."""
        entry = self._entries.get(id)
        if entry is not None:
            session, secret = entry.found
            entry.found = replace(session, last_seen_at=max(session.last_seen_at, at)), secret

    def turn_blind(self) -> None:
        """Answer nothing until ``see``: what others do is not heard of."""
        self._is_blind = True
        self.forget_everything()

    def see(self) -> None:
        """Answer again."""
        self._is_blind = False

    def forget_everything(self) -> None:
        """Drop everything, and whatever is being read."""
        self._entries.clear()
        self._of_user.clear()
        for readings in self._readings.values():
            for reading in readings:
                reading.spoilt = True

    # --- how it does ----------------------------------------------------------------------------------

    def statistics(self) -> NearCacheStatistics:
        """The figures now."""
        return NearCacheStatistics(self._hits, self._misses, len(self._entries))

    def observations(self) -> Mapping[str, str]:
        """The hit rate in words."""
        asked = self._hits + self._misses
        rate = f"{self._hits / asked:.0%} of {asked} reads answered here" if asked else "not asked yet"
        return {"near cache": rate}
