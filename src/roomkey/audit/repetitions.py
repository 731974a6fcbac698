"""Refusals come as often as an attacker likes: repeated ones of one source become one record with a count."""

from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Final

from msgspec import Struct

from roomkey.audit.facts import ACCOMPLISHED, of_security_event
from roomkey.audit.records import AuditRecord
from roomkey.security.events import SecurityEvent

WINDOW: Final = timedelta(minutes=1)

MAX_SOURCES: Final = 4_096
"""Sources that are told apart within a window. Further ones are counted together, by what was refused."""

MAX_KINDS: Final = 256
"""Kinds of refusals that are counted for further sources; whatever comes then is counted as one kind."""

_MANY: Final = "\0many"


class _Repeated(Struct):
    first: SecurityEvent
    began: datetime
    until: datetime
    count: int = 0
    """How many have not been recorded."""


class Repetitions:
    """
    What is recorded of security events: the first of a source at once, those like it a window later, as one record.

    A source is a session, a user, or a network. In bounded memory, and no event is left uncounted.
    """

    def __init__(self, window: timedelta = WINDOW, *, most: int = MAX_SOURCES) -> None:
        self._window = window
        self._most = most
        self._known: dict[tuple[str, str, str], _Repeated] = {}
        """Those whose window began first are at the beginning."""

    def __len__(self) -> int:
        return len(self._known)

    def note(self, event: SecurityEvent, *, hold: bool = False) -> AuditRecord | None:
        """What is to be recorded of ``event`` at once; with ``hold`` nothing is, and it is counted."""
        if event.type in ACCOMPLISHED:
            return of_security_event(event)
        known = self._known
        key = (event.type.value, event.cause, _source(event))
        found = known.get(key)
        if found is None and len(known) >= self._most:
            key = (*key[:2], _MANY) if len(known) < self._most + MAX_KINDS else ("", "", _MANY)
            found, hold = known.get(key), True
        if found is None:
            known[key] = _Repeated(event, event.at, event.at, 1 if hold else 0)
            return None if hold else of_security_event(event)
        found.count += 1
        found.until = event.at
        return None

    def over(self, now: datetime) -> list[AuditRecord]:
        """What is to be recorded of windows that are over at ``now``."""
        done: list[AuditRecord] = []
        for key, found in [*self._known.items()]:
            if now - found.began < self._window:
                break
            del self._known[key]
            done += _record(key[2], found)
        return done

    def all(self) -> list[AuditRecord]:
        """What is to be recorded of everything that is known, which is forgotten."""
        done = [record for key, found in self._known.items() for record in _record(key[2], found)]
        self._known.clear()
        return done


def _record(source: str, found: _Repeated) -> list[AuditRecord]:
    if not found.count:
        return []
    record = of_security_event(found.first, count=found.count, until=found.until)
    if source != _MANY:
        return [record]
    # Of many sources the first is no more than an example.
    about = {"sources": "many"}
    return [
        AuditRecord(
            type=record.type,
            at=record.at,
            actor="anonymous",
            outcome=record.outcome,
            cause=record.cause,
            count=record.count,
            until=record.until,
            details=about,
        )
    ]


def _source(event: SecurityEvent) -> str:
    """From where an event is, as far as one can tell; of IPv6 the /64, in which one party has all addresses."""
    if event.session is not None or event.user is not None:
        return f"{event.session}\0{event.user}"
    if event.address is None or ":" not in event.address:
        return f"{event.actor}\0{event.address}"
    try:
        return f"{event.actor}\0{ip_network((event.address.partition('%')[0], 64), strict=False)}"
    except ValueError:
        return event.actor
