"""Checkpoints in Redis: a hash for each consumer."""

from collections.abc import Mapping
from typing import Final

from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import RedisServer

_SAVE: Final = Script("checkpoint_save")


class RedisCheckpoints:
    """``ports.Checkpoints`` on a server that is open."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    async def load(self, consumer: str) -> Mapping[int, int]:
        found: Mapping[bytes, bytes] = await self._server.ask("HGETALL", self._key(consumer))
        return {int(partition): int(sequence) for partition, sequence in found.items()}

    async def save(self, consumer: str, partition: int, sequence: int) -> None:
        # May be repeated: it says where a consumer is, and one that comes late makes it meet events again at worst.
        await self._server.run(_SAVE, [self._key(consumer)], [partition, sequence], may_repeat=True)

    def _key(self, consumer: str) -> bytes:
        return b"%s:checkpoints:%s" % (self._server.prefix, consumer.encode())
