"""Values of one use in the memory of one process. No method suspends."""

from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from roomkey.ports import Clock, OneTimeLimits

ENTRY_OVERHEAD_BYTES: Final = 1024
"""What an entry costs besides its value, generously: so that many small ones are bounded, too."""


class _Entry(Struct, gc=False):
    value: bytes
    lifetime: timedelta
    expires_at: datetime
    owner: str | None
    is_pinned: bool

    @property
    def size(self) -> int:
        return ENTRY_OVERHEAD_BYTES + len(self.value)


class MemoryOneTime:
    """``ports.OneTime`` for one node. Others do not know what it holds."""

    def __init__(self, clock: Clock, limits: OneTimeLimits) -> None:
        self._clock = clock
        self._limits = limits
        # The oldest first, in all three.
        self._entries: dict[str, _Entry] = {}
        self._of_lifetime: dict[timedelta, dict[str, _Entry]] = {}
        self._of_owner: dict[str, dict[str, _Entry]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        """Bytes that are held."""
        return self._bytes

    async def add(
        self, key: str, value: bytes, lifetime: timedelta, *, owner: str | None = None, pinned: bool = False
    ) -> bytes | None:
        now = self._clock.now()
        self._forget_overdue(now)
        present = self._entries.get(key)
        if present is not None:
            if now < present.expires_at:
                return present.value
            self._forget(key)
        self._keep(key, _Entry(value, lifetime, now + lifetime, owner, pinned))
        return None

    async def take(self, key: str, *, expected: bytes | None = None) -> bytes | None:
        present = self._entries.get(key)
        if present is None or expected not in (None, present.value):
            return None
        self._forget(key)
        return present.value if self._clock.now() < present.expires_at else None

    async def replace(self, key: str, expected: bytes, value: bytes, lifetime: timedelta) -> bool:
        present = self._entries.get(key)
        if present is None or await self.take(key, expected=expected) is None:
            return False
        self._keep(key, _Entry(value, lifetime, self._clock.now() + lifetime, present.owner, is_pinned=False))
        return True

    def _keep(self, key: str, entry: _Entry) -> None:
        self._entries[key] = entry
        self._of_lifetime.setdefault(entry.lifetime, {})[key] = entry
        if entry.owner is not None:
            self._of_owner.setdefault(entry.owner, {})[key] = entry
        self._bytes += entry.size
        self._make_room(entry.owner)

    def _make_room(self, owner: str | None) -> None:
        limits = self._limits
        if owner is not None:
            of_owner = self._of_owner[owner]
            while _exceeds(len(of_owner), limits.entries_per_owner) and self._forget_oldest(of_owner):
                pass
        while (
            _exceeds(len(self._entries), limits.entries) or _exceeds(self._bytes, limits.bytes)
        ) and self._forget_oldest(self._entries):
            pass

    def _forget_oldest(self, entries: dict[str, _Entry]) -> bool:
        # What is pinned is passed over; that is as little as there are requests at a time.
        oldest = next((key for key, entry in entries.items() if not entry.is_pinned), None)
        if oldest is None:
            return False
        self._forget(oldest)
        return True

    def _forget_overdue(self, now: datetime) -> None:
        for lifetime, entries in tuple(self._of_lifetime.items()):
            # All live equally long, so the oldest is the first to be overdue.
            while entries:
                key, entry = next(iter(entries.items()))
                if now < entry.expires_at:
                    break
                self._forget(key)
            if not entries:
                self._of_lifetime.pop(lifetime, None)

    def _forget(self, key: str) -> None:
        entry = self._entries.pop(key)
        del self._of_lifetime[entry.lifetime][key]
        self._bytes -= entry.size
        if entry.owner is not None:
            of_owner = self._of_owner[entry.owner]
            del of_owner[key]
            if not of_owner:
                del self._of_owner[entry.owner]


def _exceeds(amount: int, limit: int | None) -> bool:
    return limit is not None and amount > limit
