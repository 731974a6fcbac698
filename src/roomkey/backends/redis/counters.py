"""Budgets in Redis, which count once for all nodes, and by its clock."""

from typing import Final

from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import RedisServer
from roomkey.ports import Rate

_TAKE: Final = Script("counter_take")


class RedisCounters:
    """
    ``ports.Counters`` on a server that is open. ``purpose`` tells budgets of one kind from those of others.

    A budget that is full again is forgotten by Redis. When the answer of the server is lost, ``OutcomeUnknown`` is
    raised: it may have been charged.
    """

    def __init__(self, server: RedisServer, purpose: str) -> None:
        self._server = server
        self._purpose = purpose.encode()

    async def take(self, key: str, rate: Rate, cost: float = 1.0) -> float:
        place = b"%s:counter:%s:%s" % (self._server.prefix, self._purpose, key.encode("utf-8", "surrogatepass"))
        return float(await self._server.run(_TAKE, [place], [repr(rate.per_second), repr(rate.burst), repr(cost)]))
