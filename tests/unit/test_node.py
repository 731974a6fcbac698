import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from roomkey.backends.memory import MemorySessionStorage
from roomkey.neighbours import SocketEvents
from roomkey.node import ALARM, BackgroundTasks, background, welcome
from roomkey.realtime.endpoint import SessionWebSocketHandler
from roomkey.sessions.event_follower import EventFollower
from roomkey.sessions.manager import SessionManager
from roomkey.testing.clock import ManualClock
from tests.support.sessions import Desk
from tests.support.sockets import Caller
from tests.support.sockets import Node as SocketNode

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "FIRST_PAUSE_SECONDS", 0)


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


class Process:
    """A process with one open socket, on a storage that keeps the last two events of a partition only."""

    def __init__(self) -> None:
        self.desk = Desk(MemorySessionStorage(events_per_partition=2))
        self.node = SocketNode()
        self.node.handler = SessionWebSocketHandler(
            self.desk.sessions,
            clock=self.desk.clock,
            tickets=self.node.tickets,
            counters=self.node.counters,
            schedule=self.node.turns,
        )
        self.follower = EventFollower(self.desk.storage, SocketEvents(self.node.handler), name="sockets")
        self.elsewhere = SessionManager(self.desk.storage, clock=self.desk.clock)

    async def socket(self) -> Caller:
        issued = await self.desk.sessions.create_session("alice")
        await self.desk.sessions.activate_session(issued.id)
        await self.follower.start()
        return await self.node.enter(issued.token)


async def test_a_revoke_of_another_process_ends_sockets_here() -> None:
    process = Process()
    caller = await process.socket()

    await process.elsewhere.invalidate_session(caller.session.id)
    await process.follower.follow()

    assert caller.closed_with == (4401, "session_invalidated")


async def test_a_revoke_whose_event_was_lost_ends_sockets_here_all_the_same() -> None:
    process = Process()
    caller = await process.socket()
    await process.elsewhere.invalidate_session(caller.session.id)
    for _ in range(2):  # which push the event out of the log before anybody has read it
        await process.elsewhere.create_session("alice")

    await process.follower.follow()
    caller.edit("too late")
    await process.node.handler.answer_next()

    assert caller.closed_with == (4401, "session_invalidated")
