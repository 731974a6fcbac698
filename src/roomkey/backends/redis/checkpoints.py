"""Checkpoints in Redis: a hash with those of all consumers."""

from collections.abc import Mapping, Sequence
from typing import Final

from roomkey.backends.redis.scripts import Script
from roomkey.backends.redis.server import Call, RedisServer
from roomkey.domain.session import PARTITIONS
from roomkey.ports import CheckpointItem

_SAVE: Final = Script("checkpoint_save")


class RedisCheckpoints:
    """``ports.Checkpoints`` on a server that is open."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._key: Final = b"%s:checkpoints" % server.prefix

    async def load(self, consumer: str) -> Mapping[int, int]:
        fields = [_field(consumer, partition) for partition in range(PARTITIONS)]
        found: Sequence[bytes | None] = await self._server.ask("HMGET", self._key, *fields)
        return {partition: int(sequence) for partition, sequence in enumerate(found) if sequence is not None}

    async def save(self, consumer: str, partition: int, sequence: int) -> None:
        await self.save_many([CheckpointItem(consumer, partition, sequence)])

    async def save_many(self, items: Sequence[CheckpointItem]) -> None:
        """``save`` for each of them."""
        calls = [Call(_SAVE, [self._key], [_field(item.consumer, item.partition), item.sequence]) for item in items]
        # May be repeated: it says where a consumer is, and one that comes late makes it meet events again at worst.
        await self._server.run_many(calls, may_repeat=True)

    async def all(self) -> list[CheckpointItem]:
        """The checkpoints of all consumers."""
        found: Mapping[bytes, bytes] = await self._server.ask("HGETALL", self._key)
        return [
            CheckpointItem(field[2:].decode(), int(field[:2], 16), int(sequence)) for field, sequence in found.items()
        ]


def _field(consumer: str, partition: int) -> bytes:
    return b"%02x%b" % (partition, consumer.encode())
