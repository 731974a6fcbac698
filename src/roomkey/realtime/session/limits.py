"""What a node remembers of a session from one connection to the next: spent budgets, and what it published."""

from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from roomkey.documents.settings import DocumentSettings
from roomkey.domain.session import SessionId
from roomkey.realtime.rooms.history import Position
from roomkey.realtime.settings import RealtimeSettings
from roomkey.security.ratelimit import Bucket, Rate

DOCUMENT_DEFAULTS: Final = DocumentSettings()

LEAST_REPEATS: Final = 64
"""So many of its ids a session may always keep."""


class Published(Struct, frozen=True, gc=False):
    """What became of a message: ``position`` is ``None`` if its type has no history."""

    message_type: str
    document: str
    position: Position | None
    at: datetime


class SessionLimits:
    """
    One session's: shared by all its connections.

    A message id that was published is remembered for ``repeat_window``, as far as the bounds on their number
    allow; so clients must not use one again, over all connections of a session (a UUID will do).
    """

    __slots__ = ("_house", "_published", "connections", "edit_traffic", "edits", "messages", "patience", "traffic")

    def __init__(self, house: "LimitsOfSessions") -> None:
        self._house = house
        self._published: dict[str, Published] = {}
        self.connections = 0
        self.messages = Bucket(house.messages)
        self.traffic = Bucket(house.traffic)
        self.edits = Bucket(house.edits)
        self.edit_traffic = Bucket(house.edit_traffic)
        self.patience = Bucket(house.patience)

    def find(self, id: str, now: datetime) -> Published | None:
        """What became of the message with this id, if it is a repetition."""
        published = self._published.get(id)
        if published is None or now - published.at > self._house.window:
            return None
        return published

    def remember(self, id: str, published: Published) -> None:
        """Note that the message with this id was published."""
        house, mine = self._house, self._published
        mine[id] = published
        house.remembered += 1
        limit = house.max_repeats_per_session if house.remembered <= house.max_repeats else LEAST_REPEATS
        while len(mine) > limit:
            self._forget_oldest()
        self.forget(published.at)

    def forget(self, now: datetime) -> None:
        """Drop the ids that are old enough to be used again."""
        mine, window = self._published, self._house.window
        while mine and now - next(iter(mine.values())).at > window:
            self._forget_oldest()

    def forget_all(self) -> None:
        """Drop every id."""
        while self._published:
            self._forget_oldest()

    def is_idle(self, seconds: float) -> bool:
        """Whether a fresh ledger would do just as well."""
        return (
            not self.connections
            and not self._published
            and self.messages.is_full(seconds)
            and self.traffic.is_full(seconds)
            and self.edits.is_full(seconds)
            and self.edit_traffic.is_full(seconds)
            and self.patience.is_full(seconds)
        )

    def _forget_oldest(self) -> None:
        del self._published[next(iter(self._published))]
        self._house.remembered -= 1


class LimitsOfSessions:
    """The ledgers of all sessions of this node. Those without connections number at most ``max_connections``."""

    def __init__(self, settings: RealtimeSettings, documents: DocumentSettings = DOCUMENT_DEFAULTS) -> None:
        self.messages = Rate(settings.messages_per_second, settings.message_burst)
        self.traffic = Rate(settings.traffic_per_second_bytes, settings.traffic_burst_bytes)
        self.edits = Rate(documents.messages_per_second, documents.message_burst)
        self.edit_traffic = Rate(documents.traffic_per_second_bytes, documents.traffic_burst_bytes)
        self.patience = Rate(1.0, settings.rate_patience)
        self.window: timedelta = settings.repeat_window
        self.max_repeats = settings.max_repeats
        self.max_repeats_per_session = settings.max_repeats_per_session
        self.remembered = 0
        self._max_idle = settings.max_connections
        self._in_use: dict[SessionId, SessionLimits] = {}
        self._idle: dict[SessionId, SessionLimits] = {}

    def __len__(self) -> int:
        return len(self._in_use) + len(self._idle)

    def open(self, id: SessionId) -> SessionLimits:
        """The session's ledger, for a connection, until that is released."""
        limits = self._in_use.get(id)
        if limits is None:
            limits = self._in_use[id] = self._idle.pop(id, None) or SessionLimits(self)
        limits.connections += 1
        return limits

    def release(self, id: SessionId) -> None:
        """A connection of the session is gone."""
        limits = self._in_use[id]
        limits.connections -= 1
        if limits.connections:
            return
        self._idle[id] = self._in_use.pop(id)
        if len(self._idle) > self._max_idle:
            self._idle.pop(next(iter(self._idle))).forget_all()

    def sweep(self, now: datetime) -> None:
        """Forget what is too old to matter."""
        for limits in self._in_use.values():
            limits.forget(now)
        for limits in self._idle.values():
            limits.forget(now)
        seconds = now.timestamp()
        self._idle = {id: limits for id, limits in self._idle.items() if not limits.is_idle(seconds)}
