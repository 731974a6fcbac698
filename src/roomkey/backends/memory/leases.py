"""Leases in the memory of one process. No method suspends."""

from datetime import datetime, timedelta

from msgspec import Struct

from roomkey.ports import Clock


class _Lease(Struct):
    holder: str
    token: int
    ends_at: datetime


class MemoryLeases:
    """``ports.Leases`` for one node. A name is never forgotten: its tokens must keep growing."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._leases: dict[str, _Lease] = {}

    async def acquire(self, name: str, holder: str, lifetime: timedelta) -> int | None:
        now = self._clock.now()
        former = self._leases.get(name)
        if former is not None and now < former.ends_at and former.holder != holder:
            return None
        token = 1 if former is None else former.token + 1
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
        now = self._clock.now()
        lease = self._held(name, token, now)
        if lease is None:
            return False
        lease.ends_at = now
        return True

    def _held(self, name: str, token: int, now: datetime) -> _Lease | None:
        lease = self._leases.get(name)
        return lease if lease is not None and lease.token == token and now < lease.ends_at else None
