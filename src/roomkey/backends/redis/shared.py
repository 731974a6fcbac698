"""What the nodes on a Redis share besides what is stored in it."""

import asyncio
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from typing import Final

from roomkey.backends.redis.counters import RedisCounters
from roomkey.backends.redis.leases import RedisLeases
from roomkey.backends.redis.one_time import RedisOneTime
from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import RedisServer, RedisSettings
from roomkey.backends.sealing import Seal, can_seal
from roomkey.errors import Storage
from roomkey.ports import OneTime, OneTimeLimits, SharedState
from roomkey.security.possession import PROOF_LIMITS

NODE_LIFETIME: Final = timedelta(seconds=10)
"""How long a node counts as living that says nothing."""

RENEWALS: Final = 3
"""How often within its lifetime a node says that it lives."""

_RENEW: Final = Script("nodes_renew")
_LEAVE: Final = Script("nodes_leave")


class RedisShared:
    """
    ``ports.SharedState`` of the nodes on one Redis, which have one ``secret``.

    Tickets and answers contain secrets, so they are sealed there. Without ``secret``, or the package that encrypts,
    each node has its ``own``.
    """

    counts_once = True

    def __init__(
        self,
        server: str | RedisServer,
        settings: RedisSettings | None = None,
        *,
        secret: bytes,
        own: SharedState,
        tickets: OneTimeLimits,
        answers: OneTimeLimits,
        proofs: OneTimeLimits = PROOF_LIMITS,
        node_lifetime: timedelta = NODE_LIFETIME,
    ) -> None:
        """``server`` is its URL, or one that stores use, too."""
        self._server = server if isinstance(server, RedisServer) else RedisServer(server, settings)
        self._lifetime = node_lifetime
        self._key = self._server.prefix + b":nodes"
        self._node = ""
        self._others: list[str] = []
        self._open = AsyncExitStack()
        self.tickets: OneTime = own.tickets
        self.answers: OneTime = own.answers
        self.proofs: OneTime = own.proofs
        self.leases = RedisLeases(self._server)
        self.counters = RedisCounters(self._server, "limits")
        self.is_complete = bool(secret) and can_seal()
        if self.is_complete:
            self.tickets = RedisOneTime(self._server, "tickets", tickets, Seal(secret, "tickets"))
            self.answers = RedisOneTime(self._server, "answers", answers, Seal(secret, "answers"))
            self.proofs = RedisOneTime(self._server, "proofs", proofs, Seal(secret, "proofs"))

    async def join(self, node: str) -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._server)
            self._node = node
            await self._renew()
            stack.push_async_callback(self._say_goodbye)
            group = await stack.enter_async_context(asyncio.TaskGroup())
            stack.callback(group.create_task(self._keep_renewing()).cancel)
            self._open = stack.pop_all()

    async def leave(self) -> None:
        await self._open.aclose()
        self._others = []

    def others(self) -> list[str]:
        return self._others

    async def _keep_renewing(self) -> None:
        while True:
            await asyncio.sleep(self._lifetime.total_seconds() / RENEWALS)
            with suppress(Storage):  # the server says itself what is wrong
                await self._renew()

    async def _renew(self) -> None:
        millis = self._lifetime // timedelta(milliseconds=1)
        # May be repeated: the second time is a little later.
        nodes = await self._server.run(_RENEW, [self._key], [self._node.encode(), millis], may_repeat=True)
        self._others = sorted(node.decode() for node in nodes if node.decode() != self._node)

    async def _say_goodbye(self) -> None:
        with suppress(Storage):  # it is forgotten anyway
            # May be repeated: it is gone.
            await self._server.run(_LEAVE, [self._key], [self._node.encode()], may_repeat=True)
