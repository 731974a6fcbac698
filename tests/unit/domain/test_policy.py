"""Who must go when there are too many."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from roomkey.domain.policy import PRESETS, OnCap, SessionPolicy, victims
from roomkey.domain.session import Session, SessionId
from roomkey.errors import CapReached
from tests.support.sessions import NOON, pending


def sessions(*ages: int) -> list[Session]:
    return [replace(pending(NOON - timedelta(minutes=age)), id=SessionId(f"3a{age}")) for age in ages]


def test_nobody_goes_while_there_is_room() -> None:
    assert victims(sessions(1, 2), 1, SessionPolicy(cap=3)) == []


def test_the_oldest_make_room() -> None:
    assert victims(sessions(2, 9, 5), 2, SessionPolicy(cap=3)) == ["3a9", "3a5"]


def test_the_newcomer_is_refused_when_the_policy_says_so() -> None:
    with pytest.raises(CapReached):
        victims(sessions(1, 2), 1, SessionPolicy(cap=2, on_cap=OnCap.REFUSE))


def test_more_at_once_than_the_cap_are_refused() -> None:
    with pytest.raises(CapReached):
        victims([], 3, SessionPolicy(cap=2))


def test_the_presets_have_the_figures_of_the_standard() -> None:
    figures = {name: (policy.lifetime, policy.idle_timeout) for name, policy in PRESETS.items()}

    assert figures["aal1"] == (timedelta(days=30), None)
    assert figures["aal2"] == (timedelta(hours=24), timedelta(hours=1))
    assert figures["aal3"] == (timedelta(hours=12), timedelta(minutes=15))
    assert figures["default"] == (timedelta(hours=24), timedelta(hours=1))
