"""Which client was last seen with a session here, so that the same one again costs next to nothing. Pure."""

from collections.abc import Hashable
from datetime import datetime, timedelta
from typing import Final, Generic, TypeVar

from roomkey.domain.session import Client, SessionId
from roomkey.threats.places import Place, are_apart
from roomkey.threats.signals import Sign

CAPACITY: Final = 25_000
"""Sessions that are remembered: as many as a node has connections. Whoever is forgotten is looked at once more."""

MAX_CLIENTS: Final = 4
"""Clients of one session that are told apart here."""

TURNS_WINDOW: Final = timedelta(minutes=10)
MIN_TURNS: Final = 3
"""Changes between two networks within the window: once there and back may be a device that moved."""

MANY_TURNS: Final = 6

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Latest(Generic[K, V]):
    """A dictionary of at most ``capacity`` entries: what was set longest ago goes."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: dict[K, V] = {}
        self.get = self._entries.get
        self.dropped = 0
        """How many had to go."""

    def __len__(self) -> int:
        return len(self._entries)

    def set(self, key: K, value: V) -> None:
        """Enter or replace."""
        self._entries.pop(key, None)
        if len(self._entries) >= self._capacity:
            del self._entries[next(iter(self._entries))]
            self.dropped += 1
        self._entries[key] = value

    def pop(self, key: K) -> V | None:
        """Remove."""
        return self._entries.pop(key, None)

    def take_all(self) -> dict[K, V]:
        """Everything that is in it; it is empty afterwards."""
        taken = dict(self._entries)
        self._entries.clear()
        return taken


class _Seen:
    __slots__ = ("again_at", "client", "clients", "place", "turns")

    def __init__(self, client: Client, place: Place, again_at: datetime) -> None:
        self.client = client
        self.place = place
        self.again_at = again_at
        self.clients: tuple[Client, ...] = (client,)
        self.turns: tuple[datetime, ...] = ()


class SeenClients:
    """The clients that were seen with sessions on this node, latest first."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._sessions: Latest[SessionId, _Seen] = Latest(capacity)
        self._get = self._sessions.get

    def is_same(self, id: SessionId, client: Client, now: datetime) -> bool:
        """Whether ``client`` was the last one with the session, within this hour. Asked for every request."""
        seen = self._get(id)
        return seen is not None and seen.client == client and now < seen.again_at

    def is_due(self, id: SessionId, client: Client, now: datetime) -> bool:
        """Whether ``client`` was not seen with the session within this hour."""
        seen = self._get(id)
        return seen is None or client not in seen.clients or now >= seen.again_at

    def note(self, id: SessionId, client: Client, place: Place, now: datetime) -> Sign | None:
        """``client`` is with the session now, at ``place``; returns a sign of parallel use, if that is one."""
        again_at = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        seen = self._get(id)
        if seen is None:
            self._sessions.set(id, _Seen(client, place, again_at))
            return None
        sign = self._turn(seen, place, now) if are_apart(seen.place, place) else None
        if now >= seen.again_at:
            seen.clients = ()
        seen.client, seen.place, seen.again_at = client, place, again_at
        seen.clients = (*(other for other in seen.clients if other != client), client)[-MAX_CLIENTS:]
        return sign

    def _turn(self, seen: _Seen, place: Place, now: datetime) -> Sign | None:
        seen.turns = (*(turn for turn in seen.turns if now - turn < TURNS_WINDOW), now)[-MANY_TURNS:]
        if len(seen.turns) < MIN_TURNS or place.network is None or seen.place.network is None:
            return None
        networks = " and ".join(sorted((seen.place.network.prefix, place.network.prefix)))
        return Sign(now, len(seen.turns) / MANY_TURNS, f"{networks} in turns")

    def forget(self, id: SessionId) -> None:
        """Look at whoever comes next with the session."""
        self._sessions.pop(id)
