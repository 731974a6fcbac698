"""What other processes commit arrives: all of it, in order, and what cannot arrive any more is said."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta

import structlog

from roomkey.backends.memory import MemorySessionStorage
from roomkey.backends.memory.checkpoints import MemoryCheckpoints
from roomkey.domain.session import Session, partition_of
from roomkey.errors import Serialization, Storage
from roomkey.ports import LoggedEvent
from roomkey.sessions.event_follower import EventFollower
from tests.support.loops import in_no_time
from tests.support.sessions import Desk

ALICE = partition_of("alice")


class Listener:
    """Remembers what it is told; ``failures`` are raised instead, one at a time."""

    def __init__(self) -> None:
        self.heard: list[LoggedEvent] = []
        self.gaps: list[tuple[int, int, int]] = []
        self.failures: list[Exception] = []

    async def consume(self, partition: int, events: Sequence[LoggedEvent]) -> None:
        del partition
        self._fail()
        self.heard.extend(events)

    async def gap(self, partition: int, first_missing: int, last_missing: int) -> None:
        self._fail()
        self.gaps.append((partition, first_missing, last_missing))

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)

    def tags(self, session: Session | None = None) -> list[str]:
        events = [logged.event for logged in self.heard]
        return [event.tag() for event in events if session is None or event.session == session.id]

    def sequences(self) -> list[int]:
        return [logged.sequence for logged in self.heard]


def small() -> MemorySessionStorage:
    """A storage that forgets all but the last two events of a partition."""
    return MemorySessionStorage(events_per_partition=2)


# --- what is handed on --------------------------------------------------------------------------------


async def test_only_what_is_committed_after_the_start_arrives_and_each_once() -> None:
    desk, listener = Desk(), Listener()
    before = await desk.active()
    follower = EventFollower(desk.storage, listener, name="test")
    await follower.start()

    await desk.sessions.suspend_session(before.id)
    later = await desk.active("bob")
    passed = await follower.follow()

    assert passed == len(listener.heard) == 3
    assert listener.tags(before) == ["suspended"]
    assert listener.tags(later) == ["created", "activated"]
    assert await follower.follow() == 0


async def test_a_long_log_arrives_in_order_and_whole() -> None:
    desk, listener = Desk(MemorySessionStorage(events_per_partition=10_000)), Listener()
    follower = EventFollower(desk.storage, listener, name="test")
    session = await desk.active()
    for _ in range(1200):
        await desk.sessions.suspend_session(session.id)
        await desk.sessions.resume_session(session.id)

    await follower.follow()

    assert listener.sequences() == list(range(1, 2403))
    assert listener.gaps == []


# --- gaps ---------------------------------------------------------------------------------------------


async def test_what_was_purged_before_it_was_read_is_a_gap_that_is_said_and_logged() -> None:
    desk, listener = Desk(small()), Listener()
    follower = EventFollower(desk.storage, listener, name="test")
    await follower.start()
    session = await desk.active()
    await desk.sessions.suspend_session(session.id)
    await desk.sessions.resume_session(session.id)

    with structlog.testing.capture_logs() as logs:
        await follower.follow()
    await desk.sessions.suspend_session(session.id)
    await follower.follow()

    assert listener.gaps == [(ALICE, 1, 2)]
    assert listener.tags() == ["suspended", "resumed", "suspended"]
    assert [(entry["log_level"], entry["event"], entry["first"], entry["last"]) for entry in logs] == [
        ("error", "events_missed", 1, 2)
    ]


async def test_a_gap_in_the_middle_of_a_log_that_was_followed_is_said_too() -> None:
    desk, listener = Desk(small()), Listener()
    follower = EventFollower(desk.storage, listener, name="test")
    session = await desk.active()
    await follower.follow()
    for _ in range(3):
        await desk.sessions.suspend_session(session.id)
        await desk.sessions.resume_session(session.id)

    await follower.follow()

    assert listener.gaps == [(ALICE, 3, 6)]
    assert listener.sequences() == [1, 2, 7, 8]


async def test_a_log_of_which_nothing_is_left_is_one_gap() -> None:
    desk, listener = Desk(), Listener()
    follower = EventFollower(desk.storage, listener, name="test")
    await desk.active()
    desk.clock.advance(desk.sessions.policy.lifetime)
    await desk.storage.purge_events(desk.clock.now())

    passed = await follower.follow()
    again = await follower.follow()

    assert (passed, again) == (0, 0)
    assert listener.gaps == [(ALICE, 1, 2)]


async def test_a_gap_that_could_not_be_dealt_with_is_said_again() -> None:
    desk, listener = Desk(small()), Listener()
    follower = EventFollower(desk.storage, listener, name="test")
    session = await desk.active()
    await desk.sessions.suspend_session(session.id)
    listener.failures.append(RuntimeError("not now"))

    await follower.follow()
    await follower.follow()

    assert listener.gaps == [(ALICE, 1, 1)]
    assert listener.sequences() == [2, 3]


class Rewound(MemorySessionStorage):
    """A log that has lost its end, as after a failover, or all of it: only ``left`` events are there."""

    left: int | None = None

    async def heads(self) -> Mapping[int, int]:
        heads = await super().heads()
        if self.left is None:
            return heads
        return {partition: self.left for partition in heads if self.left}

    async def events(self, partition: int, after: int = 0, limit: int = 1000) -> Sequence[LoggedEvent]:
        events = await super().events(partition, after, limit)
        return [logged for logged in events if self.left is None or logged.sequence <= self.left]


async def test_a_log_that_lost_its_end_is_a_gap_and_what_is_left_comes_again() -> None:
    storage, listener = Rewound(), Listener()
    desk = Desk(storage)
    follower = EventFollower(storage, listener, name="test")
    session = await desk.active()
    await desk.sessions.suspend_session(session.id)
    await follower.follow()

    storage.left = 1
    await follower.follow()
    await follower.follow()

    assert listener.gaps == [(ALICE, 2, 3)]
    assert listener.sequences() == [1, 2, 3, 1]


async def test_a_log_that_lost_everything_is_followed_from_its_new_beginning() -> None:
    storage, listener = Rewound(), Listener()
    desk = Desk(storage)
    follower = EventFollower(storage, listener, name="test")
    await desk.active()
    await follower.follow()

    storage.left = 0
    await follower.follow()
    storage.left = 1
    await follower.follow()

    assert listener.gaps == [(ALICE, 1, 2)]
    assert listener.sequences() == [1, 2, 1]


# --- consumers that fail ------------------------------------------------------------------------------


async def test_what_a_consumer_failed_at_comes_again() -> None:
    desk, listener = Desk(), Listener()
    follower = EventFollower(desk.storage, listener, name="test")
    await desk.active()
    listener.failures.append(RuntimeError("not now"))

    first = await follower.follow()
    second = await follower.follow()

    assert (first, second) == (0, 2)
    assert listener.sequences() == [1, 2]


async def test_a_partition_that_a_consumer_fails_at_does_not_hold_up_the_others() -> None:
    desk, listener = Desk(), Listener()
    follower = EventFollower(desk.storage, listener, name="test")
    users = [f"user{number}" for number in range(20)]
    sessions = [await desk.active(user) for user in users]
    listener.failures.append(Storage("its own storage is away"))

    await follower.follow()

    assert [len(listener.tags(session)) for session in sessions].count(0) == 1


class Damaged(MemorySessionStorage):
    """One partition cannot be read."""

    async def events(self, partition: int, after: int = 0, limit: int = 1000) -> Sequence[LoggedEvent]:
        if partition == ALICE:
            raise Serialization("a record cannot be read")
        return await super().events(partition, after, limit)


async def test_a_partition_that_cannot_be_read_does_not_hold_up_the_others() -> None:
    desk, listener = Desk(Damaged()), Listener()
    follower = EventFollower(desk.storage, listener, name="test")
    sessions = [await desk.active(user) for user in ("alice", "bob", "carol")]

    await follower.follow()

    assert [len(listener.tags(session)) for session in sessions] == [0, 2, 2]
    assert listener.gaps == []


async def test_a_consumer_that_keeps_failing_does_not_flood_the_log() -> None:
    desk, listener = Desk(), Listener()
    follower = EventFollower(desk.storage, listener, name="test")
    await desk.active()
    listener.failures += [RuntimeError("not now")] * 3

    with structlog.testing.capture_logs() as logs:
        for _ in range(4):
            await follower.follow()
        listener.failures.append(RuntimeError("not again"))
        await desk.active()
        await follower.follow()

    assert [entry["event"] for entry in logs] == ["following_failed", "following_failed"]


async def test_a_consumer_that_fails_or_is_slow_holds_up_nobody_else() -> None:
    desk, failing, listening = Desk(), Listener(), Listener()
    followers = [
        EventFollower(desk.storage, consumer, name=name)
        for name, consumer in (("failing", failing), ("listening", listening))
    ]
    session = await desk.active()
    failing.failures += [RuntimeError("not now")] * 2

    for _ in range(2):
        for follower in followers:
            await follower.follow()
        await desk.sessions.suspend_session(session.id)
    for follower in followers:
        await follower.follow()

    assert listening.tags() == failing.tags() == ["created", "activated", "suspended"]


# --- checkpoints --------------------------------------------------------------------------------------


async def test_a_consumer_with_checkpoints_goes_on_where_it_left_off() -> None:
    desk, checkpoints = Desk(), MemoryCheckpoints()
    session = await desk.active()
    before, after = Listener(), Listener()
    first = EventFollower(desk.storage, before, name="audit", checkpoints=checkpoints)
    await first.start()
    await first.follow()
    await desk.sessions.suspend_session(session.id)

    second = EventFollower(desk.storage, after, name="audit", checkpoints=checkpoints)
    await second.start()
    await second.follow()

    assert before.tags() == ["created", "activated"]
    assert after.tags() == ["suspended"]


async def test_what_was_not_dealt_with_has_no_checkpoint() -> None:
    desk, listener, checkpoints = Desk(), Listener(), MemoryCheckpoints()
    await desk.active()
    follower = EventFollower(desk.storage, listener, name="audit", checkpoints=checkpoints)
    listener.failures.append(RuntimeError("not now"))

    await follower.follow()
    failed = await checkpoints.load("audit")
    await follower.follow()

    assert failed == {}
    assert await checkpoints.load("audit") == {ALICE: 2}


async def test_what_was_purged_while_nobody_followed_is_a_gap() -> None:
    desk, checkpoints = Desk(small()), MemoryCheckpoints()
    session = await desk.active()
    first = EventFollower(desk.storage, Listener(), name="audit", checkpoints=checkpoints)
    await first.start()
    await first.follow()
    for _ in range(2):
        await desk.sessions.suspend_session(session.id)
        await desk.sessions.resume_session(session.id)

    listener = Listener()
    second = EventFollower(desk.storage, listener, name="audit", checkpoints=checkpoints)
    await second.start()
    await second.follow()

    assert listener.gaps == [(ALICE, 3, 4)]
    assert await checkpoints.load("audit") == {ALICE: 6}


class Forgetful(MemoryCheckpoints):
    """Cannot be written to."""

    async def save(self, consumer: str, partition: int, sequence: int) -> None:
        del consumer, partition, sequence
        raise Storage("it is away")


async def test_a_checkpoint_that_cannot_be_saved_repeats_events_after_the_next_start_and_not_before() -> None:
    desk, checkpoints = Desk(), Forgetful()
    session = await desk.active()
    before, after = Listener(), Listener()
    first = EventFollower(desk.storage, before, name="audit", checkpoints=checkpoints)
    await first.start()
    await first.follow()
    await desk.sessions.suspend_session(session.id)
    await first.follow()

    second = EventFollower(desk.storage, after, name="audit", checkpoints=checkpoints)
    await second.start()
    await second.follow()

    assert before.sequences() == after.sequences() == [1, 2, 3]


class LogThatComesAndGoes(MemorySessionStorage):
    """Its log is away where ``answers`` has ``False``, asked in turn."""

    def __init__(self, answers: Sequence[bool]) -> None:
        super().__init__()
        self._answers = list(answers)
        self.all_asked = asyncio.Event()

    async def heads(self) -> Mapping[int, int]:
        answer = self._answers.pop(0) if self._answers else True
        if not self._answers:
            self.all_asked.set()
        if not answer:
            raise Storage("it is away")
        return await super().heads()


class LogThatGoesWhileItIsRead(MemorySessionStorage):
    """It says that there is something new, and no more."""

    async def events(self, partition: int, after: int = 0, limit: int = 1000) -> Sequence[LoggedEvent]:  # noqa: ARG002
        raise Storage("it is away")


async def test_a_log_that_goes_while_it_is_read_is_no_fault_of_ours() -> None:
    desk = Desk(LogThatGoesWhileItIsRead())
    follower = EventFollower(desk.storage, Listener(), name="test")
    await desk.active()

    with structlog.testing.capture_logs() as logged:
        await follower.follow()

    assert [(entry["event"], entry["log_level"]) for entry in logged] == [("following_failed", "warning")]
    assert "exc_info" not in logged[0]


async def test_a_log_that_is_away_is_reported_once_until_it_is_back() -> None:
    log = LogThatComesAndGoes([False, False, False, True, False, False, True])
    follower = EventFollower(log, Listener(), name="test", interval=timedelta())

    with structlog.testing.capture_logs() as logged:
        following = asyncio.ensure_future(follower.run())
        await log.all_asked.wait()
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following

    assert [entry["event"] for entry in logged] == ["log_not_followed"] * 2


# --- how far it is ------------------------------------------------------------------------------------


async def test_it_says_how_far_it_is_only_if_everything_was_dealt_with() -> None:
    desk, listener, moments = Desk(), Listener(), list[float]()
    follower = EventFollower(desk.storage, listener, name="test", caught_up=moments.append)
    await follower.start()
    await desk.active()

    listener.failures = [Storage("not now")]
    await follower.follow()
    before = list(moments)
    began = asyncio.get_running_loop().time()
    await follower.follow()

    assert before == []
    assert len(moments) == 1
    assert moments[0] >= began


@in_no_time
async def test_in_a_hurry_it_does_not_wait_for_its_time() -> None:
    desk, listener = Desk(), Listener()
    follower = EventFollower(desk.storage, listener, name="test", interval=timedelta(hours=1))
    await follower.start()
    running = asyncio.create_task(follower.run())
    await asyncio.sleep(1)
    await desk.active()

    follower.hurry()
    await asyncio.sleep(1)
    running.cancel()

    assert len(listener.heard) == 2
