import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from roomkey import node
from roomkey.node import ALARM, BackgroundTasks, welcome
from roomkey.testing.clock import ManualClock

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "FIRST_PAUSE_SECONDS", 0)


class Clumsy:
    """Work that fails so many times, and then works."""

    def __init__(self, failures: int) -> None:
        self._failures = failures
        self.working = asyncio.Event()
        self.stopped = False

    async def run(self) -> None:
        if self._failures:
            self._failures -= 1
            raise OSError("the broom broke")
        self.working.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped = True


async def test_a_task_that_fails_is_begun_again_and_spoken_of_for_a_while() -> None:
    clock = ManualClock(NOON)
    background, clumsy = BackgroundTasks(clock.now), Clumsy(failures=3)

    async with background.at_work({"sweeping": clumsy.run}):
        await clumsy.working.wait()
        soon = background.degradations()
        clock.advance(ALARM + timedelta(seconds=1))
        later = background.degradations()

    assert soon == {"sweeping": "failed at 12:00:00Z"}
    assert later == {}


async def test_a_task_that_fails_disturbs_no_other() -> None:
    background = BackgroundTasks(ManualClock(NOON).now)
    clumsy, steady = Clumsy(failures=1), Clumsy(failures=0)

    async with background.at_work({"sweeping": clumsy.run, "dusting": steady.run}):
        await clumsy.working.wait()
        undisturbed = not steady.stopped

    assert undisturbed


async def test_tasks_end_with_the_block() -> None:
    background, steady = BackgroundTasks(ManualClock(NOON).now), Clumsy(failures=0)

    async with background.at_work({"dusting": steady.run}):
        await steady.working.wait()

    assert steady.stopped


async def test_a_task_that_fails_while_it_is_stopped_stops() -> None:
    background, working = BackgroundTasks(ManualClock(NOON).now), asyncio.Event()

    async def stubborn() -> None:
        working.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("the broom is stuck")

    async with background.at_work({"sweeping": stubborn}):
        await working.wait()

    assert background.degradations() == {"sweeping": "failed at 12:00:00Z"}


async def test_what_the_block_raises_arrives_as_it_is() -> None:
    background, steady = BackgroundTasks(ManualClock(NOON).now), Clumsy(failures=0)

    async def work_and_fail() -> None:
        async with background.at_work({"dusting": steady.run}):
            await steady.working.wait()
            raise LookupError

    with pytest.raises(LookupError):
        await work_and_fail()

    assert steady.stopped


def test_only_the_welcome_of_the_demo_begins_with_words() -> None:
    assert "second window" in (welcome("demo/welcome") or {})["content"]
    assert welcome("demo/other") is None
