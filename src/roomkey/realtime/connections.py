"""The connections of this node: which there are, when they are looked at, and what they ask of storage."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush
from itertools import chain, count
from math import ceil
from typing import Any, Final, Generic, Protocol, TypeVar

import structlog

from roomkey import errors
from roomkey.documents.settings import DocumentSettings
from roomkey.domain.session import Session, SessionId
from roomkey.errors import RoomkeyError
from roomkey.ports import AccessDecisions, Clock
from roomkey.ports.observing import PresenceObserver
from roomkey.problems import presentation_of
from roomkey.realtime.attendance import Attendance
from roomkey.realtime.clients.client import RealtimeClient
from roomkey.realtime.protocol.json_messages import ErrorCode, Fault
from roomkey.realtime.rooms.hub import Outbox
from roomkey.realtime.rooms.rooms import Participant, Rooms
from roomkey.realtime.session.effects import Question, Verify
from roomkey.realtime.session.limits import LimitsOfSessions, SessionLimits
from roomkey.realtime.settings import RealtimeSettings
from roomkey.security.injection import Suspicion
from roomkey.security.networks import network_of

RELIEF: Final = timedelta(seconds=2)
"""For so long everything must be well before clients are told, so that they are not told of every hiccup."""

MAX_WARNINGS: Final = 10_000
"""Sessions of which it is remembered that their clients are to be warned."""

_log = structlog.get_logger("roomkey.realtime")


class Connections:
    """The ``ClientHost`` of all clients of this node."""

    def __init__(
        self,
        settings: RealtimeSettings,
        documents: DocumentSettings,
        clock: Clock,
        rooms: Rooms,
        decisions: AccessDecisions,
        *,
        node: str = "",
        observer: PresenceObserver | None = None,
    ) -> None:
        self.decisions = decisions
        self.rooms = rooms
        self.attendance = Attendance(node, decisions, observer)
        self.hub = rooms.hub
        self.now = clock.now
        self.registry: Registry[RealtimeClient] = Registry()
        self.deadlines: Deadlines[RealtimeClient] = Deadlines()
        self.limits = LimitsOfSessions(settings, documents)
        self.questions: asyncio.Queue[tuple[RealtimeClient, Question]] = asyncio.Queue(settings.max_questions)
        self.count_changed: Callable[[Sequence[SessionId]], None] | None = None
        """Told of the sessions that have another number of connections than before, except those that enter."""
        self.of_network: Counter[str] = Counter()
        """How many connections there are from each network."""
        self.on_suspicion: Callable[[Session, Suspicion], None] | None = None
        """Told of text that looks like an attack."""
        self.degraded = False
        """Whether what clients say reaches others later than it should."""
        self.troubles: list[Callable[[], Mapping[str, str]]] = []
        """Who is asked for that: each names what is wrong with something that nodes share."""
        self._well_since: datetime | None = None
        self._group: asyncio.TaskGroup | None = None
        self._departed_messages = 0
        self._departed_bytes = 0
        self._sweep_every = settings.repeat_window / 4
        self._next_sweep: datetime | None = None
        self._touched: dict[SessionId, None] = {}
        self._violations: dict[tuple[SessionId, str], None] = {}
        self._warnings: dict[SessionId, tuple[datetime, Mapping[str, Any]]] = {}

    @property
    def messages_in(self) -> int:
        """Messages that came in since the node started."""
        return self._departed_messages + sum(client.messages_in for client in self.registry)

    @property
    def bytes_in(self) -> int:
        """Their bytes."""
        return self._departed_bytes + sum(client.bytes_in for client in self.registry)

    # --- what clients need ----------------------------------------------------------------------------

    def participant(self, box: Outbox, session: Session) -> Participant:
        """The connection behind ``box`` as others see it."""
        return self.rooms.participant(box, session)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done in the background; nothing, if the node does not run any more."""
        if self._group is None:
            work.close()
        else:
            self._group.create_task(_safely(work))

    def work_in(self, group: asyncio.TaskGroup | None) -> None:
        """Let ``group`` do what is spawned; ``None`` when it ends."""
        self._group = group

    def ask(self, client: RealtimeClient, question: Question) -> None:
        """Put a question to storage, unless too many wait already: then it fails at once."""
        try:
            self.questions.put_nowait((client, question))
        except asyncio.QueueFull:
            now = self.now()
            if isinstance(question, Verify):
                effects = client.guard.unverified(now)
            else:
                effects = client.guard.not_refreshed(fault_of(errors.Storage("too many ask")), now)
            client.carry_out(effects, now)

    def touch(self, id: SessionId) -> None:
        """The user of the session was active."""
        self._touched[id] = None

    def take_touched(self) -> Sequence[SessionId]:
        """The sessions that were active, each once; they are forgotten here."""
        touched, self._touched = self._touched, {}
        return tuple(touched)

    def violated(self, id: SessionId, cause: str) -> None:
        """The session's holder has misbehaved: each way counts once per tick, however often it happens meanwhile."""
        self._violations[id, cause] = None

    def take_violations(self) -> Sequence[tuple[SessionId, str]]:
        """What sessions have done wrong since the last time, and why; it is forgotten here."""
        violations, self._violations = self._violations, {}
        return tuple(violations)

    def warn(self, id: SessionId, details: Mapping[str, Any], until: datetime) -> None:
        """Warn the clients of the session that are here, and those that come before ``until``."""
        self._warnings.pop(id, None)
        if len(self._warnings) >= MAX_WARNINGS:
            del self._warnings[next(iter(self._warnings))]
        self._warnings[id] = until, details
        for client in self.registry.of_session(id):
            if client.is_open:
                client.warn(details, self.now())

    def warning(self, id: SessionId, now: datetime) -> Mapping[str, Any] | None:
        """What clients of the session are warned of at this time."""
        if not self._warnings or id not in self._warnings:
            return None
        until, details = self._warnings[id]
        if now < until:
            return details
        del self._warnings[id]
        return None

    def traffic(self, id: SessionId) -> tuple[Session, int, int] | None:
        """The session, what its open connections have sent, and how many of its messages were refused."""
        clients = self.registry.of_session(id)
        if not clients:
            return None
        guard = clients[0].guard
        return guard.session, sum(client.messages_in for client in clients), guard.limits.rejected

    def suspected(self, session: Session, what: Suspicion) -> None:
        """A client of the session sent text that looks like an attack."""
        if self.on_suspicion is not None:
            self.on_suspicion(session, what)

    def rebound(self, client: RealtimeClient, former: Session) -> SessionLimits:
        """The client belongs to another session than before; returns that one's limits."""
        session = client.guard.session
        self.registry.leave(client, former)
        self.registry.enter(client, session)
        if self.count_changed is not None:
            self.count_changed((former.id, session.id))
        self.limits.release(former.id)
        return self.limits.open(session.id)

    def watch(self, client: RealtimeClient) -> None:
        """Look at the client when its guard wants it."""
        if not client.guard.is_over and client.is_open:
            self.deadlines.set(client, client.guard.next_check())

    def entered(self, client: RealtimeClient) -> None:
        """There is a new client."""
        self.registry.enter(client, client.guard.session)
        self.of_network[network_of(client.device.ip or "")] += 1

    def departed(self, client: RealtimeClient) -> None:
        """The client is no more."""
        session = client.guard.session
        network = network_of(client.device.ip or "")
        self.of_network[network] -= 1
        if not self.of_network[network]:
            del self.of_network[network]
        self._departed_messages += client.messages_in
        self._departed_bytes += client.bytes_in
        self.registry.leave(client, session)
        if self.count_changed is not None:
            self.count_changed((session.id,))
        self.limits.release(session.id)
        self.deadlines.cancel(client)

    def joined(self, client: RealtimeClient, document: str) -> None:
        """The client follows a document now."""
        self.attendance.enter(client, document, self.now())

    def left(self, client: RealtimeClient, document: str) -> None:
        """The client follows it no more."""
        self.attendance.leave(client, document, self.now())

    def appeared(self, client: RealtimeClient, document: str) -> None:
        """The client edits a document now."""
        self.attendance.enter(client, document, self.now())
        self.rooms.appear(client.who, document, self.now())

    def disappeared(self, client: RealtimeClient, document: str) -> None:
        """The client edits it no more."""
        self.attendance.leave(client, document, self.now())
        self.rooms.disappear(client.who, document, self.now())

    # --- time -----------------------------------------------------------------------------------------

    def sweep(self, now: datetime) -> None:
        """Forget what is too old, and let the rooms do what is due."""
        if self.troubles:
            self._watch_service(now)
        self.rooms.sweep(now, ((client.who, client.documents()) for client in self.registry))
        if self._next_sweep is None or now >= self._next_sweep:
            self.limits.sweep(now.timestamp())
            self._next_sweep = now + self._sweep_every

    def _watch_service(self, now: datetime) -> None:
        """Tell every client once that the service is degraded, and once that it has been well for a while."""
        if any(trouble() for trouble in self.troubles):
            self._well_since = None
            is_degraded = True
        else:
            self._well_since = self._well_since or now
            is_degraded = self.degraded and now - self._well_since < RELIEF
        if is_degraded != self.degraded:
            self.degraded = is_degraded
            _log.warning("service_degraded" if is_degraded else "service_restored")
            for client in tuple(self.registry):
                if client.is_open:
                    client.tell_service(now)


async def _safely(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception:  # noqa: BLE001  # what one connection wanted must not end the work for all others
        _log.exception("work_failed")


class Scheduled(Protocol):
    """What ``Deadlines`` needs of its items; only ``Deadlines`` changes ``due_at``."""

    due_at: datetime | None


P = TypeVar("P")
S = TypeVar("S", bound=Scheduled)


class Registry(Generic[P]):
    """The connections of this node."""

    def __init__(self) -> None:
        # Lists, because most sessions have one connection and most users one session: a set of one is large.
        self._of_session: dict[SessionId, list[P]] = {}
        self._of_user: dict[str, list[SessionId]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[P]:
        return chain.from_iterable(self._of_session.values())

    @property
    def sessions(self) -> int:
        """How many sessions have a connection."""
        return len(self._of_session)

    def enter(self, connection: P, session: Session) -> None:
        """Note a connection of ``session``."""
        connections = self._of_session.get(session.id)
        if connections is None:
            connections = self._of_session[session.id] = []
            self._of_user.setdefault(session.user_id, []).append(session.id)
        connections.append(connection)
        self._count += 1

    def leave(self, connection: P, session: Session) -> None:
        """Forget a connection of ``session``."""
        connections = self._of_session[session.id]
        connections.remove(connection)
        self._count -= 1
        if connections:
            return
        del self._of_session[session.id]
        sessions = self._of_user[session.user_id]
        sessions.remove(session.id)
        if not sessions:
            del self._of_user[session.user_id]

    def of_session(self, id: SessionId) -> Sequence[P]:
        """The connections of a session, as they are now."""
        connections = self._of_session.get(id)
        return () if connections is None else tuple(connections)

    def of_user(self, user_id: str) -> Sequence[P]:
        """The connections of all sessions of a user, as they are now."""
        return tuple(chain.from_iterable(self._of_session[id] for id in self._of_user.get(user_id, ())))


class Deadlines(Generic[S]):
    """
    When which connection is to be looked at: one time for each.

    A time that moves away costs nothing until the old one comes, and memory is linear in what is scheduled.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[datetime, int, S]] = []
        self._numbers = count()
        self._stale = 0

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, connection: S, at: datetime) -> None:
        """Look at ``connection`` at ``at``, or a bit before that."""
        if connection.due_at is not None:
            if connection.due_at <= at:
                return
            self.cancel(connection)
        connection.due_at = at
        heappush(self._heap, (at, next(self._numbers), connection))

    def cancel(self, connection: S) -> None:
        """Look at ``connection`` no more."""
        if connection.due_at is None:
            return
        connection.due_at = None
        self._stale += 1
        if self._stale > 100 and self._stale > len(self._heap) // 2:
            self._heap = [entry for entry in self._heap if entry[2].due_at is entry[0]]
            heapify(self._heap)
            self._stale = 0

    def pop_due(self, now: datetime) -> list[S]:
        """What is to be looked at now; it is not scheduled any more."""
        due: list[S] = []
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, _, connection = heappop(heap)
            if connection.due_at is at:
                connection.due_at = None
                due.append(connection)
            else:
                self._stale -= 1
        return due


def fault_of(error: RoomkeyError) -> Fault:
    """What a client is told whose new token is not accepted because of ``error``."""
    code = ErrorCode(presentation_of(error).refresh_fault)
    if code is ErrorCode.SERVER_ERROR:
        return Fault(code, "this cannot be checked now", retry=True)
    details: dict[str, Any] = {"code": error.code}
    if isinstance(error, errors.RateLimited):
        details["retry_after_ms"] = ceil(error.wait * 1000)
    if isinstance(error, errors.SessionStopped) and error.reason is not None:
        details["reason"] = error.reason
    return Fault(code, str(error), details=details)
