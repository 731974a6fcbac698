"""Ids, limits, histories, presence and the registry: what is remembered, and that it is bounded."""

from datetime import datetime, timedelta
from itertools import count

import pytest

from roomkey.domain.session import SessionId
from roomkey.errors import Conflict
from roomkey.ports import MessageKey, Position, Publication
from roomkey.realtime.connections import Deadlines, Registry
from roomkey.realtime.rooms.deduplication import Deduplication, DeduplicationLimits
from roomkey.realtime.rooms.history import Histories, History, Window
from roomkey.realtime.rooms.presence import Presence
from roomkey.realtime.session.limits import LimitsOfSessions
from roomkey.realtime.settings import RealtimeSettings
from roomkey.testing.clock import ManualClock
from tests.support.sockets import NOON, FakeSessions

ALICE, BOB = SessionId("alice"), SessionId("bob")
MESSAGE = b"{}"
WINDOW = Window(publications=5, age=timedelta(minutes=5), size=100_000)


# --- ids ------------------------------------------------------------------------------------------------


def ids(*, per_sender: int = 10_000, of_all: int = 100_000, senders: int = 1_000) -> Deduplication:
    return Deduplication(
        DeduplicationLimits(window=timedelta(minutes=2), ids_per_sender=per_sender, ids=of_all, senders=senders)
    )


def key(id: object, sender: object = ALICE, content: int = 1) -> MessageKey:
    return MessageKey(str(sender), str(id), content)


def position_of(published: Deduplication, id: object, sender: object = ALICE, at: datetime = NOON) -> int | None:
    seen = published.find(key(id, sender), at)
    return None if seen is None or seen.position is None else seen.position.offset


def test_ids_of_one_session_are_bounded() -> None:
    published = ids(per_sender=100)

    for number in range(1000):
        published.remember(key(number), Position("abcdefgh", number), NOON)

    assert position_of(published, 899) is None
    assert position_of(published, 900) == 900


def test_ids_of_all_sessions_are_bounded_and_nobody_loses_its_latest() -> None:
    published = ids(of_all=1000)
    published.remember(key("of bob", BOB), Position("abcdefgh", 1), NOON)

    for session in range(100):
        for number in range(100):
            published.remember(key(number, session), Position("abcdefgh", number), NOON)

    assert len(published) <= 1000 + 100 * 64
    assert position_of(published, "of bob", BOB) == 1


def test_sessions_whose_ids_are_remembered_are_bounded_and_those_that_fell_silent_first_go_first() -> None:
    published = ids(senders=10)
    at = NOON

    for session in range(100):
        at = NOON + session * timedelta(seconds=10)
        published.remember(key("x", session), Position("abcdefgh", session), at)
        if session:
            published.remember(key(f"y{session}", 0), Position("abcdefgh", session), at)

    assert len(published) <= 10 + 100
    assert position_of(published, "y99", 0, at) == 99
    assert position_of(published, "x", 80, at) is None
    assert position_of(published, "x", 99, at) == 99


def test_an_id_may_be_used_again_when_its_time_is_over_and_is_swept_away() -> None:
    published = ids()
    published.remember(key("x"), Position("abcdefgh", 1), NOON)

    in_time = position_of(published, "x", at=NOON + timedelta(minutes=2))
    late = position_of(published, "x", at=NOON + timedelta(minutes=2, seconds=1))
    published.sweep(NOON + timedelta(minutes=3))

    assert (in_time, late, len(published)) == (1, None, 0)


def test_an_id_that_was_used_for_something_else_is_a_conflict() -> None:
    published = ids()
    published.remember(key("x"), Position("abcdefgh", 1), NOON)

    with pytest.raises(Conflict):
        published.find(key("x", content=2), NOON)


# --- limits ---------------------------------------------------------------------------------------------


def test_limits_that_are_as_good_as_new_are_swept_away() -> None:
    limits = LimitsOfSessions(RealtimeSettings())
    limits.open(ALICE)
    limits.release(ALICE)

    before = len(limits)
    limits.sweep(NOON.timestamp())

    assert (before, len(limits)) == (1, 0)


def test_a_spent_budget_is_not_swept_away() -> None:
    limits = LimitsOfSessions(RealtimeSettings())
    limits.open(ALICE).messages.take(400, NOON.timestamp())
    limits.release(ALICE)

    limits.sweep(NOON.timestamp())

    assert len(limits) == 1


def test_limits_without_connections_are_bounded() -> None:
    limits = LimitsOfSessions(RealtimeSettings(max_connections=10))

    for number in range(100):
        limits.open(SessionId(str(number)))
        limits.release(SessionId(str(number)))

    assert len(limits) == 10


# --- histories ------------------------------------------------------------------------------------------


def histories(*, max_size: int = 1_000_000, max_idle: int = 100, window: Window = WINDOW) -> Histories:
    epochs = count()
    return Histories(window, max_size=max_size, max_idle=max_idle, new_epoch=lambda: f"{next(epochs):08d}")


def filled(publications: int, window: Window = WINDOW) -> History:
    history = History("abcdefgh", window)
    for _ in range(publications):
        history.append(MESSAGE, "c1", NOON)
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

    history.append(MESSAGE, "c1", NOON + timedelta(minutes=5, seconds=1))

    assert history.since(Position("abcdefgh", 2)) is None
    assert history.since(Position("abcdefgh", 3)) == [Publication(MESSAGE, "c1", Position("abcdefgh", 4))]


def test_all_histories_together_are_bounded_and_those_in_use_stay_longest() -> None:
    every = histories(max_size=10_000)
    every.open("idle", NOON)
    every.append("idle", MESSAGE, "c1", NOON)
    epoch = every["idle"].epoch
    every.release("idle")
    every.open("busy", NOON)

    for number in range(20):
        every.open(f"d{number}", NOON)
        for _ in range(5):
            every.append(f"d{number}", MESSAGE, "c1", NOON)

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
    every.append("a", MESSAGE, "c1", NOON)
    position = every["a"].position
    every.release("a")

    every.trim(NOON + timedelta(minutes=6))

    assert every.size == 0
    assert every.open("a", NOON).since(position) == []


# --- presence -------------------------------------------------------------------------------------------


def test_a_lease_that_is_not_renewed_lapses() -> None:
    presence = Presence(lease=timedelta(seconds=60), max_size=1000)
    presence.announce(ALICE, "first", b'{"a":1}', NOON)
    presence.announce(BOB, "second", b'{"b":2}', NOON)

    presence.renew(BOB, "second", NOON + timedelta(seconds=30))
    presence.renew(ALICE, "unknown", NOON + timedelta(seconds=30))
    gone = presence.lapse(NOON + timedelta(seconds=60))

    assert gone == [b'{"a":1}']
    assert [bytes(shown) for shown in presence.here()] == [b'{"b":2}']


def test_the_room_of_who_left_is_free_again() -> None:
    presence = Presence(lease=timedelta(seconds=60), max_size=10)
    presence.announce(ALICE, "first", b"x" * 10, NOON)

    full = presence.announce(BOB, "second", b"x", NOON)
    presence.leave(ALICE, "first")

    assert full is False
    assert presence.announce(BOB, "second", b"x" * 10, NOON)
    assert presence.announce(BOB, "second", b"y" * 10, NOON)
    assert presence.leave(ALICE, "first") is False
    assert len(presence) == 1


def test_nothing_is_kept_of_a_document_that_was_full() -> None:
    presence = Presence(lease=timedelta(seconds=60), max_size=10)

    presence.announce(ALICE, "first", b"x" * 11, NOON)

    assert len(presence) == 0
    assert presence.here() == []


# --- registry -------------------------------------------------------------------------------------------


def test_connections_are_found_by_session_and_by_user() -> None:
    sessions = FakeSessions(ManualClock(NOON))
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
