"""Who must go when there are too many."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from roomkey.domain.lifecycle import apply
from roomkey.domain.policy import PRESETS, OnCap, SessionPolicy, evictions
from roomkey.domain.session import Evicted, Invalidated, Session, SessionId
from roomkey.errors import CapReached
from tests.support.sessions import NOON, pending


def sessions(*ages: int) -> list[Session]:
    """Sessions of this many minutes, with their age for an id."""
    return [replace(pending(NOON - timedelta(minutes=age)), id=SessionId(f"3a{age}")) for age in ages]


def evicted(live: list[Session], newcomers: int, policy: SessionPolicy) -> list[SessionId]:
    return [event.session for event in evictions(live, newcomers, policy, NOON)]


def test_nobody_goes_while_there_is_room() -> None:
    assert evicted(sessions(1, 2), 1, SessionPolicy(cap=3)) == []


def test_the_oldest_make_room() -> None:
    assert evicted(sessions(2, 9, 5), 2, SessionPolicy(cap=3)) == ["3a9", "3a5"]


def test_of_those_issued_at_the_same_moment_the_smaller_id_goes() -> None:
    twins = [replace(pending(), id=SessionId(id)) for id in ("3ac", "3aa", "3ab")]

    assert evicted(twins, 2, SessionPolicy(cap=3)) == ["3aa", "3ab"]


def test_what_is_overdue_neither_counts_nor_goes() -> None:
    overdue = sessions(10)  # pending sessions have ten minutes

    assert evicted([*overdue, *sessions(2, 3)], 1, SessionPolicy(cap=3)) == []
    assert evicted([*overdue, *sessions(2, 3)], 1, SessionPolicy(cap=2)) == ["3a3"]


def test_what_has_ended_neither_counts_nor_goes() -> None:
    (session,) = sessions(5)
    ended = apply(session, Invalidated(session=session.id, user="alice", version=2, at=NOON))

    assert evicted([ended, *sessions(2)], 1, SessionPolicy(cap=1)) == ["3a2"]


def test_an_eviction_is_the_next_event_of_its_session() -> None:
    (session,) = sessions(5)

    (event,) = evictions([session], 1, SessionPolicy(cap=1), NOON)

    assert event == Evicted(session=session.id, user="alice", version=2, at=NOON, reason="cap")
    assert not apply(session, event).state.is_live


def test_the_newcomer_is_refused_when_the_policy_says_so() -> None:
    with pytest.raises(CapReached):
        evicted(sessions(1, 2), 1, SessionPolicy(cap=2, on_cap=OnCap.REFUSE))


def test_more_at_once_than_the_cap_are_refused() -> None:
    with pytest.raises(CapReached):
        evicted([], 3, SessionPolicy(cap=2))


def test_the_presets_have_the_figures_of_the_standard() -> None:
    figures = {name: (policy.lifetime, policy.idle_timeout) for name, policy in PRESETS.items()}

    assert figures["aal1"] == (timedelta(days=30), None)
    assert figures["aal2"] == (timedelta(hours=24), timedelta(hours=1))
    assert figures["aal3"] == (timedelta(hours=12), timedelta(minutes=15))
    assert figures["default"] == (timedelta(hours=24), timedelta(hours=1))
