"""What can happen to a session, and when its time is over."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from roomkey import errors
from roomkey.domain.access import Access, Grant
from roomkey.domain.lifecycle import (
    NEXT_STATE,
    OnIdle,
    apply,
    check_usable,
    deadline,
    diagram,
    holds,
    is_active,
    overdue,
    replay,
)
from roomkey.domain.session import (
    Activated,
    Deleted,
    Event,
    Evicted,
    Expired,
    Extended,
    GrantsChanged,
    Invalidated,
    Resumed,
    Session,
    SessionEvent,
    SessionState,
    Suspended,
    TokenRotated,
    ViolationRecorded,
)
from roomkey.errors import InvalidState
from tests.support.sessions import NOON, created, pending

FACTS: list[type[SessionEvent]] = [
    Activated,
    Suspended,
    Resumed,
    Extended,
    GrantsChanged,
    TokenRotated,
    Expired,
    Invalidated,
    Evicted,
    ViolationRecorded,
]
HOUR = timedelta(hours=1)
READER = (Grant("notes/**", Access.READ),)


def fact(kind: type[SessionEvent], session: Session) -> SessionEvent:
    details: dict[type[SessionEvent], dict[str, Any]] = {
        Extended: {"expires_at": session.expires_at + HOUR},
        GrantsChanged: {"grants": READER},
    }
    return kind(session=session.id, user=session.user_id, version=session.version + 1, at=NOON, **details.get(kind, {}))


def in_state(state: SessionState) -> Session:
    return replace(pending(), state=state)


EXPECTED = {
    ("pending", "activated"): "active",
    ("pending", "expired"): "expired",
    ("pending", "invalidated"): "invalidated",
    ("pending", "evicted"): "invalidated",
    ("active", "suspended"): "suspended",
    ("active", "expired"): "expired",
    ("active", "invalidated"): "invalidated",
    ("active", "evicted"): "invalidated",
    ("suspended", "resumed"): "active",
    ("suspended", "expired"): "expired",
    ("suspended", "invalidated"): "invalidated",
    ("suspended", "evicted"): "invalidated",
    ("expired", "invalidated"): "invalidated",
    **{
        (state, kept): state
        for state in ("pending", "active", "suspended")
        for kept in ("extended", "grants_changed", "token_rotated", "violation_recorded")
    },
}


@pytest.mark.parametrize("kind", FACTS)
@pytest.mark.parametrize("state", SessionState)
def test_a_session_moves_exactly_as_the_specification_draws_it(state: SessionState, kind: type[SessionEvent]) -> None:
    session = in_state(state)
    expected = EXPECTED.get((state.value, kind.tag()))

    if expected is None:
        with pytest.raises(InvalidState, match=f"that is {state}"):
            apply(session, fact(kind, session))
    else:
        after = apply(session, fact(kind, session))
        assert (after.state, after.version) == (expected, session.version + 1)


def test_nothing_leaves_invalidated() -> None:
    assert not NEXT_STATE[SessionState.INVALIDATED]


def test_an_illegal_transition_names_both_states() -> None:
    session = in_state(SessionState.INVALIDATED)

    with pytest.raises(InvalidState, match=r"invalidated cannot become active"):
        apply(session, fact(Activated, session))


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        (Activated, "active"),
        (Suspended, "suspended"),
        (Resumed, "active"),
        (Expired, "expired"),
        (Invalidated, "invalidated"),
    ],
)
def test_what_already_holds_is_recognised(kind: type[Event], state: str) -> None:
    holding = {each for each in SessionState if holds(in_state(each), kind)}

    assert holding == {SessionState(state)}


@pytest.mark.parametrize(
    ("state", "refusal"),
    [
        ("pending", errors.SessionPending),
        ("suspended", errors.Suspended),
        ("expired", errors.Expired),
        ("invalidated", errors.Invalidated),
    ],
)
def test_only_an_active_session_is_usable_and_every_other_is_refused_by_its_state(
    state: str, refusal: type[errors.RoomkeyError]
) -> None:
    check_usable(in_state(SessionState.ACTIVE))

    with pytest.raises(refusal):
        check_usable(in_state(SessionState(state)))


def test_a_pending_session_is_usable_where_that_is_said() -> None:
    check_usable(in_state(SessionState.PENDING), even_pending=True)

    with pytest.raises(errors.Suspended):
        check_usable(in_state(SessionState.SUSPENDED), even_pending=True)


def test_a_pending_session_must_be_activated_in_time() -> None:
    session = pending()

    assert overdue(session, NOON + timedelta(minutes=10) - timedelta(microseconds=1)) is None
    late = overdue(session, NOON + timedelta(minutes=10))

    assert isinstance(late, Expired)
    assert late.reason == "not_activated"


def test_an_active_session_ends_by_idleness_or_by_age_whichever_is_first() -> None:
    session = apply(pending(), fact(Activated, pending()))
    busy = replace(session, last_seen_at=NOON + timedelta(hours=23, minutes=30))

    idle = overdue(session, NOON + HOUR)
    old = overdue(busy, NOON + timedelta(hours=24))

    assert overdue(session, NOON + HOUR - timedelta(microseconds=1)) is None
    assert overdue(busy, NOON + timedelta(hours=24) - timedelta(microseconds=1)) is None
    assert idle is not None
    assert old is not None
    assert (idle.reason, old.reason) == ("idle", "lifetime")


def test_a_suspended_session_does_not_idle_but_ages() -> None:
    session = in_state(SessionState.SUSPENDED)

    assert overdue(session, NOON + timedelta(hours=23)) is None
    assert isinstance(overdue(session, NOON + timedelta(hours=24)), Expired)


def test_idleness_suspends_when_the_policy_says_so_but_age_still_expires() -> None:
    session = in_state(SessionState.ACTIVE)

    assert isinstance(overdue(session, NOON + HOUR, OnIdle.SUSPEND), Suspended)
    assert isinstance(overdue(session, NOON + timedelta(hours=24), OnIdle.SUSPEND), Expired)


def test_a_session_without_an_idle_limit_lives_until_its_absolute_deadline() -> None:
    session = replace(in_state(SessionState.ACTIVE), idle_timeout=None)

    assert deadline(session) == session.expires_at


@pytest.mark.parametrize("state", ["expired", "invalidated"])
def test_what_has_ended_is_never_overdue(state: str) -> None:
    session = in_state(SessionState(state))

    assert deadline(session) is None
    assert overdue(session, NOON + timedelta(days=400)) is None


@pytest.mark.parametrize("idle", [HOUR, None])
@pytest.mark.parametrize("state", SessionState)
def test_exactly_a_session_in_the_state_active_that_is_not_overdue_is_active(
    state: SessionState, idle: timedelta | None
) -> None:
    session = replace(in_state(state), idle_timeout=idle)
    moments = [
        NOON + after + by
        for after in (timedelta(), HOUR, timedelta(hours=24))
        for by in (timedelta(microseconds=-1), timedelta(), timedelta(microseconds=1))
    ]

    answers = [is_active(session, moment) for moment in moments]

    assert answers == [state is SessionState.ACTIVE and overdue(session, moment) is None for moment in moments]
    assert any(answers) == (state is SessionState.ACTIVE)


def test_idle_time_starts_anew_when_a_session_is_resumed() -> None:
    session = in_state(SessionState.SUSPENDED)
    resumed = Resumed(session=session.id, user="alice", version=2, at=NOON + timedelta(hours=5))

    assert apply(session, resumed).last_seen_at == NOON + timedelta(hours=5)


def test_the_reason_for_the_state_of_a_session_stays_with_it_as_long_as_the_state() -> None:
    session = in_state(SessionState.ACTIVE)
    causes: list[str | None] = []

    for kind, cause in ((Suspended, "review"), (TokenRotated, "other"), (Resumed, None), (Invalidated, "spam")):
        session = apply(session, replace(fact(kind, session), reason=cause))
        causes.append(session.reason)

    assert causes == ["review", "review", None, "spam"]


@pytest.mark.parametrize(
    ("state", "kind"), [(SessionState.SUSPENDED, errors.Suspended), (SessionState.INVALIDATED, errors.Invalidated)]
)
def test_who_cannot_use_a_session_is_told_the_reason(
    state: SessionState, kind: type[errors.Suspended | errors.Invalidated]
) -> None:
    with pytest.raises(kind, match=r": spam$") as refused:
        check_usable(replace(in_state(state), reason="spam"))

    assert refused.value.reason == "spam"


def test_changed_grants_take_the_place_of_the_former_ones_and_touch_nothing_else() -> None:
    session = replace(in_state(SessionState.ACTIVE), grants=(Grant("**", Access.ADMIN),))

    after = apply(session, fact(GrantsChanged, session))

    assert after == replace(session, grants=READER, version=session.version + 1)


def test_a_history_with_changed_grants_replays_to_the_latest() -> None:
    first = created()
    changed = fact(GrantsChanged, pending())

    assert replay([first, changed]) == apply(pending(), changed)


def test_a_deleted_history_replays_to_nothing() -> None:
    first = created()
    gone = Deleted(session=first.session, user=first.user, version=2, at=NOON)

    assert replay([first]) == pending()
    assert replay([first, gone]) is None


def test_the_diagram_draws_every_change_of_state() -> None:
    drawn = diagram()

    assert "    active --> suspended: suspended\n" in drawn
    assert drawn.count(" --> ") == 1 + sum(
        after is not before for before, row in NEXT_STATE.items() for after in row.values()
    )
