"""Security events in the log: who, what and how often, once per minute and source and never per attempt."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from roomkey.security.events import SecurityEvent, SecurityEventType
from roomkey.security.networks import network_of

INTERVAL: Final = timedelta(minutes=1)
"""How long events of one kind and source are counted, once one of them was logged."""

MAX_SOURCES: Final = 200
"""Lines for different sources of one kind in that time; further sources share one line."""

OTHERS: Final = "others"
"""The source of that line."""

ORDINARY: Final = frozenset({SecurityEventType.SESSION_AUTH, SecurityEventType.CAP_REACHED})
"""What happens to honest users every day, such as a session whose time is over."""

_log = structlog.get_logger("roomkey.security")


class _Tally:
    """Events of one kind and source since one of them was logged."""

    __slots__ = ("count", "last", "until")

    def __init__(self, until: datetime) -> None:
        self.until = until
        self.count = 0
        self.last: SecurityEvent | None = None


class SecurityEventLog:
    """
    Listens to ``SecurityEvents``, and logs them.

    The first event of a kind (its cause) from a source (its network, or who did it) is logged at once; those that
    follow within ``INTERVAL`` with one line and their number, when that is over and ``tick`` is called. In bounded
    memory: 100,000 addresses once each are ``MAX_SOURCES`` lines, and one for the rest.
    """

    def __init__(self, log: Callable[..., Any] | None = None, *, max_sources: int = MAX_SOURCES) -> None:
        """``log`` is called with the level, the event and its fields; by default the log of the process."""
        self._say = log or _log.log
        self._max_sources = max_sources
        self._tallies: dict[str, dict[str, _Tally]] = {}
        """By cause and by source, the one that was logged longest ago first."""

    def __call__(self, event: SecurityEvent) -> None:
        """Something has happened."""
        tallies = self._tallies.setdefault(event.cause, {})
        source = _source(event)
        if source not in tallies and len(tallies) >= self._max_sources:
            source = OTHERS
        tally = tallies.get(source)
        if tally is None:
            tallies[source] = _Tally(event.at + INTERVAL)
            self._write(event, source, 1)
            return
        tally.count += 1
        tally.last = event
        if event.at >= tally.until:
            self._settle(event.cause, source, tally, event.at)

    def tick(self, now: datetime) -> None:
        """Log what was counted for long enough, and forget who has done nothing meanwhile."""
        for cause, tallies in tuple(self._tallies.items()):
            for source, tally in tuple(tallies.items()):
                if now >= tally.until:
                    self._settle(cause, source, tally, now)
            if not tallies:
                del self._tallies[cause]

    def flush(self) -> None:
        """Log what was counted so far."""
        for cause, tallies in tuple(self._tallies.items()):
            for source, tally in tuple(tallies.items()):
                self._settle(cause, source, tally, tally.until)

    async def run(self, now: Callable[[], datetime]) -> None:
        """Call ``tick`` until cancelled, and ``flush`` then."""
        try:
            while True:
                await asyncio.sleep(INTERVAL.total_seconds() / 6)
                self.tick(now())
        finally:
            self.flush()

    def _settle(self, cause: str, source: str, tally: _Tally, now: datetime) -> None:
        del self._tallies[cause][source]
        if tally.last is None:
            return
        self._tallies[cause][source] = _Tally(now + INTERVAL)
        self._write(tally.last, source, tally.count)

    def _write(self, event: SecurityEvent, source: str, count: int) -> None:
        fields: Mapping[str, object] = {
            "type": event.type.value,
            "cause": event.cause,
            "source": source,
            "count": count,
            **({} if source == OTHERS else {name: value for name in _SHOWN if (value := getattr(event, name))}),
        }
        self._say(logging.INFO if event.type in ORDINARY else logging.WARNING, "security_event", **fields)


_SHOWN: Final = ("actor", "session", "user", "address", "place")
"""Of the last one of those that the line is about."""


def _source(event: SecurityEvent) -> str:
    return event.actor if event.address is None else network_of(event.address)
