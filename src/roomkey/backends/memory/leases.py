"""Leases in the memory of one process. No method suspends."""

from datetime import datetime, timedelta
from itertools import count

from msgspec import Struct

from roomkey.ports import Clock


class _Lease(Struct):
    holder: str
    token: int
    ends_at: datetime


class MemoryLeases:
    """``ports.Leases`` for one node."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._leases: dict[str, _Lease] = {}
        # One count for all names, so that nothing has to be kept of a lease that is over.
        self._tokens = count(1)

    def __len__(self) -> int:
        return len(self._leases)

    async def acquire(self, name: str, holder: str, lifetime: timedelta) -> int | None:
        now = self._clock.now()
        for over in [name for name, lease in self._leases.items() if lease.ends_at <= now]:
            del self._leases[over]
        present = self._leases.get(name)
        if present is not None and present.holder != holder:
            return None
        token = next(self._tokens)
        self._leases[name] = _Lease(holder, token, now + lifetime)
        return token

    async def renew(self, name: str, token: int, lifetime: timedelta) -> bool:
        now = self._clock.now()
        lease = self._held(name, token, now)
        if lease is None:
            return False
        lease.ends_at = now + lifetime
        return True

    async def release(self, name: str, token: int) -> bool:
        if self._held(name, token, self._clock.now()) is None:
            return False
        del self._leases[name]
        return True

    def _held(self, name: str, token: int, now: datetime) -> _Lease | None:
        lease = self._leases.get(name)
        return lease if lease is not None and lease.token == token and now < lease.ends_at else None
