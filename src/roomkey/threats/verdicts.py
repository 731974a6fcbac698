"""Verdicts: what follows from the violations and the signals of a session, and which of them it follows from. Pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final

from msgspec import Struct

from roomkey.threats.decay import Remainder, Strike, remaining
from roomkey.threats.settings import SignalPolicy, ThreatSettings
from roomkey.threats.signals import BEARINGS, Sign, Signal, left_of

FAINT: Final = 0.01
"""A contribution below is none: nothing fades away entirely."""

VIOLATIONS: Final = "violations"
"""What a verdict is named after that follows from violations; every other one after signals."""


class Verdict(StrEnum):
    """What is to be done about a session, the mildest first."""

    ALLOW = "allow"
    FLAG = "flag"
    """It goes on; whoever watches is told."""
    CHALLENGE = "challenge"
    """It is suspended until its user has signed in again."""
    SUSPEND = "suspend"
    """It is suspended until an operator, or the application, resumes it."""
    INVALIDATE = "invalidate"
    """It is ended."""

    @property
    def severity(self) -> int:
        """Its place in the order."""
        return _ORDER.index(self)


_ORDER: Final = tuple(Verdict)

OF_POLICIES: Final[Mapping[SignalPolicy, Verdict]] = {
    SignalPolicy.IGNORE: Verdict.ALLOW,
    SignalPolicy.FLAG: Verdict.FLAG,
    SignalPolicy.CHALLENGE: Verdict.CHALLENGE,
    SignalPolicy.REVOKE: Verdict.INVALIDATE,
}
"""What follows at once from a signal with a policy of its own."""


class Contribution(Struct, frozen=True, kw_only=True):
    """What a signal adds to the score: at most its ``weight``, less as time goes by."""

    signal: Signal
    weight: float
    contribution: float
    value: str
    at: datetime


class Risk(Struct, frozen=True, kw_only=True):
    """
    How a session stands, and why.

    ``score`` is the sum of the contributions of ``signals``, ``level`` that of what is left of ``strikes``. ``causes``
    names what the verdict follows from; it is empty only with ``allow``. ``since`` is when the oldest was noticed.
    """

    verdict: Verdict
    score: float
    level: int
    signals: tuple[Contribution, ...]
    strikes: tuple[Remainder, ...]
    causes: tuple[str, ...]
    since: datetime | None


def severest(verdicts: Iterable[Verdict]) -> Verdict:
    """The severest of ``verdicts``, or ``allow``."""
    return max(verdicts, key=lambda verdict: verdict.severity, default=Verdict.ALLOW)


def policy_of(signal: Signal, settings: ThreatSettings) -> SignalPolicy:
    """What the settings say about a signal; those without a setting of their own count in the score only."""
    match signal:
        case Signal.NETWORK:
            return settings.on_network_change
        case Signal.PROGRAM:
            return settings.on_program_change
        case Signal.KEY:
            return settings.on_key_change
        case _:
            return SignalPolicy.FLAG


def of_level(level: int, settings: ThreatSettings) -> Verdict:
    """What follows from so many violations that count."""
    if level >= settings.max_violations:
        return Verdict.INVALIDATE
    if level >= settings.suspend_at:
        return Verdict.SUSPEND
    return Verdict.FLAG if level >= settings.warn_at else Verdict.ALLOW


def of_score(score: float, settings: ThreatSettings) -> Verdict:
    """What follows from a score of signals."""
    if settings.invalidate_score is not None and score >= settings.invalidate_score:
        return Verdict.INVALIDATE
    if settings.challenge_score is not None and score >= settings.challenge_score:
        return Verdict.CHALLENGE
    return Verdict.FLAG if score >= settings.flag_score else Verdict.ALLOW


def contributions(signs: Mapping[Signal, Sign], now: datetime) -> tuple[Contribution, ...]:
    """What each signal adds to the score at ``now``, the most first."""
    found = [
        Contribution(
            signal=signal,
            weight=BEARINGS[signal].weight,
            contribution=BEARINGS[signal].weight * left_of(signal, sign, now),
            value=sign.value,
            at=sign.at,
        )
        for signal, sign in signs.items()
    ]
    found = [each for each in found if each.contribution >= FAINT]
    return tuple(sorted(found, key=lambda each: (-each.contribution, each.signal)))


def assess(strikes: Iterable[Strike], signs: Mapping[Signal, Sign], now: datetime, settings: ThreatSettings) -> Risk:
    """How a session with these strikes and signs stands at ``now``."""
    left = tuple(remaining(strikes, now, settings.violation_check_interval))
    level = sum(each.left for each in left)
    signals = contributions(signs, now)
    score = sum(each.contribution for each in signals)
    by_level, by_score = of_level(level, settings), of_score(score, settings)
    causes = (() if by_level is Verdict.ALLOW else (VIOLATIONS,)) + (
        () if by_score is Verdict.ALLOW else tuple(each.signal for each in signals)
    )
    moments = [each.strike.at for each in left] + [each.at for each in signals]
    return Risk(
        verdict=severest((by_level, by_score)),
        score=score,
        level=level,
        signals=signals,
        strikes=left,
        causes=causes,
        since=min(moments, default=None),
    )
