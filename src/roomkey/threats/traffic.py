"""What sessions send, window by window: how much beside what is usual for each, and how much of it is refused. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct

from roomkey.domain.session import Session, SessionId
from roomkey.security.events import SecurityEventType
from roomkey.threats.pace import Pace
from roomkey.threats.signals import Sign, Signal

FEW_REJECTED: Final = 10
"""Refused messages per window that mean nothing: pages have bugs, too."""

MANY_REJECTED: Final = 100
"""As many are as unusual as can be."""

TOO_MANY_REJECTED: Final = 50
"""Requests of one kind that are refused within a window and count as a violation: no page knocks ten times a second."""

MAX_REFUSED: Final = 10_000
"""Sessions whose refused requests are counted within a window."""

_CAUSES: Final[Mapping[SecurityEventType, str]] = {
    SecurityEventType.INVALID_INPUT: "malformed",
    SecurityEventType.UNAUTHORIZED_ACCESS: "forbidden",
}


class Traffic(Struct, frozen=True):
    """What the sockets of a session have sent so far, and how many of these messages were refused."""

    session: Session
    messages: int
    rejected: int


class Refused(Struct, frozen=True):
    """What was refused to a session within a window; ``cause`` is set if that is a violation."""

    session: SessionId
    user: str
    count: int
    cause: str | None


class Refusals:
    """What was refused to sessions over REST since the last window, of at most ``MAX_REFUSED`` sessions."""

    def __init__(self) -> None:
        self._counts: dict[tuple[SessionId, str], Counter[str]] = {}

    def count(self, id: SessionId, user: str, kind: SecurityEventType) -> None:
        """Something was refused, if ``kind`` says so."""
        cause = _CAUSES.get(kind)
        if cause is None:
            return
        causes = self._counts.get((id, user))
        if causes is None:
            if len(self._counts) >= MAX_REFUSED:
                return
            causes = self._counts[id, user] = Counter()
        causes[cause] += 1

    def take(self) -> list[Refused]:
        """The window is over, and another one begins."""
        counts, self._counts = self._counts, {}
        return [_refused(id, user, causes) for (id, user), causes in counts.items()]


def _refused(id: SessionId, user: str, causes: Counter[str]) -> Refused:
    cause, most = causes.most_common(1)[0]
    return Refused(id, user, causes.total(), cause if most >= TOO_MANY_REJECTED else None)


class _Count:
    __slots__ = ("at", "messages", "pace", "rejected")

    def __init__(self, traffic: Traffic, now: datetime) -> None:
        self.pace = Pace()
        self.at = now
        self.messages = traffic.messages
        self.rejected = traffic.rejected


class TrafficBook:
    """The windows of the sessions that have a socket here. Memory is linear in these."""

    def __init__(self) -> None:
        self._counts: dict[SessionId, _Count] = {}

    def keep_only(self, ids: Iterable[SessionId]) -> None:
        """Forget every other session."""
        counts = self._counts
        self._counts = {id: counts[id] for id in ids if id in counts}

    def look(self, traffic: Traffic, now: datetime) -> Sequence[tuple[Signal, Sign]]:
        """A window of the session is over; returns what was unusual in it."""
        count = self._counts.get(traffic.session.id)
        if count is None:
            self._counts[traffic.session.id] = _Count(traffic, now)
            return ()
        seconds = (now - count.at).total_seconds()
        if seconds <= 0:
            return ()
        # Fewer than before: a connection is gone, and what it had sent with it.
        rate = max(0, traffic.messages - count.messages) / seconds
        rejected = max(0, traffic.rejected - count.rejected)
        count.at, count.messages, count.rejected = now, traffic.messages, traffic.rejected
        signs = tuple(_signs(count.pace, rate, rejected, now))
        count.pace.learn(rate)
        return signs


def rejection(rejected: int, now: datetime) -> Sign | None:
    """The sign that so many refusals within a window are."""
    if rejected < FEW_REJECTED:
        return None
    return Sign(now, min(1.0, rejected / MANY_REJECTED), f"{rejected} refused within seconds")


def _signs(pace: Pace, rate: float, rejected: int, now: datetime) -> Iterator[tuple[Signal, Sign]]:
    surprise = pace.surprise(rate)
    if surprise > 0:
        yield Signal.PACE, Sign(now, surprise, f"{rate:.0f} messages per second, usually at most {pace.usual:.0f}")
    sign = rejection(rejected, now)
    if sign is not None:
        yield Signal.REJECTED, sign
