"""What is known against the sessions of one user, and how news changes it. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from math import ceil
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from roomkey.domain.session import Client, SessionId
from roomkey.threats.decay import CARRIED, MANY, Strike, level, still_needed
from roomkey.threats.places import Place, changes, place_of, remembered
from roomkey.threats.settings import SignalPolicy, ThreatSettings
from roomkey.threats.signals import Sign, Signal, is_news, stronger
from roomkey.threats.verdicts import (
    OF_POLICIES,
    Risk,
    Verdict,
    assess,
    contributions,
    of_level,
    of_score,
    policy_of,
    severest,
)

MAX_SESSIONS: Final = 32
"""Sessions of a user that are in the ledger; those with the most violations stay."""

CARRIED_SHARE: Final = 0.5
"""
What a session without violations of its own begins with, of the most that counts for another one of its user. It is
rounded up.
"""


class Standing(Struct, frozen=True, array_like=True, gc=False):
    """
    What is known against one session.

    ``places`` are those where it may be used without a signal, the first one of which it is bound to. With ``rebinds``
    that will be the one from which its current token is presented next.
    """

    # The order is a part of what is stored.
    until: datetime
    """When the session ends at the latest; what is no more than a place is forgotten then."""
    strikes: tuple[Strike, ...] = ()
    signs: Mapping[Signal, Sign] = {}
    places: tuple[Place, ...] = ()
    rebinds: bool = False


class Ledger(Struct, frozen=True, array_like=True, tag=1):
    """The sessions of one user; the tag is the version of the format."""

    sessions: Mapping[SessionId, Standing] = {}


class Sighting(Struct, frozen=True):
    """The session was used at ``place``; ``is_current`` says that it was with its current token."""

    place: Place
    is_current: bool = True


class News(Struct, frozen=True, kw_only=True):
    """What was noticed about one session since the last time. ``client`` is the one that it was issued to."""

    until: datetime
    client: Client | None = None
    strikes: tuple[Strike, ...] = ()
    signs: tuple[tuple[Signal, Sign], ...] = ()
    sightings: tuple[Sighting, ...] = ()
    rebinds: bool = False

    def beside(self, later: "News") -> "News":
        """Both."""
        return News(
            until=max(self.until, later.until),
            client=self.client or later.client,
            strikes=self.strikes + later.strikes,
            signs=self.signs + later.signs,
            sightings=self.sightings + later.sightings,
            rebinds=self.rebinds or later.rebinds,
        )


class Finding(Struct, frozen=True, kw_only=True):
    """
    What follows from news about one session.

    ``verdict`` follows from what is new, and ``causes`` names it: what was known before has had its consequences, so
    that a session that was resumed goes on. ``noticed`` are the signals that are worth a report, with their values.
    """

    session: SessionId
    verdict: Verdict
    causes: tuple[str, ...]
    struck: Strike | None
    noticed: Mapping[Signal, str]
    risk: Risk


def fold(
    ledger: Ledger, news: Mapping[SessionId, News], now: datetime, settings: ThreatSettings
) -> tuple[Ledger, list[Finding]]:
    """
    The ledger after ``news``, and what follows from it.

    The order of sessions, strikes and signs makes no difference; sightings are taken in theirs.

    News that is in the ledger already changes nothing and has no consequences.
    """
    sessions = dict(ledger.sessions)
    findings: list[Finding] = []
    for id in sorted(news):
        carried = ceil(CARRIED_SHARE * _worst_beside(ledger, id, now, settings))
        before = _bound(ledger.sessions.get(id) or Standing(news[id].until), news[id].client, settings)
        after, finding = _fold_one(id, before, news[id], carried, now, settings)
        if after != before:
            sessions[id] = after
        if finding is not None:
            findings.append(finding)
    if sessions != ledger.sessions:
        ledger = Ledger(_kept(sessions, now, settings))
    return ledger, findings


def risk_of(ledger: Ledger, id: SessionId, now: datetime, settings: ThreatSettings) -> Risk:
    """How a session stands."""
    standing = ledger.sessions.get(id)
    return assess((), {}, now, settings) if standing is None else _assess(standing, now, settings)


def is_spent(ledger: Ledger, now: datetime, settings: ThreatSettings) -> bool:
    """Whether nothing in the ledger can make a difference any more."""
    return not _kept(ledger.sessions, now, settings)


def encode(ledger: Ledger) -> bytes:
    """The ledger as it is stored."""
    return msgspec.msgpack.encode(ledger)


def decode(stored: bytes) -> Ledger:
    """
    The ledger that ``encode`` made ``stored`` of.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: If it is none.
    """
    return _decoder.decode(stored)


def _fold_one(
    id: SessionId, before: Standing, news: News, carried: int, now: datetime, settings: ThreatSettings
) -> tuple[Standing, Finding | None]:
    strikes, struck = _struck(before, news.strikes, carried, now, settings)
    standing = replace(
        before, until=max(before.until, news.until), strikes=strikes, rebinds=before.rebinds or news.rebinds
    )
    standing, noticed, ruling = _sighted(standing, news.sightings, now, settings)
    signs, reports = _signs(before.signs, (*news.signs, *noticed))
    found = {signal: sign.value for signal, sign in noticed}  # every new place is news
    reports = dict(sorted({**reports, **found}.items()))
    standing = replace(standing, signs=signs)
    if struck is None and not reports and ruling is Verdict.ALLOW:
        return standing, None
    risk = _assess(standing, now, settings)
    by_level = of_level(risk.level, settings) if struck is not None else Verdict.ALLOW
    by_score = of_score(risk.score, settings) if reports else Verdict.ALLOW
    verdict = severest((ruling, by_level, by_score))
    causes = risk.causes if verdict in (by_level, by_score) else ()
    if verdict is ruling:
        causes = tuple(dict.fromkeys((*(signal for signal, _ in noticed), *causes)))
    return standing, Finding(session=id, verdict=verdict, causes=causes, struck=struck, noticed=reports, risk=risk)


def _struck(
    before: Standing, new: Sequence[Strike], carried: int, now: datetime, settings: ThreatSettings
) -> tuple[tuple[Strike, ...], Strike | None]:
    """The strikes with those that are new, and the latest new one."""
    numbers = {strike.number for strike in before.strikes}
    merged = max((strike.number for strike in before.strikes if strike.cause == MANY), default=0)
    fresh = {strike.number: strike for strike in new if strike.number not in numbers and strike.number > merged}
    if not fresh:
        return before.strikes, None
    strikes = (*before.strikes, *fresh.values())
    if carried > 0 and level(before.strikes, now, settings.violation_check_interval) == 0:
        strikes = (*strikes, Strike(min(strike.at for strike in fresh.values()), 0, carried, CARRIED))
    return still_needed(strikes, now, settings.violation_check_interval), fresh[max(fresh)]


def _sighted(
    standing: Standing, sightings: Sequence[Sighting], now: datetime, settings: ThreatSettings
) -> tuple[Standing, list[tuple[Signal, Sign]], Verdict]:
    """The standing after its session was seen, the signals that gave, and what the policies say to that."""
    noticed: list[tuple[Signal, Sign]] = []
    verdicts: list[Verdict] = []
    for sighting in sightings:
        if sighting.is_current and (standing.rebinds or not standing.places):
            standing = replace(standing, places=(sighting.place,), rebinds=False)
            continue
        found = [
            (signal, value)
            for signal, value in changes(standing.places, sighting.place)
            if policy_of(signal, settings) is not SignalPolicy.IGNORE
        ]
        verdict = severest(OF_POLICIES[policy_of(signal, settings)] for signal, _ in found)
        if standing.places and verdict.severity < Verdict.CHALLENGE.severity:
            standing = replace(standing, places=remembered(standing.places, sighting.place))
        noticed += [(signal, Sign(now, 1.0, value)) for signal, value in found]
        verdicts.append(verdict)
    return standing, noticed, severest(verdicts)


def _signs(
    before: Mapping[Signal, Sign], new: Sequence[tuple[Signal, Sign]]
) -> tuple[Mapping[Signal, Sign], Mapping[Signal, str]]:
    """The signs with those that are new, and the values of those that are worth a report."""
    signs = dict(before)
    for signal, sign in new:
        signs[signal] = stronger(signal, signs[signal], sign) if signal in signs else sign
    news = {signal for signal, sign in new if is_news(signal, sign, before.get(signal))}
    return signs, {signal: signs[signal].value for signal in news}


def _assess(standing: Standing, now: datetime, settings: ThreatSettings) -> Risk:
    return assess(standing.strikes, standing.signs, now, settings)


def _bound(standing: Standing, client: Client | None, settings: ThreatSettings) -> Standing:
    """The standing, bound to whom its session was issued to unless it is bound already."""
    if standing.places or client is None or (place := place_of(client, settings)) == _NOWHERE:
        return standing
    return replace(standing, places=(place,))


def _worst_beside(ledger: Ledger, id: SessionId, now: datetime, settings: ThreatSettings) -> int:
    interval = settings.violation_check_interval
    return max(
        (level(each.strikes, now, interval) for other, each in ledger.sessions.items() if other != id), default=0
    )


def _kept(sessions: Mapping[SessionId, Standing], now: datetime, settings: ThreatSettings) -> dict[SessionId, Standing]:
    interval = settings.violation_check_interval
    levels = {id: level(standing.strikes, now, interval) for id, standing in sessions.items()}
    kept = [
        id
        for id, standing in sessions.items()
        if standing.until > now or levels[id] > 0 or contributions(standing.signs, now)
    ]
    kept = sorted(kept, key=lambda each: (levels[each], sessions[each].until, each))[-MAX_SESSIONS:]
    return {id: sessions[id] for id in sorted(kept)}


_NOWHERE: Final = Place(None, None)

_decoder = msgspec.msgpack.Decoder(Ledger)
