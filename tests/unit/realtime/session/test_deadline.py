"""How long a session holds as one connection knows it."""

from datetime import timedelta

from msgspec.structs import replace

from roomkey.domain.session import Session
from roomkey.realtime.session.deadline import SessionDeadline
from roomkey.realtime.settings import RealtimeSettings
from roomkey.testing.clock import ManualClock
from tests.support.sockets import NOON, FakeSessions

MINUTE = timedelta(minutes=1)


def deadline(
    *, idle: timedelta | None = 10 * MINUTE, lifetime: timedelta = 60 * MINUTE
) -> tuple[SessionDeadline, Session]:
    session, _ = FakeSessions(ManualClock(NOON)).issue(idle=idle, lifetime=lifetime)
    return SessionDeadline(session, RealtimeSettings()), session


def test_activity_moves_the_idle_deadline_and_storage_is_told_now_and_then() -> None:
    clock, _ = deadline()

    told = [clock.act(NOON + timedelta(seconds=second)) for second in (1, 2, 5, 6, 7, 60)]

    assert told == [True, False, False, False, False, True]
    assert clock.deadline == NOON + timedelta(seconds=60) + 10 * MINUTE
    assert clock.reason == "idle"


def test_activity_does_not_move_the_absolute_deadline() -> None:
    clock, session = deadline()

    for minute in range(60):
        clock.act(NOON + minute * MINUTE)

    assert clock.deadline == session.expires_at
    assert clock.reason == "lifetime"


def test_activity_is_recorded_finely_where_the_idle_timeout_is_short() -> None:
    clock, _ = deadline(idle=timedelta(seconds=2))

    told = [clock.act(NOON + timedelta(seconds=0.1 * tenth)) for tenth in range(4)]

    assert told == [True, True, True, True]


def test_what_storage_says_later_does_not_move_the_deadline_back() -> None:
    clock, session = deadline()
    clock.act(NOON + 5 * MINUTE)

    clock.learn(replace(session, version=3, last_seen_at=NOON + MINUTE))
    later = clock.deadline
    clock.learn(replace(session, version=4, last_seen_at=NOON + 8 * MINUTE))

    assert later == NOON + 15 * MINUTE
    assert clock.deadline == NOON + 18 * MINUTE


def test_each_deadline_is_announced_once() -> None:
    clock, session = deadline(idle=None)
    at = session.expires_at - MINUTE

    before = clock.wants_notice(at - timedelta(microseconds=1))
    then = clock.wants_notice(at)
    clock.noticed()
    after = clock.wants_notice(at + timedelta(seconds=30))
    clock.learn(replace(session, expires_at=session.expires_at + MINUTE))

    assert (before, then, after) == (False, True, False)
    assert clock.next_check() == session.expires_at
    assert clock.wants_notice(session.expires_at)


def test_a_short_idle_timeout_is_not_announced_all_the_time() -> None:
    clock, _ = deadline(idle=timedelta(seconds=20))

    assert not clock.wants_notice(NOON + timedelta(seconds=9))
    assert clock.wants_notice(NOON + timedelta(seconds=10))
