"""Open sockets obey the application: it is asked about them again when its answers age, and when it wants that."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Final, Protocol

from msgspec import Struct

from roomkey.access.decisions import ApplicationDecisions
from roomkey.domain.session import Session, SessionId
from roomkey.errors import AccessUnknown
from roomkey.ports import Clock

ASKED_AT_A_TIME: Final = 32
"""Questions about open sockets that wait for the application at a time; those at doors come beside them."""

LOOKED_AT_IN_A_TURN: Final = 200

LONGEST_INTERVAL: Final = timedelta(seconds=5)


class Sockets(Protocol):
    """The open sockets of a node."""

    def in_use(self) -> Iterator[tuple[Session, Sequence[str]]]:
        """The session of each, and the documents that it is in."""
        ...

    def review(self, id: SessionId, reason: str | None = None) -> None:
        """
        Let those of a session obey what it may do now, as far as that is remembered.

        Where it may do nothing any more, it is told the ``reason``.
        """
        ...


class Subject(Struct, frozen=True):
    """
    What is rechecked: a session in all documents, all sessions in a document, a group, or everything.

    ``reason`` is what those are told who may do nothing any more.
    """

    session: SessionId | None = None
    document: str | None = None
    group: str | None = None
    reason: str | None = None

    def covers(self, session: SessionId, document: str) -> bool:
        """Whether it is about this session in this document."""
        return self.session in (None, session) and self.document in (None, document)


class Rechecked(Struct, frozen=True, kw_only=True):
    """What came of a recheck on this node, where it holds. ``unanswered`` keep what was remembered of them."""

    checked: int
    """Sessions in documents about which the application was asked."""
    changed: int
    """Those that may do more or less there than before."""
    unanswered: int = 0


class AccessWatch:
    """``run`` must run as long as there are sockets. All on one event loop."""

    def __init__(self, decisions: ApplicationDecisions, sockets: Callable[[], Sockets], clock: Clock) -> None:
        """``sockets`` are those of the current run."""
        self._decisions = decisions
        self._sockets = sockets
        self._now = clock.now
        self.interval = min(decisions.max_age / 6, LONGEST_INTERVAL)
        """How often it looks for answers that will be too old at its next look."""
        self._reasons: list[Mapping[SessionId, str]] = []
        """What sessions are told that lose a right, for each recheck that goes on."""
        decisions.on_change = self._obey

    async def run(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Ask again in time, until cancelled."""
        while True:
            await sleep(self.interval.total_seconds())
            await self.look()

    async def look(self) -> None:
        """Ask about everybody who is inside by an answer that will be too old at the next look."""
        until = self._now() + self.interval
        due = dict[tuple[SessionId, str], Session]()
        for number, (session, documents) in enumerate(self._sockets().in_use()):
            if number % LOOKED_AT_IN_A_TURN == LOOKED_AT_IN_A_TURN - 1:
                await asyncio.sleep(0)
            for document in documents:
                if not self._decisions.keep(session, document, until=until):
                    due[session.id, document] = session
        await self._renew(due)

    async def recheck(self, subjects: Sequence[Subject]) -> Rechecked:
        """
        Ask about everybody of ``subjects`` who is inside; when this returns, their sockets obey.

        Whoever comes later is asked about at the door, whatever is remembered.
        """
        for subject in subjects:
            self._decisions.doubt(session=subject.session, document=subject.document)
        due = {
            (session.id, document): session
            for session, documents in self._sockets().in_use()
            for document in documents
            if any(subject.covers(session.id, document) for subject in subjects)
        }
        before = {key: self._decisions.access(session, key[1]) for key, session in due.items()}
        reasons = _reasons(due, subjects)
        self._reasons.append(reasons)
        try:
            unanswered = await self._renew(due)
        finally:
            self._reasons.remove(reasons)
        for id in {id for id, _ in due}:
            self._sockets().review(id, reasons.get(id))
        changed = sum(self._decisions.access(session, key[1]) is not before[key] for key, session in due.items())
        return Rechecked(checked=len(due), changed=changed, unanswered=unanswered)

    async def _renew(self, due: dict[tuple[SessionId, str], Session]) -> int:
        """Ask about all of them; of how many there was no answer."""
        waiting = iter(due.items())
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(self._renew_each(waiting)) for _ in range(min(len(due), ASKED_AT_A_TIME))]
        return sum(worker.result() for worker in workers)

    async def _renew_each(self, waiting: Iterable[tuple[tuple[SessionId, str], Session]]) -> int:
        unanswered = 0
        for (id, document), session in waiting:
            try:
                await self._decisions.renew(session, document)
            except AccessUnknown:
                unanswered += 1
                if self._decisions.access(session, document) is None:  # what was remembered may not be used any more
                    self._obey(id)
                await asyncio.sleep(0)  # an application that is away is not waited for
        return unanswered

    def _obey(self, id: SessionId) -> None:
        self._sockets().review(id, next((reasons[id] for reasons in self._reasons if id in reasons), None))


def _reasons(due: Iterable[tuple[SessionId, str]], subjects: Sequence[Subject]) -> Mapping[SessionId, str]:
    """What each session is told, by the last of ``subjects`` that has something to say."""
    return {
        id: subject.reason
        for id, document in due
        for subject in subjects
        if subject.reason is not None and subject.covers(id, document)
    }
