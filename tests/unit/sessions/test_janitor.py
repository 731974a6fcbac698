"""Chores: what is overdue ends, what is old goes."""

from datetime import timedelta

import pytest

from roomkey.backends.memory.leases import MemoryLeases
from roomkey.domain.session import Session, SessionFilter, SessionState
from roomkey.errors import LeaseLost
from roomkey.leasing import LIFETIME, Chore
from roomkey.sessions.janitor import Janitor
from roomkey.sessions.settings import JanitorSettings
from tests.support.sessions import NOON, Desk

MINUTE = timedelta(minutes=1)


async def test_sessions_that_nobody_reads_expire_oldest_first() -> None:
    desk = Desk()
    sessions: list[Session] = []
    for name in "abc":
        sessions.append(await desk.active(name))
        desk.clock.advance(MINUTE)
    desk.announced.clear()
    desk.clock.advance(timedelta(hours=1))

    done = await Janitor(desk.sessions, JanitorSettings(batch=2)).sweep()

    assert done.expired == 3
    assert [event.session for event in desk.announced] == [session.id for session in sessions]
    assert await desk.sessions.count_sessions(SessionFilter(state=SessionState.EXPIRED)) == 3


async def test_the_lag_is_how_long_the_most_overdue_one_has_waited() -> None:
    desk = Desk()
    await desk.active()
    desk.clock.advance(timedelta(hours=1) + 7 * MINUTE)
    janitor = Janitor(desk.sessions)

    first, second = await janitor.sweep(), await janitor.sweep()

    assert (first.lag, second.lag) == (7 * MINUTE, timedelta())


async def test_a_session_in_use_is_left_alone() -> None:
    desk = Desk()
    session = await desk.active()
    desk.clock.advance(50 * MINUTE)
    await desk.sessions.touch(session.id)
    desk.clock.advance(50 * MINUTE)

    done = await Janitor(desk.sessions).sweep()

    assert done.expired == 0
    assert await desk.sessions.validate_session(session.id)


async def test_what_ended_long_ago_is_deleted_and_later_forgotten() -> None:
    desk = Desk()
    session = await desk.active()
    await desk.sessions.invalidate_session(session.id)
    janitor = Janitor(desk.sessions)

    desk.clock.advance(timedelta(days=7))
    early = await janitor.sweep()
    desk.clock.advance(timedelta(microseconds=1))
    late = await janitor.sweep()
    desk.clock.advance(timedelta(days=91))
    last = await janitor.sweep()

    assert (early.deleted, late.deleted, last.forgotten_events) == (0, 1, 4)
    assert await desk.sessions.get_session(session.id) is None
    assert desk.clock.now() > NOON


async def test_a_session_that_was_resumed_is_found_at_its_new_and_earlier_deadline() -> None:
    desk = Desk()
    session = await desk.active()
    await desk.sessions.suspend_session(session.id)
    desk.clock.advance(timedelta(hours=2))
    janitor = Janitor(desk.sessions)
    await janitor.sweep()
    await desk.sessions.resume_session(session.id)
    desk.clock.advance(timedelta(hours=1))

    done = await janitor.sweep()

    assert done.expired == 1


async def test_of_the_janitors_of_two_nodes_one_sweeps_and_the_other_when_that_is_dead() -> None:
    desk = Desk()
    leases = MemoryLeases(desk.clock)
    one, other = (Janitor(desk.sessions, chore=Chore(leases, "janitor", name, keeps=True)) for name in ("one", "other"))

    turns = [await janitor.take_turn() is not None for janitor in (one, other, one, other)]
    desk.clock.advance(LIFETIME)
    after_death = await other.take_turn()

    assert turns == [True, False, True, False]
    assert after_death is not None


async def test_a_janitor_that_was_asleep_while_another_took_over_forgets_no_events() -> None:
    desk = Desk()
    await desk.active()
    desk.clock.advance(timedelta(days=100))
    leases = MemoryLeases(desk.clock)
    asleep = await leases.acquire("janitor", "one", LIFETIME)
    desk.clock.advance(LIFETIME)
    await Janitor(desk.sessions, chore=Chore(leases, "janitor", "other")).take_turn()

    with pytest.raises(LeaseLost):
        await Janitor(desk.sessions).sweep(asleep)
