"""Whatever sessions a user has: never more than the cap, and whoever goes is older than whoever stays."""

from collections.abc import Sequence
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from roomkey.domain.lifecycle import deadline
from roomkey.domain.policy import OnCap, SessionPolicy, evictions
from roomkey.domain.session import Session, SessionId, SessionState
from roomkey.errors import CapReached
from tests.support.sessions import NOON, pending

LIVE = (SessionState.PENDING, SessionState.ACTIVE, SessionState.SUSPENDED)


@st.composite
def live_sessions(draw: st.DrawFn) -> list[Session]:
    """Live sessions of a user in any order, some of the same moment, some overdue at noon."""
    ages = draw(st.lists(st.integers(0, 12), max_size=12))
    sessions = [
        replace(
            pending(NOON - timedelta(hours=age / 10), lifetime=timedelta(hours=draw(st.sampled_from([1, 24])))),
            id=SessionId(f"3a{number:02}"),
            state=draw(st.sampled_from(LIVE)),
        )
        for number, age in enumerate(ages)
    ]
    return draw(st.permutations(sessions))


def counting(sessions: Sequence[Session]) -> list[Session]:
    """Those that are not overdue, in the order of their issue."""
    known = [session for session in sessions if (due := deadline(session)) and due > NOON]
    return sorted(known, key=lambda session: (session.created_at, session.id))


@given(live_sessions(), st.integers(1, 4), st.integers(1, 6))
def test_the_oldest_make_room_and_no_more_than_are_needed(live: list[Session], newcomers: int, cap: int) -> None:
    policy = SessionPolicy(cap=cap)
    before = counting(live)

    try:
        evicted = [event.session for event in evictions(live, newcomers, policy, NOON)]
    except CapReached:
        assert newcomers > cap
        return

    after = [session for session in before if session.id not in evicted]
    assert len(after) + newcomers == min(cap, len(before) + newcomers)
    assert [session.id for session in before] == evicted + [session.id for session in after]


@given(live_sessions(), st.integers(1, 4), st.integers(1, 6))
def test_a_refusing_policy_lets_in_what_fits_and_evicts_nobody(live: list[Session], newcomers: int, cap: int) -> None:
    policy = SessionPolicy(cap=cap, on_cap=OnCap.REFUSE)

    try:
        evicted = evictions(live, newcomers, policy, NOON)
    except CapReached:
        assert len(counting(live)) + newcomers > cap
    else:
        assert evicted == []
        assert len(counting(live)) + newcomers <= cap
