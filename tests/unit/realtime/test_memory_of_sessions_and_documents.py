"""Ledgers, histories, presence and the registry: what is remembered, and that it is bounded."""

from datetime import datetime, timedelta
from itertools import count

import pytest

from roomkey.domain.session import SessionId
from roomkey.realtime.registry import Deadlines, Registry
from roomkey.realtime.rooms.history import Histories, History, Position, Window
from roomkey.realtime.rooms.presence import Presence
from roomkey.realtime.session.limits import LimitsOfSessions, Published
from roomkey.realtime.settings import RealtimeSettings
from roomkey.wire.frame import Frame
from tests.support.sockets import NOON, FakeSessions, HandClock

ALICE, BOB = SessionId("alice"), SessionId("bob")
FRAME = Frame(b"{}")
WINDOW = Window(publications=5, age=timedelta(minutes=5), size=100_000)


def published(offset: int, at: timedelta = timedelta()) -> Published:
    return Published("realtime_edit", "d", Position("abcdefgh", offset), NOON + at)


# --- ledgers --------------------------------------------------------------------------------------------


def test_ids_of_one_session_are_bounded() -> None:
    limits = LimitsOfSessions(RealtimeSettings(max_repeats_per_session=100)).open(ALICE)

    for number in range(1000):
        limits.remember(str(number), published(number))

    assert limits.find("899", NOON) is None
    assert limits.find("900", NOON) == published(900)


def test_ids_of_all_sessions_are_bounded_and_nobody_loses_its_latest() -> None:
    everyone = LimitsOfSessions(RealtimeSettings(max_repeats=1000))
    quiet = everyone.open(BOB)
    quiet.remember("of bob", published(1))

    for session in range(100):
        limits = everyone.open(SessionId(str(session)))
        for number in range(100):
            limits.remember(str(number), published(number))

    assert everyone.remembered <= 1000 + 100 * 64
    assert quiet.find("of bob", NOON) == published(1)


def test_what_is_over_is_swept_away() -> None:
    limits = LimitsOfSessions(RealtimeSettings())
    limits.open(ALICE).remember("x", published(1))
    limits.release(ALICE)

    limits.sweep(NOON + timedelta(minutes=1))
    before = len(limits)
    limits.sweep(NOON + timedelta(minutes=3))

    assert (before, len(limits), limits.remembered) == (1, 0, 0)


def test_a_spent_budget_is_not_swept_away() -> None:
    limits = LimitsOfSessions(RealtimeSettings())
    limits.open(ALICE).messages.take(400, NOON.timestamp())
    limits.release(ALICE)

    limits.sweep(NOON)

    assert len(limits) == 1


def test_ledgers_without_connections_are_bounded() -> None:
    limits = LimitsOfSessions(RealtimeSettings(max_connections=10))

    for number in range(100):
        limits.open(SessionId(str(number))).remember("x", published(1))
        limits.release(SessionId(str(number)))

    assert len(limits) == 10
    assert limits.remembered == 10


# --- histories ------------------------------------------------------------------------------------------


def histories(*, max_size: int = 1_000_000, max_idle: int = 100, window: Window = WINDOW) -> Histories:
    epochs = count()
    return Histories(window, max_size=max_size, max_idle=max_idle, new_epoch=lambda: f"{next(epochs):08d}")


def filled(publications: int, window: Window = WINDOW) -> History:
    history = History("abcdefgh", window)
    for _ in range(publications):
        history.append(FRAME, NOON)
    return history


@pytest.mark.parametrize(("offset", "missed"), [(10, 0), (9, 1), (5, 5), (4, None), (11, None), (-1, None)])
def test_a_history_gives_everything_or_nothing(offset: int, missed: int | None) -> None:
    found = filled(10).since(Position("abcdefgh", offset))

    assert (None if found is None else len(found)) == missed


def test_a_history_that_was_never_trimmed_goes_back_to_the_beginning() -> None:
    assert len(filled(3).since(Position("abcdefgh", 0)) or ()) == 3
    assert filled(0).since(Position("abcdefgh", 0)) == []
    assert filled(0).since(Position("otherone", 0)) is None


def test_a_history_is_bounded_in_bytes() -> None:
    history = filled(100, Window(publications=1000, age=timedelta(minutes=5), size=5_000))

    assert 0 < history.size <= 5_000
    assert history.offset == 100


def test_a_history_is_bounded_in_time() -> None:
    history = filled(3)

    history.append(FRAME, NOON + timedelta(minutes=5, seconds=1))

    assert history.since(Position("abcdefgh", 2)) is None
    assert history.since(Position("abcdefgh", 3)) == [FRAME]


def test_all_histories_together_are_bounded_and_those_in_use_stay_longest() -> None:
    every = histories(max_size=10_000)
    every.open("idle", NOON)
    every.append("idle", FRAME, NOON)
    epoch = every["idle"].epoch
    every.release("idle")
    every.open("busy", NOON)

    for number in range(20):
        every.open(f"d{number}", NOON)
        for _ in range(5):
            every.append(f"d{number}", FRAME, NOON)

    assert every.size <= 10_000
    assert every.open("idle", NOON).epoch != epoch
    assert every["busy"].epoch == "00000001"


def test_idle_documents_are_bounded_and_the_stalest_goes_first() -> None:
    every = histories(max_idle=2)
    for name in ("a", "b", "c"):
        every.open(name, NOON)
    epoch = every["b"].epoch

    for name in ("a", "b", "c"):
        every.release(name)

    assert len(every) == 2
    assert every.open("b", NOON).epoch == epoch
    assert every.open("a", NOON).epoch == "00000003"


def test_age_takes_the_entries_and_leaves_the_position() -> None:
    every = histories()
    every.open("a", NOON)
    every.append("a", FRAME, NOON)
    position = every["a"].position
    every.release("a")

    every.trim(NOON + timedelta(minutes=6))

    assert every.size == 0
    assert every.open("a", NOON).since(position) == []


# --- presence -------------------------------------------------------------------------------------------


def test_a_lease_that_is_not_renewed_lapses() -> None:
    presence = Presence(lease=timedelta(seconds=60), max_document_size=1000)
    presence.announce("d", ALICE, "first", b'{"a":1}', NOON)
    presence.announce("d", BOB, "second", b'{"b":2}', NOON)

    presence.renew("d", BOB, "second", NOON + timedelta(seconds=30))
    presence.renew("d", ALICE, "unknown", NOON + timedelta(seconds=30))
    gone = presence.lapse(NOON + timedelta(seconds=60))

    assert gone == [("d", b'{"a":1}')]
    assert [bytes(shown) for shown in presence.here("d")] == [b'{"b":2}']


def test_the_room_of_who_left_is_free_again() -> None:
    presence = Presence(lease=timedelta(seconds=60), max_document_size=10)
    presence.announce("d", ALICE, "first", b"x" * 10, NOON)

    full = presence.announce("d", BOB, "second", b"x", NOON)
    presence.leave("d", ALICE, "first")

    assert full is False
    assert presence.announce("d", BOB, "second", b"x" * 10, NOON)
    assert presence.announce("d", BOB, "second", b"y" * 10, NOON)
    assert presence.leave("d", ALICE, "first") is False
    assert len(presence) == 1


def test_nothing_is_kept_of_a_document_that_was_full() -> None:
    presence = Presence(lease=timedelta(seconds=60), max_document_size=10)

    presence.announce("d", ALICE, "first", b"x" * 11, NOON)

    assert len(presence) == 0
    assert presence.here("d") == []


# --- registry -------------------------------------------------------------------------------------------


def test_connections_are_found_by_session_and_by_user() -> None:
    sessions = FakeSessions(HandClock())
    (first, _), (second, _), (other, _) = sessions.issue(), sessions.issue(), sessions.issue("bob")
    registry: Registry[str] = Registry()
    registry.enter("a", first)
    registry.enter("b", first)
    registry.enter("c", second)
    registry.enter("d", other)

    registry.leave("a", first)

    assert list(registry.of_session(first.id)) == ["b"]
    assert list(registry.of_user("alice")) == ["b", "c"]
    assert list(registry) == ["b", "c", "d"]
    assert (len(registry), registry.sessions) == (3, 3)
    registry.leave("b", first)
    assert list(registry.of_session(first.id)) == []
    assert list(registry.of_user("alice")) == ["c"]


class Timed:
    due_at: datetime | None = None


def test_the_earliest_deadline_of_each_counts() -> None:
    deadlines: Deadlines[Timed] = Deadlines()
    first, second = Timed(), Timed()
    deadlines.set(first, NOON + timedelta(seconds=10))
    deadlines.set(first, NOON + timedelta(seconds=5))
    deadlines.set(first, NOON + timedelta(seconds=7))
    deadlines.set(second, NOON + timedelta(seconds=6))

    assert deadlines.pop_due(NOON + timedelta(seconds=5)) == [first]
    assert deadlines.pop_due(NOON + timedelta(seconds=20)) == [second]


def test_what_is_cancelled_is_not_due_and_does_not_stay_in_memory() -> None:
    deadlines: Deadlines[Timed] = Deadlines()
    kept = Timed()
    deadlines.set(kept, NOON + timedelta(hours=1))

    for _ in range(10_000):
        passing = Timed()
        deadlines.set(passing, NOON + timedelta(hours=24))
        deadlines.cancel(passing)
        deadlines.cancel(passing)

    assert len(deadlines) < 500
    assert deadlines.pop_due(NOON + timedelta(hours=48)) == [kept]
