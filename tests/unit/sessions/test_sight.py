"""How far a node sees: by two sources, of which one is enough, and neither is believed beyond what it can know."""

from datetime import timedelta

import pytest

from roomkey.sessions.sight import Phase, Sight, Step

GRACE = timedelta(seconds=10)


def seen() -> Sight:
    """A node that has read the log at 0, after it began to listen."""
    sight = Sight(0.0, grace=GRACE)
    sight.followed(0.0)
    return sight


@pytest.mark.parametrize(
    ("at", "phase", "steps"),
    [
        (1.9, Phase.SEEING, []),
        (2.0, Phase.BLIND, [Step.LET_NOBODY_IN]),
        (11.9, Phase.BLIND, [Step.LET_NOBODY_IN]),
        (12.0, Phase.SHUT, [Step.LET_NOBODY_IN, Step.CLOSE_SOCKETS]),
    ],
)
def test_without_news_a_node_is_blind_after_two_seconds_and_shut_after_the_grace(
    at: float, phase: Phase, steps: list[Step]
) -> None:
    sight = seen()

    assert list(sight.look(at)) == steps
    assert sight.phase is phase


def test_each_step_is_taken_once_and_seeing_again_everybody_is_verified() -> None:
    sight = seen()
    looks = [list(sight.look(at)) for at in (1, 2, 3, 12, 13)]
    sight.followed(13.5)

    assert looks == [[], [Step.LET_NOBODY_IN], [], [Step.CLOSE_SOCKETS], []]
    assert list(sight.look(14)) == [Step.VERIFY]
    assert list(sight.look(14.5)) == []


def test_without_grace_nobody_stays() -> None:
    sight = Sight(0.0, grace=timedelta())

    assert list(sight.look(2.0)) == [Step.LET_NOBODY_IN, Step.CLOSE_SOCKETS]


def test_what_comes_back_through_the_broker_is_sight_as_of_when_it_was_sent() -> None:
    sight = seen()
    sight.echoed(5.0)

    assert (sight.age(6.0), sight.log_age(6.0)) == (1.0, 6.0)
    assert list(sight.look(6.9)) == []
    assert list(sight.look(7.0)) == [Step.LET_NOBODY_IN]


def test_after_a_gap_the_broker_counts_only_once_the_log_was_read() -> None:
    sight = seen()
    sight.gap(4.0)
    sight.followed(3.9)  # it was asked before the gap ended
    sight.echoed(5.0)
    before = sight.age(5.0)
    sight.followed(4.0)
    sight.echoed(6.0)

    assert (before, sight.age(6.0)) == (pytest.approx(1.1), 0.0)


def test_news_that_come_late_are_not_newer_than_they_were() -> None:
    sight = seen()
    sight.followed(5.0)
    sight.followed(3.0)
    sight.echoed(4.0)
    sight.echoed(2.0)

    assert (sight.log_age(6.0), sight.broker_age(6.0)) == (1.0, 2.0)
