"""Who is in which document by way of this node: since when, how, and with which access."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from heapq import nsmallest

from msgspec import Struct

from roomkey.domain.access import Access
from roomkey.domain.session import Session, SessionId
from roomkey.ports import AccessDecisions
from roomkey.ports.observing import PresenceObserver
from roomkey.realtime.clients.client import ProtocolName, RealtimeClient


class Connection(Struct, frozen=True, gc=False):
    """One connection in a document, by the protocol of ``/ws``, ``/yjs`` or ``/hocuspocus``."""

    protocol: ProtocolName
    since: datetime
    node: str


class ConnectedSession(Struct, frozen=True):
    """
    A session that is connected to a document: what it may do there, and by which connections it is there.

    ``access`` is ``None`` for the moment in which a right that was taken has not ended the connection yet.
    """

    id: SessionId
    user_id: str
    access: Access | None
    connections: Sequence[Connection]

    @property
    def since(self) -> datetime:
        """Since when it is there without interruption."""
        return min(each.since for each in self.connections)


class Whom(Struct, frozen=True, gc=False):
    """Which sessions are meant: ``session``, or all; of users whose ids begin with one of ``users``, or of all."""

    session: SessionId | None = None
    users: Sequence[str] | None = None

    def includes(self, client: RealtimeClient) -> bool:
        """Whether the session of ``client`` is one of them."""
        session = client.guard.session
        if self.session is not None and session.id != self.session:
            return False
        return self.users is None or session.user_id.startswith(tuple(self.users))


class Attendance:
    """The connections of this node by the documents that they are in."""

    def __init__(self, node: str, decisions: AccessDecisions, observer: PresenceObserver | None = None) -> None:
        self._node = node
        self._decisions = decisions
        self._observer = observer
        self._documents: dict[str, dict[RealtimeClient, datetime]] = {}
        self._observed: dict[tuple[str, RealtimeClient], Session] = {}
        """As which session each client entered: it may belong to another one by now."""
        self._counts: Counter[tuple[str, SessionId]] = Counter()
        """How many connections each session has in each document, if somebody observes that."""

    def enter(self, client: RealtimeClient, document: str, now: datetime) -> None:
        """The client is in the document from now on, if it was not before."""
        clients = self._documents.setdefault(document, {})
        if client not in clients:
            clients[client] = now
            if self._observer is not None:
                self._entered(self._observer, client, document, now)

    def leave(self, client: RealtimeClient, document: str, now: datetime) -> None:
        """The client is not in the document any more, or never was."""
        clients = self._documents.get(document)
        if clients is None or clients.pop(client, None) is None:
            return
        if not clients:
            del self._documents[document]
        if self._observer is not None:
            self._left(self._observer, client, document, now)

    def _entered(self, observer: PresenceObserver, client: RealtimeClient, document: str, now: datetime) -> None:
        session = self._observed[document, client] = client.guard.session
        self._counts[document, session.id] += 1
        if self._counts[document, session.id] == 1:
            observer.entered(document, session, now)

    def _left(self, observer: PresenceObserver, client: RealtimeClient, document: str, now: datetime) -> None:
        session = self._observed.pop((document, client))
        self._counts[document, session.id] -= 1
        if not self._counts[document, session.id]:
            del self._counts[document, session.id]
            observer.left(document, session.id, session.user_id, now)

    def clients(self, document: str, whom: Whom) -> Sequence[RealtimeClient]:
        """The clients of these sessions in the document, as they are now."""
        return [client for client in self._documents.get(document, ()) if whom.includes(client)]

    def sessions(self, document: str, whom: Whom, *, after: str, limit: int) -> list[ConnectedSession]:
        """At most ``limit`` of these sessions in the document, in the order of their ids, behind the id ``after``."""
        found: dict[SessionId, list[RealtimeClient]] = {}
        for client in self.clients(document, whom):
            if (id := client.guard.session.id) > after:
                found.setdefault(id, []).append(client)
        return [self._connected(document, found[id]) for id in nsmallest(limit, found)]

    def _connected(self, document: str, clients: Sequence[RealtimeClient]) -> ConnectedSession:
        session, since = clients[0].guard.session, self._documents[document]
        return ConnectedSession(
            session.id,
            session.user_id,
            self._decisions.access(session, document),
            [Connection(client.protocol, since[client], self._node) for client in clients],
        )


def merged(found: Iterable[ConnectedSession]) -> Sequence[ConnectedSession]:
    """Each session once, in the order of their ids, with the connections that it has on any node."""
    sessions: dict[SessionId, ConnectedSession] = {}
    for each in found:
        known = sessions.get(each.id)
        connections = [*(known.connections if known else ()), *each.connections]
        connections.sort(key=lambda connection: (connection.since, connection.node))
        sessions[each.id] = ConnectedSession(each.id, each.user_id, each.access, connections)
    return [sessions[id] for id in sorted(sessions)]
