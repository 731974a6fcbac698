"""What nodes of one process know of each other keeps the promises of the ports."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from roomkey.backends.memory.cluster import MemoryNodeRegistry, MemoryPresence, MemoryPresenceStore
from roomkey.ports import NodeRegistry
from roomkey.testing.clock import ManualClock
from roomkey.testing.cluster import NodeRegistryConformance, PresenceStoreConformance, Seat
from tests.support.sockets import NOON


class InOneProcess:
    def setup_method(self) -> None:
        self.clock = ManualClock(NOON)

    async def pass_time(self, by: timedelta) -> None:
        self.clock.advance(by)


class TestMemoryNodeRegistry(InOneProcess, NodeRegistryConformance):
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[NodeRegistry]:
        yield MemoryNodeRegistry(self.clock)


class TestMemoryPresenceStore(InOneProcess, PresenceStoreConformance):
    @asynccontextmanager
    async def open(self, *nodes: str) -> AsyncGenerator[Sequence[Seat]]:
        registry = MemoryNodeRegistry(self.clock)
        presence = MemoryPresence(registry)
        yield [Seat(registry, MemoryPresenceStore(presence, node)) for node in nodes]
