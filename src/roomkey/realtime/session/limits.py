"""The rate limits of sessions, which outlive their connections."""

from typing import Final

from roomkey.documents.settings import DocumentSettings
from roomkey.domain.session import SessionId
from roomkey.realtime.settings import RealtimeSettings
from roomkey.security.ratelimit import Bucket, Rate

DOCUMENT_DEFAULTS: Final = DocumentSettings()


class SessionLimits:
    """What one session may still send, shared by its connections."""

    __slots__ = ("connections", "edit_traffic", "edits", "messages", "patience", "rejected", "traffic")

    def __init__(self, rates: "LimitsOfSessions") -> None:
        self.connections = 0
        self.rejected = 0
        """Messages that were refused since these limits were fresh."""
        self.messages = Bucket(rates.messages)
        self.traffic = Bucket(rates.traffic)
        self.edits = Bucket(rates.edits)
        self.edit_traffic = Bucket(rates.edit_traffic)
        self.patience = Bucket(rates.patience)

    def is_idle(self, seconds: float) -> bool:
        """Whether it is in the same state as fresh limits."""
        return (
            not self.connections
            and self.messages.is_full(seconds)
            and self.traffic.is_full(seconds)
            and self.edits.is_full(seconds)
            and self.edit_traffic.is_full(seconds)
            and self.patience.is_full(seconds)
        )


class LimitsOfSessions:
    """The limits of all sessions of this node. Those without connections number at most ``max_connections``."""

    def __init__(self, settings: RealtimeSettings, documents: DocumentSettings = DOCUMENT_DEFAULTS) -> None:
        self.messages = Rate(settings.messages_per_second, settings.message_burst)
        self.traffic = Rate(settings.traffic_per_second_bytes, settings.traffic_burst_bytes)
        self.edits = Rate(documents.messages_per_second, documents.message_burst)
        self.edit_traffic = Rate(documents.traffic_per_second_bytes, documents.traffic_burst_bytes)
        self.patience = Rate(1.0, settings.rate_patience)
        self._max_idle = settings.max_connections
        self._in_use: dict[SessionId, SessionLimits] = {}
        self._idle: dict[SessionId, SessionLimits] = {}

    def __len__(self) -> int:
        return len(self._in_use) + len(self._idle)

    def open(self, id: SessionId) -> SessionLimits:
        """The session's limits, for a connection, until that is released."""
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
            del self._idle[next(iter(self._idle))]

    def sweep(self, seconds: float) -> None:
        """Forget limits that are in the same state as fresh ones. ``seconds`` is the time, as ``Bucket`` counts it."""
        self._idle = {id: limits for id, limits in self._idle.items() if not limits.is_idle(seconds)}
