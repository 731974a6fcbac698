"""What nodes share, in the memory of one: it does not wait, and it keeps no more than it needs."""

from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

from roomkey.backends.memory.checkpoints import MemoryCheckpoints
from roomkey.backends.memory.counters import MemoryCounters
from roomkey.backends.memory.leases import MemoryLeases
from roomkey.backends.memory.one_time import ENTRY_OVERHEAD_BYTES, MemoryOneTime
from roomkey.ports import OneTimeLimits, Rate
from roomkey.testing.clock import ManualClock

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ONE_PER_SECOND = Rate(per_second=1, burst=1)


def calls() -> list[Coroutine[Any, Any, object]]:
    clock = ManualClock(NOON)
    store = MemoryOneTime(clock, OneTimeLimits(entries=1))
    leases, checkpoints = MemoryLeases(clock), MemoryCheckpoints()
    return [
        store.add("a", b"1", SECOND),
        store.add("b", b"1", SECOND),
        store.replace("b", b"1", b"2", SECOND),
        store.take("b"),
        MemoryCounters(clock).take("k", ONE_PER_SECOND),
        leases.acquire("name", "holder", SECOND),
        leases.renew("name", 1, SECOND),
        leases.release("name", 1),
        checkpoints.save("consumer", 0, 1),
        checkpoints.load("consumer"),
    ]


def is_done_at_once(call: Coroutine[Any, Any, object]) -> bool:
    try:
        call.send(None)
    except StopIteration:
        return True
    call.close()
    return False


def test_no_call_gives_the_turn_away() -> None:
    outcomes = [(call.__qualname__, is_done_at_once(call)) for call in calls()]

    assert [name for name, at_once in outcomes if not at_once] == []


async def test_nothing_is_left_of_what_is_over() -> None:
    clock = ManualClock(NOON)
    store = MemoryOneTime(clock, OneTimeLimits())
    for number in range(100):
        await store.add(f"taken{number}", b"value", SECOND, owner=f"owner{number}")
        await store.take(f"taken{number}")
        await store.add(f"over{number}", b"value", (1 + number) * SECOND, owner=f"owner{number}")

    clock.advance(100 * SECOND)
    await store.add("last", b"value", SECOND)

    assert (len(store), store.size) == (1, ENTRY_OVERHEAD_BYTES + 5)
    assert len(repr(vars(store))) < 1000


async def test_what_is_over_is_not_there_even_if_the_clock_was_set_back_meanwhile() -> None:
    clock = ManualClock(NOON)
    store = MemoryOneTime(clock, OneTimeLimits())
    await store.add("earlier", b"value", 10 * SECOND)
    clock.advance(-5 * SECOND)
    await store.add("k", b"value", 10 * SECOND)

    clock.advance(10 * SECOND)

    assert await store.add("k", b"new", SECOND) is None


async def test_the_key_that_was_not_heard_of_for_longest_is_forgotten_first() -> None:
    counters = MemoryCounters(ManualClock(NOON), capacity=2)
    await counters.take("a", ONE_PER_SECOND)
    await counters.take("b", ONE_PER_SECOND)
    await counters.take("a", ONE_PER_SECOND)

    await counters.take("c", ONE_PER_SECOND)

    assert len(counters) == 2
    assert await counters.take("a", ONE_PER_SECOND) > 0
    assert await counters.take("b", ONE_PER_SECOND) == 0


async def test_nothing_is_left_of_leases_that_are_over() -> None:
    clock = ManualClock(NOON)
    leases = MemoryLeases(clock)
    for number in range(10):
        token = await leases.acquire(f"released{number}", "a", SECOND)
        await leases.release(f"released{number}", token or 0)
        await leases.acquire(f"over{number}", "a", SECOND)

    clock.advance(SECOND)
    await leases.acquire("last", "a", SECOND)

    assert len(leases) == 1
