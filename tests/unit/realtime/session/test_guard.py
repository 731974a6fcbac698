"""The doubts of a guard, as a table."""

from datetime import timedelta
from typing import Any

import pytest

from roomkey.domain.session import Extended, Session
from roomkey.realtime.protocol.json_messages import ErrorCode, Fault
from roomkey.realtime.session.effects import Authenticate, Close, Verify
from roomkey.realtime.session.guard import NEXT_TRUST, SessionGuard, Signal, Trust
from roomkey.realtime.session.limits import LimitsOfSessions
from roomkey.realtime.settings import RealtimeSettings
from roomkey.testing.clock import ManualClock
from tests.support.sockets import NOON, FakeSessions

ALL = set(Signal)
QUESTIONS_OUT = {Trust.CHECKING, Trust.DOUBTING, Trust.OVERTAKEN}


def guard(**settings: Any) -> SessionGuard:
    session, _ = FakeSessions(ManualClock(NOON)).issue()
    configured = RealtimeSettings(**settings)
    return SessionGuard(session, LimitsOfSessions(configured).open(session.id), settings=configured, now=NOON)


def later(session: Session, versions: int) -> Extended:
    """An event that lies so many versions ahead."""
    version = session.version + versions
    return Extended(
        session=session.id, user=session.user_id, version=version, at=NOON, expires_at=NOON + timedelta(days=2)
    )


def test_the_table_says_what_follows_every_signal_that_can_come() -> None:
    for trust in Trust:
        answers = {Signal.ANSWERED, Signal.UNANSWERED} if trust in QUESTIONS_OUT | {Trust.OVER} else set[Signal]()
        assert set(NEXT_TRUST[trust]) == {Signal.CHECK, Signal.DOUBT} | answers


def test_a_doubt_is_only_removed_by_an_answer_to_a_question_that_is_younger() -> None:
    for trust in (Trust.CERTAIN, Trust.CHECKING, Trust.DOUBTING, Trust.OVERTAKEN):
        doubted = NEXT_TRUST[trust][Signal.DOUBT]
        assert doubted in {Trust.DOUBTING, Trust.OVERTAKEN}
        if trust in QUESTIONS_OUT:
            assert NEXT_TRUST[doubted][Signal.ANSWERED] is Trust.DOUBTING


def test_nothing_passes_while_there_is_doubt_and_everything_after_the_answer() -> None:
    watched = guard()

    asked = watched.happened(later(watched.session, 2), NOON)
    held = watched.admit(b"waits", NOON)
    answered = watched.verified(watched.session, NOON)

    assert [type(effect) for effect in asked] == [Verify]
    assert held == ()
    assert not any(isinstance(effect, Verify | Close) for effect in answered)
    assert watched.can_resume
    assert watched.resume() == b"waits"
    assert watched.admit(b"passes", NOON) is None


def test_a_doubt_that_is_younger_than_the_question_is_asked_about_again() -> None:
    watched = guard()
    watched.happened(later(watched.session, 2), NOON)

    silent = watched.happened(later(watched.session, 3), NOON)
    again = watched.verified(watched.session, NOON)

    assert silent == ()
    assert [type(effect) for effect in again] == [Verify]
    assert watched.admit(b"waits", NOON) == ()


def test_nothing_passes_while_a_doubt_is_younger_than_the_question() -> None:
    watched = guard()
    watched.doubt()

    watched.doubt()
    held = watched.admit(b"waits", NOON)

    assert held == ()
    assert not watched.can_resume


def test_messages_pass_while_storage_is_asked_without_a_reason_to_doubt() -> None:
    watched = guard()

    asked = watched.due(watched.deadline.next_check())

    assert [type(effect) for effect in asked] == [Verify]
    assert watched.admit(b"passes", NOON) is None


@pytest.mark.parametrize("doubts", [0, 1, 2])
def test_without_an_answer_only_a_session_that_is_not_in_doubt_goes_on(doubts: int) -> None:
    watched = guard()
    for _ in range(doubts):
        watched.doubt()
    if not doubts:
        watched.due(watched.deadline.next_check())

    watched.unverified(NOON)

    assert watched.is_over is bool(doubts)


def test_a_message_that_is_being_carried_out_lets_the_next_ones_wait() -> None:
    watched = guard()
    watched.pause()

    held = watched.admit(b"waits", NOON)
    waiting = watched.can_resume
    watched.unpause()

    assert (held, waiting, watched.can_resume) == ((), False, True)


def test_what_waits_is_bounded() -> None:
    watched = guard(max_held_messages=3)
    watched.pause()

    effects = [watched.admit(b"waits", NOON) for _ in range(4)]

    assert effects[:3] == [(), (), ()]
    assert [type(effect) for effect in effects[3] or ()] == [Close]
    assert watched.is_over


def test_what_waits_is_bounded_in_bytes_and_what_was_resumed_does_not_count() -> None:
    watched = guard(max_held_bytes=10)
    watched.pause()
    watched.admit(b"12345678", NOON)
    watched.unpause()
    watched.resume()
    watched.pause()

    fits = watched.admit(b"1234567890", NOON)
    exceeds = watched.admit(b"1", NOON)

    assert fits == ()
    assert [type(effect) for effect in exceeds or ()] == [Close]


def test_what_waits_goes_on_only_when_a_new_token_is_known_and_the_connection_is_not_over() -> None:
    watched = guard()
    watched.refresh(Authenticate(None, "token"))
    watched.admit(b"waits", NOON)

    while_refreshing = watched.can_resume
    watched.not_refreshed(Fault(ErrorCode.UNAUTHORIZED, "no"), NOON)
    afterwards = watched.can_resume
    watched.gone()

    assert (while_refreshing, afterwards, watched.can_resume) == (False, True, False)


def test_a_session_that_storage_still_calls_active_is_over_when_its_time_is() -> None:
    watched = guard()
    watched.doubt()

    effects = watched.verified(watched.session, watched.session.expires_at)

    assert [(effect.reason, watched.is_over) for effect in effects if isinstance(effect, Close)] == [
        ("session_expired", True)
    ]


def test_a_notice_that_is_due_does_not_take_an_older_answer_for_an_answer_to_a_younger_doubt() -> None:
    watched = guard()
    watched.doubt()
    watched.doubt()

    notice = watched.due(watched.deadline.next_check())
    again = watched.verified(watched.session, NOON)

    assert notice == ()
    assert [type(effect) for effect in again] == [Verify]
