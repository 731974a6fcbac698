"""The connections of a session count on all nodes that live."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from roomkey.backends.memory.cluster import MemoryNodeRegistry, MemoryPresence, MemoryPresenceStore
from roomkey.domain.session import SessionId
from roomkey.errors import Storage
from roomkey.ports import NodeStatus, PresenceChange
from roomkey.realtime.connection_counts import ConnectionCounts
from roomkey.testing.clock import ManualClock
from tests.support.loops import in_no_time
from tests.support.sessions import NOON

ONE = SessionId("3a" + "a" * 26)
LIFETIME = timedelta(seconds=10)


class Presences(MemoryPresenceStore):
    """Presence that may be away."""

    is_away = False

    async def change(self, changes: Sequence[PresenceChange]) -> None:
        if self.is_away:
            raise Storage("away")
        await super().change(changes)


class Deployment:
    def __init__(self) -> None:
        self.clock = ManualClock(NOON)
        self.registry = MemoryNodeRegistry(self.clock)
        presence = MemoryPresence(self.registry)
        self.stores = {name: Presences(presence, name) for name in "ab"}
        self.here = {name: Counter[SessionId]() for name in "ab"}
        self.counts = {
            name: ConnectionCounts(store, self.here[name].__getitem__, node=name) for name, store in self.stores.items()
        }

    async def renew(self, *names: str) -> None:
        for name in names:
            await self.registry.renew(NodeStatus(id=name, version="1", started_at=NOON), LIFETIME)

    @asynccontextmanager
    async def at_work(self) -> AsyncGenerator[None]:
        await self.renew("a", "b")
        tasks = [asyncio.create_task(counts.run()) for counts in self.counts.values()]
        yield
        for task in tasks:
            task.cancel()

    async def enter(self, name: str) -> int:
        """A connection on a node; returns how many there are with it, as that node knows."""
        self.here[name][ONE] += 1
        return self.here[name][ONE] + await self.counts[name].elsewhere(ONE)

    def leave(self, name: str) -> None:
        self.here[name][ONE] -= 1
        self.counts[name].changed([ONE])


@in_no_time
async def test_connections_on_all_nodes_count() -> None:
    nodes = Deployment()
    async with nodes.at_work():
        seen = [await nodes.enter(name) for name in "abab"]
        nodes.leave("a")
        await asyncio.sleep(0.1)
        after = await nodes.enter("b")

    assert (seen, after) == ([1, 2, 3, 4], 4)


@in_no_time
async def test_of_two_that_come_at_the_same_moment_one_sees_both() -> None:
    nodes = Deployment()
    async with nodes.at_work():
        seen = await asyncio.gather(nodes.enter("a"), nodes.enter("b"))

    assert max(seen) == 2


@in_no_time
async def test_the_connections_of_a_node_that_died_count_no_more() -> None:
    nodes = Deployment()
    async with nodes.at_work():
        for _ in range(3):
            await nodes.enter("a")
        nodes.clock.advance(LIFETIME / 2)
        await nodes.renew("b")
        before = await nodes.enter("b")
        nodes.clock.advance(LIFETIME / 2)
        after = await nodes.enter("b")

    assert (before, after) == (4, 2)


@in_no_time
async def test_while_presence_is_away_each_node_counts_alone_and_says_the_rest_later() -> None:
    nodes = Deployment()
    async with nodes.at_work():
        nodes.stores["a"].is_away = True
        alone = await nodes.enter("a")
        nodes.stores["a"].is_away = False
        await asyncio.sleep(5)
        together = await nodes.enter("b")

    assert (alone, together) == (1, 2)
