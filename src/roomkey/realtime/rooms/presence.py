"""Presence: what sessions say about themselves in a room, under leases."""

from datetime import datetime, timedelta

from msgspec import Raw

from roomkey.domain.session import SessionId


class _Entry:
    """One session. It stays while one of its holders has a lease."""

    __slots__ = ("leases", "shown")

    def __init__(self, shown: bytes) -> None:
        self.shown = shown
        self.leases: dict[str, datetime] = {}


class Presence:
    """
    What joiners of one room are shown, and when others must be told that someone is gone.

    A session is present from its first ``announce`` on, through one or more holders (its connections, by their
    origin); the last thing that any of them announced is shown. A lease that is not renewed lapses, so that
    a session does not stay present after its connection has vanished.
    """

    __slots__ = ("_entries", "_lease", "_max_size", "_size")

    def __init__(self, *, lease: timedelta, max_size: int) -> None:
        """
        Args:
            max_size: Bytes of everything that is shown.
        """
        self._lease = lease
        self._max_size = max_size
        self._entries: dict[SessionId, _Entry] = {}
        self._size = 0

    def __len__(self) -> int:
        return len(self._entries)

    def announce(self, session: SessionId, holder: str, shown: bytes, now: datetime) -> bool:
        """Show ``shown`` for the session. ``False``, and nothing changed, if there is no room for it."""
        entry = self._entries.get(session)
        size = self._size + len(shown) - (len(entry.shown) if entry else 0)
        if size > self._max_size:
            return False
        if entry is None:
            entry = self._entries[session] = _Entry(shown)
        entry.shown = shown
        entry.leases[holder] = now + self._lease
        self._size = size
        return True

    def attend(self, session: SessionId, holder: str, shown: bytes, now: datetime) -> bool:
        """Join as a holder: ``shown`` counts only if the session shows nothing yet. Whether the others must be told."""
        entry = self._entries.get(session)
        if entry is None:
            return self.announce(session, holder, shown, now)
        entry.leases[holder] = now + self._lease
        return False

    def here(self) -> list[Raw]:
        """What a joiner is shown, the first to come first."""
        return [Raw(entry.shown) for entry in self._entries.values()]

    def leave(self, session: SessionId, holder: str) -> bool:
        """Remove the holder. Whether the session is gone with it, so that the others must be told."""
        entry = self._entries.get(session)
        if entry is None or entry.leases.pop(holder, None) is None or entry.leases:
            return False
        self._remove(session)
        return True

    def shown(self, session: SessionId, holder: str) -> bytes | None:
        """What is shown of the session, if this holder has a part in it."""
        entry = self._entries.get(session)
        return entry.shown if entry is not None and holder in entry.leases else None

    def renew(self, session: SessionId, holder: str, now: datetime) -> None:
        """The holder is alive."""
        entry = self._entries.get(session)
        if entry is not None and holder in entry.leases:
            entry.leases[holder] = now + self._lease

    def lapse(self, now: datetime) -> list[bytes]:
        """End the leases that are over. Returns what was shown of those who are gone, for the others."""
        gone: list[SessionId] = []
        for session, entry in self._entries.items():
            for holder in [holder for holder, until in entry.leases.items() if until <= now]:
                del entry.leases[holder]
            if not entry.leases:
                gone.append(session)
        return [self._remove(session) for session in gone]

    def _remove(self, session: SessionId) -> bytes:
        shown = self._entries.pop(session).shown
        self._size -= len(shown)
        return shown
