"""
Several nodes, one room: whatever the network does, nobody has a gap or hears something twice without being told.

At rest everybody has what was published, and is shown who is there.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.loops import run_in_no_time
from tests.support.shared_nodes import NODES, TURNS, Cluster, Reader

USERS = ("alice", "bob", "carol", "dave")


def scenario(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run_in_no_time(work())


Step = tuple[str, int, int]

steps = st.lists(
    st.tuples(
        st.sampled_from(
            (
                "write", "write", "write", "enter", "leave", "hang up", "show", "show", "hide", "turn", "turn", "deaf",
                "mend", "away", "forget", "wait",
            )
        ),
        st.integers(0, 7),
        st.integers(0, 6),
    ),
    min_size=5,
    max_size=60,
)  # fmt: skip


class Story:
    """What happens, step by step. Each step has the name of a method, and two numbers that choose."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._written = 0

    async def do(self, step: Step) -> None:
        name, who, much = step
        await getattr(self, name.replace(" ", "_"))(who, much)

    def _reader(self, who: int) -> Reader:
        readers = self.cluster.readers
        return readers[who % len(readers)]

    async def enter(self, who: int, much: int) -> None:
        if len(self.cluster.readers) < 6:
            node = NODES[who % 3]
            if much < len(USERS):
                entered = await self.cluster.enter(node, USERS[much])
            else:
                entered = await self.cluster.enter_again(self._reader(much), node)
            entered.subscribe()

    async def write(self, who: int, _: int) -> None:
        self._written += 1
        self._reader(who).write(f"t{self._written}")

    async def show(self, who: int, much: int) -> None:
        self._reader(who).show(("online", "away")[much % 2])

    async def hide(self, who: int, _: int) -> None:
        self._reader(who).show("offline")

    async def leave(self, who: int, _: int) -> None:
        """And come back, knowing how far it was."""
        reader = self._reader(who)
        if reader.is_in:
            reader.caller.whisper("unsubscribe", {"document": "d"})
            await self.cluster.turn(TURNS)
            reader.subscribe()

    async def hang_up(self, who: int, _: int) -> None:
        if len(self.cluster.readers) > 3:
            reader = self._reader(who)
            reader.caller.hang_up()
            self.cluster.readers.remove(reader)

    async def deaf(self, who: int, _: int) -> None:
        self.cluster.broker(NODES[who % 3]).deaf = True

    async def away(self, who: int, _: int) -> None:
        self.cluster.broker(NODES[who % 3]).away = True

    async def mend(self, who: int, _: int) -> None:
        broker = self.cluster.broker(NODES[who % 3])
        broker.deaf = broker.away = False

    async def forget(self, _: int, much: int) -> None:
        if not much:
            self.cluster.exchange.lose_everything()

    async def wait(self, _: int, much: int) -> None:
        await self.cluster.pass_time(much)

    async def turn(self, _: int, much: int) -> None:
        await self.cluster.turn(much)


@settings(deadline=None)
@given(delays=st.lists(st.integers(0, 4), min_size=1, max_size=9), steps=steps, publications=st.sampled_from((3, 1000)))
def test_nobody_misses_anything_or_hears_it_twice_and_at_rest_everybody_sees_who_is_there(
    delays: list[int], steps: list[Step], publications: int
) -> None:
    async def work() -> None:
        cluster = Cluster(delays, history_publications=publications)
        async with cluster.at_work():
            for node in NODES:
                (await cluster.enter(node, "zoe")).subscribe()
            await cluster.turn(TURNS)
            story = Story(cluster)

            for step in steps:
                await story.do(step)
            await cluster.rest()

            position = (await cluster.exchange.inner.since("d", None)).position
            members = cluster.readers
            assert all(reader.caller.peer.documents() == ("d",) for reader in members)
            assert {(reader.position or {}).get("offset") for reader in members} <= {position.offset}
            assert {(reader.position or {}).get("epoch") for reader in members} <= {position.epoch}
            tails = {tuple(reader.heard[-3:]) for reader in members if len(reader.heard) >= 3}
            assert len(tails) <= 1
            there = {
                session
                for node in cluster.nodes.values()
                for room in node.rooms._rooms.values()  # pyright: ignore[reportPrivateUsage]
                for session in room.presence._entries  # pyright: ignore[reportPrivateUsage]
            }
            for reader in members:
                assert reader.shown.keys() - {reader.session} == there - {reader.session}
            assert {member for _, member in cluster.exchange.shown.rooms.get("d", {})} == there

    scenario(work)
