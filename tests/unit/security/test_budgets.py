"""Budgets of all nodes hold while they can be asked, and each node's own at all times."""

import asyncio
from datetime import timedelta

from roomkey.backends.memory.counters import MemoryCounters
from roomkey.errors import Storage
from roomkey.ports import Rate
from roomkey.security.budgets import PATIENCE, REST, Budgets, SharedBudgets
from roomkey.testing.clock import ManualClock
from tests.support.loops import in_no_time
from tests.support.sessions import NOON

RATE = Rate(per_second=1, burst=4)


class Together(MemoryCounters):
    """The counters that nodes share: they may be away, or not answer at all."""

    def __init__(self, clock: ManualClock | None = None) -> None:
        super().__init__(clock or ManualClock(NOON))
        self.is_away = False
        self.is_silent = False
        self.asked = 0

    async def take(self, key: str, rate: Rate, cost: float = 1.0) -> float:
        self.asked += 1
        if self.is_away:
            raise Storage("away")
        if self.is_silent:
            await asyncio.Event().wait()
        return await super().take(key, rate, cost)


class Nodes:
    """Two nodes with one budget for an address."""

    def __init__(self) -> None:
        self.together = Together()
        self.time = 0.0
        clock = ManualClock(NOON)
        self.a, self.b = (SharedBudgets(self.together, MemoryCounters(clock), now=lambda: self.time) for _ in "ab")

    async def admitted(self, count: int) -> int:
        """How many of so many handshakes on each node are let in."""
        waits = [await node.take("192.0.2.1", RATE) for _ in range(count) for node in (self.a, self.b)]
        return waits.count(0.0)


async def test_an_address_has_one_budget_on_all_nodes() -> None:
    assert await Nodes().admitted(10) == 4


async def test_a_flood_is_stopped_where_it_arrives_and_not_passed_on() -> None:
    nodes = Nodes()

    await nodes.admitted(1000)

    assert nodes.together.asked <= 8


async def test_who_is_stopped_is_told_for_how_long() -> None:
    nodes = Nodes()

    waits = [await nodes.a.take("192.0.2.1", RATE) for _ in range(5)]

    assert waits == [0.0, 0.0, 0.0, 0.0, 1.0]


async def test_while_they_cannot_be_asked_each_node_has_a_budget_of_its_own_and_is_not_slowed_down() -> None:
    nodes = Nodes()
    nodes.together.is_away = True

    admitted = await nodes.admitted(10)

    assert admitted == 8
    assert nodes.together.asked == 2


async def test_when_they_are_back_they_hold_again() -> None:
    nodes = Nodes()
    nodes.together.is_away = True
    await nodes.a.take("192.0.2.1", RATE)
    nodes.together.is_away = False
    nodes.time = REST.total_seconds()

    await nodes.a.take("192.0.2.1", RATE)
    await nodes.b.take("192.0.2.1", RATE)

    assert nodes.together.asked == 3


@in_no_time
async def test_counters_that_do_not_answer_keep_nobody_for_long() -> None:
    nodes = Nodes()
    nodes.together.is_silent = True
    now = asyncio.get_running_loop().time

    began = now()
    wait = await nodes.a.take("192.0.2.1", RATE)

    assert wait == 0.0
    assert now() - began <= PATIENCE.total_seconds() + 0.01


# --- budgets that nobody waits for ---------------------------------------------------------------------

LARGE = Rate(per_second=10, burst=100)


class Fleet:
    """Nodes that tell each other what they have granted, by counters that they share."""

    def __init__(self, nodes: int) -> None:
        self.clock = ManualClock(NOON)
        self.together = Together(self.clock)
        self.nodes = [Budgets(shared=self.together, now=lambda: self.clock.now().timestamp()) for _ in range(nodes)]

    def granted(self, requests: int) -> int:
        """How many of so many requests on each node are let through."""
        return sum(not node.spend("alice", LARGE).wait for _ in range(requests) for node in self.nodes)

    async def settle(self) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(node.run()) for node in self.nodes]
            for _ in range(20):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()


def test_a_budget_says_what_remains_of_it_and_when_it_is_full() -> None:
    time = 1_000.0
    budgets = Budgets(now=lambda: time)

    standings = [budgets.spend("alice", LARGE) for _ in range(101)]

    assert (standings[0].wait, standings[0].remaining, round(standings[0].full_in, 3)) == (0, 99, 0.1)
    assert [round(standing.remaining) for standing in standings[1:100]] == list(range(98, -1, -1))
    assert (round(standings[100].wait, 3), standings[100].remaining) == (0.1, 0)
    assert budgets.spend("bob", LARGE).remaining == 99


def test_what_costs_more_than_a_burst_empties_a_budget_and_no_more() -> None:
    budgets = Budgets(now=lambda: 1_000.0)

    standing = budgets.spend("alice", LARGE, 1_000)

    assert (standing.wait, standing.remaining, round(standing.full_in, 3)) == (0, 0, 10)


async def test_a_node_asks_nobody_before_a_slice_is_spent() -> None:
    fleet = Fleet(2)

    fleet.granted(4)
    await fleet.settle()
    assert fleet.together.asked == 0
    fleet.granted(1)
    await fleet.settle()

    assert fleet.together.asked == 2


async def test_nodes_exceed_a_budget_by_a_slice_each_at_most() -> None:
    fleet = Fleet(4)

    granted = 0
    for _ in range(100):
        granted += fleet.granted(1)
        await fleet.settle()

    assert 100 <= granted <= 100 + 4 * 5
    fleet.clock.advance(timedelta(seconds=20))
    for _ in range(200):
        granted += fleet.granted(1)
        await fleet.settle()
        fleet.clock.advance(timedelta(seconds=0.1))
    assert granted <= 100 + 4 * 5 + 100 + 200 + 4 * 5


async def test_who_is_refused_because_of_other_nodes_is_told_that_nothing_remains() -> None:
    fleet = Fleet(2)
    busy, quiet = fleet.nodes
    for _ in range(100):
        busy.spend("alice", LARGE)
        await fleet.settle()

    for _ in range(5):
        quiet.spend("alice", LARGE)
    await fleet.settle()
    refused = quiet.spend("alice", LARGE)

    assert refused.wait > 0
    assert refused.remaining == 0


async def test_who_has_spent_everything_elsewhere_waits_here_until_there_is_something() -> None:
    fleet = Fleet(2)
    await fleet.together.take("alice", LARGE, 100)
    fleet.nodes[0].spend("alice", LARGE, 50)
    await fleet.settle()

    wait = fleet.nodes[0].spend("alice", LARGE).wait
    asked = fleet.together.asked
    assert fleet.nodes[0].spend("alice", LARGE).wait == wait
    await fleet.settle()

    assert round(wait, 3) == 5.0
    assert fleet.together.asked == asked


async def test_little_over_a_long_time_is_never_told() -> None:
    fleet = Fleet(1)

    for _ in range(30):
        assert fleet.granted(1) == 1
        fleet.clock.advance(timedelta(seconds=3))
        await fleet.settle()

    assert fleet.together.asked == 0


async def test_while_the_others_do_not_answer_each_node_counts_alone() -> None:
    fleet = Fleet(2)
    fleet.together.is_away = True

    granted = 0
    for _ in range(150):
        granted += fleet.granted(1)
        await fleet.settle()

    assert granted == 200
    assert fleet.together.asked <= 4


def test_many_callers_are_held_in_bounded_memory() -> None:
    budgets = Budgets(capacity=100, shared=Together())

    for number in range(10_000):
        budgets.spend(str(number), LARGE)

    assert len(budgets) == 100
