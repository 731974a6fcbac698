"""Leases in Redis, which ends them by its own clock."""

from datetime import timedelta
from typing import Final
from zlib import crc32

from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import RedisServer

PARTITIONS: Final = 64
"""Leases of one partition share a slot, and the last token: so nothing has to be kept of a lease that is over."""

_ACQUIRE: Final = Script("lease_acquire")
_RENEW: Final = Script("lease_renew")
_RELEASE: Final = Script("lease_release")


class RedisLeases:
    """
    ``ports.Leases`` on a server that is open.

    Tokens are times of the server, so they grow even if a failover loses the last ones. A failover may lose a lease,
    though, and then two have it: what is written under it is protected by its token.
    """

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    async def acquire(self, name: str, holder: str, lifetime: timedelta) -> int | None:
        # May be repeated: a holder that has it gets a new token.
        keys = [self._lease(name), self._tag(name) + b"tokens"]
        return await self._server.run(_ACQUIRE, keys, [holder.encode(), _millis(lifetime)], may_repeat=True)

    async def renew(self, name: str, token: int, lifetime: timedelta) -> bool:
        # May be repeated: the second time is a little later.
        return bool(await self._server.run(_RENEW, [self._lease(name)], [token, _millis(lifetime)], may_repeat=True))

    async def release(self, name: str, token: int) -> bool:
        # May be repeated: the token holds nothing any more, which is then the answer.
        return bool(await self._server.run(_RELEASE, [self._lease(name)], [token], may_repeat=True))

    def _lease(self, name: str) -> bytes:
        return self._tag(name) + b"lease:" + name.encode()

    def _tag(self, name: str) -> bytes:
        return b"{%s:l%02x}:" % (self._server.prefix, crc32(name.encode()) % PARTITIONS)


def _millis(lifetime: timedelta) -> int:
    """At least one: nothing is leased for no time."""
    return max(lifetime // timedelta(milliseconds=1), 1)
