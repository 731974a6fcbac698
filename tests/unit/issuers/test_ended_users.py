"""Since when a user was not ended, read from a log of any length that may have lost its beginning."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from roomkey.backends.memory import MemorySessionStorage
from roomkey.domain.session import UserRevoked, partition_of
from roomkey.issuers.ended_users import PAGE, EndedUsers
from roomkey.ports import LoggedEvent
from roomkey.sessions.manager import SessionManager
from roomkey.testing.clock import ManualClock

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
WINDOW = timedelta(hours=1)
NEVER = datetime.min.replace(tzinfo=UTC)


class Log:
    """A log whose events are at these moments, of which the first ``lost`` are gone; it counts what is read."""

    def __init__(self, events: Sequence[UserRevoked], lost: int = 0) -> None:
        self.partition = partition_of("alice")
        self.logged = [LoggedEvent(number, event) for number, event in enumerate(events, 1)][lost:]
        self.read = 0

    async def events(self, partition: int, after: int = 0, limit: int = 1000) -> Sequence[LoggedEvent]:
        assert partition == self.partition
        found = [each for each in self.logged if each.sequence > after][:limit]
        self.read += len(found)
        return found

    async def heads(self) -> dict[int, int]:
        return {self.partition: self.logged[-1].sequence} if self.logged else {}

    async def purge_events(self, before: datetime, limit: int = 10_000, *, fence: int | None = None) -> int:
        raise NotImplementedError


def ended(user: str, minutes_ago: float) -> UserRevoked:
    return UserRevoked(user=user, epoch=1, at=NOW - timedelta(minutes=minutes_ago))


def asked(log: Log, user: str = "alice") -> datetime:
    return asyncio.run(EndedUsers(log, lambda: NOW, WINDOW).not_before(user))


def test_a_user_that_was_never_ended_is_not() -> None:
    assert asked(Log([])) == NEVER
    assert asked(Log([ended("bob", 5)])) == NEVER


def test_it_is_the_last_time_that_counts() -> None:
    assert asked(Log([ended("alice", 30), ended("alice", 5), ended("bob", 1)])) == NOW - timedelta(minutes=5)
    assert asked(Log([ended("alice", 100), ended("alice", 30), ended("bob", 1)])) == NOW - timedelta(minutes=30)


def test_a_node_whose_clock_is_behind_takes_no_end_back() -> None:
    assert asked(Log([ended("alice", 5), ended("alice", 6)])) == NOW - timedelta(minutes=5)


def test_what_the_log_has_forgotten_may_have_been_an_end() -> None:
    events = [ended("alice", 30), ended("bob", 20), ended("bob", 10)]

    assert asked(Log(events, lost=1)) == NOW - timedelta(minutes=20)
    assert asked(Log([ended("bob", 200), ended("bob", 100), ended("bob", 10)], lost=1)) == NEVER


def test_a_long_log_is_not_read_from_its_beginning() -> None:
    log = Log([ended(f"user {number}", 100_000 - number) for number in range(99_990)] + [ended("alice", 3)])

    assert asked(log) == NOW - timedelta(minutes=3)
    assert log.read < 200


@given(
    st.lists(st.tuples(st.sampled_from(["alice", "bob"]), st.integers(0, 90)), min_size=1, max_size=40),
    st.floats(0, 1, exclude_max=True),
)
def test_no_end_within_the_window_is_ever_missed(found: list[tuple[str, int]], lost: float) -> None:
    events = [ended(user, ago) for user, ago in sorted(found, key=lambda each: -each[1])]
    last = max((event.at for event in events if event.user == "alice" and event.at >= NOW - WINDOW), default=NEVER)

    assert asked(Log(events, int(lost * len(events)))) >= last


async def test_it_hears_of_what_comes_later() -> None:
    clock = ManualClock(NOW)
    storage = MemorySessionStorage()
    sessions = SessionManager(storage, clock=clock)
    users = EndedUsers(storage, clock.now, WINDOW)

    async with storage:
        assert await users.not_before("alice") == NEVER
        for number in range(3):
            clock.advance(timedelta(seconds=1))
            await sessions.revoke_user("alice")
            assert await users.not_before("alice") == NOW + timedelta(seconds=number + 1)
        clock.advance(2 * WINDOW)
        assert await users.not_before("alice") == NEVER


async def test_many_may_ask_at_once() -> None:
    log = Log([ended("bob", 30 - number / 1000) for number in range(3 * PAGE)] + [ended("alice", 1)])
    users = EndedUsers(log, lambda: NOW, WINDOW)

    assert {*await asyncio.gather(*(users.not_before("alice") for _ in range(20)))} == {NOW - timedelta(minutes=1)}
