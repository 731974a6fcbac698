"""Whatever sessions do: what counts against them decays, is explained, and does not depend on who tells of it first."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from roomkey.domain.session import SessionId
from roomkey.threats.decay import MAX_STRIKES, Strike, level, remaining, still_needed
from roomkey.threats.ledger import Finding, Ledger, News, fold, risk_of
from roomkey.threats.pace import Pace
from roomkey.threats.patterns import MAX_PATTERN_BYTES, Pattern, Use, encode, learnt, unusual
from roomkey.threats.settings import ThreatSettings
from roomkey.threats.signals import BEARINGS, Sign, Signal, left_of, stronger
from roomkey.threats.verdicts import Verdict, assess
from tests.support.sessions import NOON

MINUTE = timedelta(minutes=1)
A, B = SessionId("3a" + "a" * 26), SessionId("3a" + "b" * 26)
DAY_LATER = NOON + timedelta(days=1)

moments = st.integers(0, 3600).map(lambda seconds: NOON + timedelta(seconds=seconds))
weights = st.sampled_from([1, 2, 4])
signals = st.sampled_from(list(Signal))
signs = st.builds(Sign, moments, st.floats(0.01, 1), st.sampled_from(["here", "there"]))
settings = st.builds(
    ThreatSettings, challenge_score=st.sampled_from([None, 4.0]), invalidate_score=st.sampled_from([None, 8.0])
)


@st.composite
def strikes(draw: st.DrawFn, most: int = 30) -> list[Strike]:
    """Strikes of one session, each with a number of its own, in any order."""
    drawn = draw(st.lists(st.tuples(moments, weights), max_size=most))
    numbered = [Strike(at, number, weight, "malformed") for number, (at, weight) in enumerate(drawn, 1)]
    return draw(st.permutations(numbered))


@given(strikes(), st.lists(moments, min_size=2, max_size=6))
def test_without_new_violations_the_level_never_rises(found: list[Strike], times: list[datetime]) -> None:
    after = [max((strike.at for strike in found), default=NOON) + (at - NOON) for at in sorted(times)]

    levels = [level(found, at, MINUTE) for at in after]

    assert all(later <= earlier for earlier, later in pairwise(levels))


@given(strikes(), moments)
def test_one_violation_is_forgiven_per_interval_and_not_sooner(found: list[Strike], now: datetime) -> None:
    latest = max((strike.at for strike in found), default=now)
    at = max(now, latest)

    before, after = level(found, at, MINUTE), level(found, at + MINUTE, MINUTE)

    assert after == max(0, before - 1)


@given(strikes(), moments, st.data())
def test_the_order_in_which_violations_are_told_makes_no_difference(
    found: list[Strike], now: datetime, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(found))

    assert remaining(found, now, MINUTE) == remaining(shuffled, now, MINUTE)


@given(strikes(), moments, weights)
def test_one_more_violation_never_lowers_the_level(found: list[Strike], now: datetime, weight: int) -> None:
    more = [*found, Strike(now, 1000, weight, "forged")]

    assert level(more, now, MINUTE) >= level(found, now, MINUTE)


@given(strikes(most=120), moments, moments)
def test_forgetting_what_is_not_needed_changes_no_level_later(
    found: list[Strike], now: datetime, later: datetime
) -> None:
    now = max((now, *(strike.at for strike in found)))
    later = max(now, later)

    kept = still_needed(found, now, MINUTE)

    assert len(kept) <= MAX_STRIKES
    assert level(kept, later, MINUTE) == level(found, later, MINUTE)


@given(signals, signs, signs, signs, moments)
def test_signs_that_are_told_in_any_order_or_twice_leave_the_same(
    signal: Signal, one: Sign, other: Sign, third: Sign, now: datetime
) -> None:
    later = now + timedelta(hours=1)
    together = stronger(signal, stronger(signal, one, other), third)

    assert stronger(signal, one, other) == stronger(signal, other, one)
    assert stronger(signal, one, one) == one
    assert left_of(signal, together, later) == pytest.approx(
        left_of(signal, stronger(signal, one, stronger(signal, other, third)), later)
    )
    assert left_of(signal, together, later) >= left_of(signal, one, later) * (1 - 1e-9)


@given(st.dictionaries(signals, signs), strikes(), moments, settings)
def test_a_score_is_bounded_explained_and_has_a_cause(
    found: Mapping[Signal, Sign], struck: list[Strike], now: datetime, rules: ThreatSettings
) -> None:
    risk = assess(struck, found, now, rules)

    assert 0 <= risk.score <= sum(bearing.weight for bearing in BEARINGS.values())
    assert risk.score == sum(each.contribution for each in risk.signals)
    assert risk.level == sum(each.left for each in risk.strikes)
    assert all(0 < each.contribution <= each.weight for each in risk.signals)
    assert (risk.verdict is Verdict.ALLOW) == (not risk.causes)
    assert risk.since == min(
        [each.at for each in risk.signals] + [each.strike.at for each in risk.strikes], default=None
    )


@given(st.dictionaries(signals, signs), moments, st.lists(moments, max_size=4))
def test_without_new_signs_a_score_never_rises(
    found: Mapping[Signal, Sign], now: datetime, times: list[datetime]
) -> None:
    scores = [assess((), found, at, ThreatSettings()).score for at in sorted([now, *times])]

    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(scores))


fresh = st.builds(Sign, st.just(NOON), st.floats(0.01, 1), st.just(""))


@st.composite
def news_of(draw: st.DrawFn) -> dict[SessionId, News]:
    """What was noticed about two sessions within one tick."""
    return {
        id: News(
            until=DAY_LATER,
            strikes=tuple(Strike(NOON, number, draw(weights), "malformed") for number in draw(numbers)),
            signs=tuple(draw(st.lists(st.tuples(signals, fresh), max_size=4))),
        )
        for id in draw(st.sets(st.sampled_from([A, B])))
    }


numbers = st.sets(st.integers(1, 20), max_size=12)


def shuffled(news: Mapping[SessionId, News], draw: st.DataObject) -> dict[SessionId, News]:
    order = draw.draw(st.permutations(sorted(news)))
    return {
        id: News(
            until=news[id].until,
            strikes=tuple(draw.draw(st.permutations(news[id].strikes))),
            signs=tuple(draw.draw(st.permutations(news[id].signs))),
        )
        for id in order
    }


def outcome(ledger: Ledger, findings: Sequence[Finding]) -> object:
    standing = {id: risk_of(ledger, id, NOON, ThreatSettings()) for id in (A, B)}
    return standing, {finding.session: (finding.verdict, finding.causes, finding.noticed) for finding in findings}


@example_settings(max_examples=40)
@given(news_of(), news_of(), st.data())
def test_within_a_tick_the_order_of_news_makes_no_difference(
    before: dict[SessionId, News], news: dict[SessionId, News], data: st.DataObject
) -> None:
    start, _ = fold(Ledger(), before, NOON, ThreatSettings())

    one = outcome(*fold(start, news, NOON, ThreatSettings()))
    other = outcome(*fold(start, shuffled(news, data), NOON, ThreatSettings()))

    assert one == other


@example_settings(max_examples=40)
@given(news_of())
def test_news_that_is_told_twice_counts_once_and_has_no_second_consequence(news: dict[SessionId, News]) -> None:
    once, _ = fold(Ledger(), news, NOON, ThreatSettings())

    twice, findings = fold(once, news, NOON, ThreatSettings())

    assert twice == once
    assert findings == []


@example_settings(max_examples=40)
@given(news_of(), news_of())
def test_more_news_never_makes_a_session_look_better(
    before: dict[SessionId, News], more: dict[SessionId, News]
) -> None:
    start, _ = fold(Ledger(), before, NOON, ThreatSettings())
    after, findings = fold(start, more, NOON, ThreatSettings())

    for id in before:
        was, is_now = (risk_of(ledger, id, NOON, ThreatSettings()) for ledger in (start, after))
        assert is_now.score >= was.score
        assert is_now.level >= was.level
        assert is_now.verdict.severity >= was.verdict.severity
    assert all(finding.causes for finding in findings if finding.verdict is not Verdict.ALLOW)


@given(st.lists(st.floats(0, 300), max_size=60), st.floats(0, 1000), st.floats(0, 1000))
def test_more_messages_in_a_window_are_never_less_surprising(history: list[float], rate: float, more: float) -> None:
    pace = Pace()
    for each in history:
        pace.learn(each)

    assert 0 <= pace.surprise(rate) <= pace.surprise(rate + more) <= 1


@given(st.lists(st.floats(0, 5), min_size=20, max_size=40))
def test_a_flood_does_not_become_usual_within_a_minute(history: list[float]) -> None:
    pace = Pace()
    for each in history:
        pace.learn(each)

    surprises: list[float] = []
    for _ in range(12):
        surprises.append(pace.surprise(200.0))
        pace.learn(200.0)

    assert min(surprises) > 0.5


uses = st.builds(
    Use,
    st.integers(0, 400 * 24).map(lambda hours: NOON + timedelta(hours=hours)),
    st.binary(min_size=6, max_size=6),
    st.binary(min_size=6, max_size=6),
)


@given(st.lists(uses, max_size=60))
def test_a_pattern_stays_small_and_what_was_learnt_is_usual(found: list[Use]) -> None:
    pattern = Pattern()
    for use in found:
        pattern = learnt(pattern, use)

    assert len(encode(pattern)) <= MAX_PATTERN_BYTES
    if found:
        assert {signal for signal, _ in unusual(pattern, found[-1])} <= {Signal.USER_HOURS}
