"""The sockets of this node: who is let in, what happens to sessions meanwhile, and what time brings."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from http import HTTPStatus
from math import ceil
from typing import Any, Final

import structlog
from msgspec import Struct

from roomkey import errors
from roomkey.documents.open_documents import OpenDocuments
from roomkey.documents.settings import DocumentSettings
from roomkey.domain.session import AnyEvent, Session, SessionId, UserRevoked, partition_of_id
from roomkey.errors import RoomkeyError
from roomkey.ports import GRANTS_ALONE, AccessDecisions, Authenticator, Broker, Clock, Counters, PresenceStore, Rate
from roomkey.ports.observing import PresenceObserver
from roomkey.realtime.admission import Admission
from roomkey.realtime.clients.client import RealtimeClient
from roomkey.realtime.clients.json_client import JsonClient
from roomkey.realtime.clients.json_rules import JsonRules
from roomkey.realtime.connection_counts import ConnectionCounts
from roomkey.realtime.connections import Connections, fault_of
from roomkey.realtime.document_endpoint import DocumentEndpoint
from roomkey.realtime.protocol.json_messages import ErrorCode, Fault
from roomkey.realtime.protocol.message_types import compile_types
from roomkey.realtime.refusals import Refusal, Refusals, refusal_of, too_many, unavailable
from roomkey.realtime.roll_call import RollCall
from roomkey.realtime.rooms.broker import LocalBroker
from roomkey.realtime.rooms.hub import Hub
from roomkey.realtime.rooms.rooms import Rooms
from roomkey.realtime.rooms.shared_rooms import SharedRooms
from roomkey.realtime.session.closing import closing, draining
from roomkey.realtime.session.effects import Question, Review, Verify
from roomkey.realtime.session.guard import GuardEffects, SessionGuard
from roomkey.realtime.settings import RealtimeSettings
from roomkey.realtime.transport import Accepted, Handshake, Refused
from roomkey.security.authorization import actor_of
from roomkey.security.credentials import client_of, select_subprotocol
from roomkey.security.events import SecurityEvents, SecurityEventType
from roomkey.security.injection import Inspector, Suspicion
from roomkey.security.limits import DEFAULTS as LIMITS
from roomkey.security.limits import LimitSettings
from roomkey.security.networks import membership, network_of
from roomkey.security.possession import Possession
from roomkey.security.tickets import Tickets
from roomkey.wire.close import CloseReason

QUESTIONS_AT_A_TIME: Final = 16
"""Maximum number of session checks in flight."""

DRAIN_STEP_SECONDS: Final = 0.1

VERIFIED_AT_A_TIME: Final = 20
VERIFY_PAUSE_SECONDS: Final = 0.01
"""After a time in which nothing was known: at most 2,000 sessions per second are asked for."""


_log = structlog.get_logger("roomkey.realtime")


class RealtimeStatistics(Struct, frozen=True, kw_only=True):
    """Where the sockets of this node stand, and counters since it started. Sizes are bytes of messages."""

    connections: int
    sessions: int
    documents: int
    histories_bytes: int
    messages_in: int
    bytes_in: int
    messages_out: int
    bytes_out: int
    publications: int
    cursors_collapsed: int
    dropped: int
    """Messages that were waiting for a connection when it was closed."""
    slow_closes: int
    refused: int
    """Handshakes that were refused, in plain HTTP or by a socket that was closed at once."""
    revoked: int
    """Connections that were closed because something happened to their session."""
    ignored: int = 0
    """Messages of other nodes that this one did not understand."""


class SessionWebSocketHandler:
    """
    The ``HandshakeHandler`` of every WebSocket endpoint, and the watch over the sockets while they are open.

    Whoever commits changes of sessions calls ``on_events`` with them: sockets of ended sessions are closed
    before that returns. ``run`` must run as long as there are sockets: it ends those whose time is over.
    All on one event loop.
    """

    def __init__(  # noqa: PLR0913  # each is a part of the node
        self,
        sessions: Authenticator,
        *,
        settings: RealtimeSettings | None = None,
        clock: Clock,
        tickets: Tickets,
        counters: Counters,
        open_documents: OpenDocuments | None = None,
        broker: Broker | None = None,
        presence: PresenceStore | None = None,
        node: str | None = None,
        events: SecurityEvents | None = None,
        possession: Possession | None = None,
        public_url: str | None = None,
        limits: LimitSettings = LIMITS,
        is_audit_behind: Callable[[], bool] = lambda: False,
        inspector: Inspector | None = None,
        schedule: Callable[[Callable[[], None]], object] | None = None,
        living: Callable[[], Collection[str]] = tuple,
        decisions: AccessDecisions = GRANTS_ALONE,
        observer: PresenceObserver | None = None,
    ) -> None:
        """
        Args:
            broker: Carries what is published in rooms; by default to this node alone.
            presence: Where nodes that share the broker say who is in their rooms, and how many connections each session
                has; such a node has a name, too.
            node: The name of this process, which clients of rooms are told.
            counters: Counts the handshakes of each address.
            open_documents: The documents that Yjs editors may open; without one there are no sockets for them.
            events: Where it is reported which handshakes are refused, and why.
            possession: Looks at proofs of those whose sessions are bound; without it nobody proves anything.
            public_url: Where clients believe to find us, which is what their proofs say.
            limits: How many sockets an address may have, and which are exempt from limits.
            is_audit_behind: Whether nobody is let in, because what is done cannot be recorded.
            inspector: Looks at what is sent on ``/ws``; without one nobody does.
            living: Says which nodes on the broker live, who are asked who is connected there.
            decisions: Say what sessions may do in documents; by default their grants alone do.
            schedule: Calls a function in the next turn of the loop; for tests that are that loop themselves.

        Raises:
            ConfigurationError: If a message type of the application cannot be used.
        """
        self._settings = settings = settings or RealtimeSettings()
        self._sessions = sessions
        self._clock = clock
        self._node = node
        self._types = compile_types(settings.message_types)
        self._inspector = inspector if inspector is not None and inspector.reads_text else None
        hub = Hub(max_outbox_size=settings.max_outbox_bytes, schedule=schedule)
        self._rooms = _new_rooms(settings, hub, broker, presence=presence, node=node, clock=clock)
        documents = DocumentSettings() if open_documents is None else open_documents.settings
        self._connections = Connections(
            settings, documents, clock, self._rooms, decisions, node=node or "", observer=observer
        )
        self.roll_call = RollCall(self._connections, broker=broker, node=node or "", living=living)
        """Who is connected to documents, on all nodes, and who disconnects them."""
        self._counts = None if presence is None or broker is None or not broker.shared else self._new_counts(presence)
        if isinstance(self._rooms, SharedRooms):
            self._connections.troubles.append(self._rooms.broker.degradations)
        self._admission = Admission(
            sessions,
            self._connections,
            settings=settings,
            tickets=tickets,
            counts=self._counts,
            possession=possession,
            public_url=public_url,
            is_audit_behind=is_audit_behind,
        )
        self._open_documents = open_documents
        self._document_endpoint = None if open_documents is None else self._new_document_endpoint(open_documents)
        self._counters = counters
        self._events = events or SecurityEvents(clock)
        self._connections.on_suspicion = self._suspected
        self._refusals = Refusals(settings, clock, counters)
        self._handshake_rate = Rate(settings.handshakes_per_second, settings.handshake_burst)
        self._max_of_network = limits.max_sockets_per_address
        self._is_exempt = membership(limits.exempt_networks)
        self._entering = 0
        self._refused = 0
        self._revoked = 0

    def _new_counts(self, presence: PresenceStore) -> ConnectionCounts:
        of_session = self._connections.registry.of_session
        counts = ConnectionCounts(presence, lambda session: len(of_session(session)), node=self._node or "")
        self._connections.count_changed = counts.changed
        return counts

    def _new_document_endpoint(self, open_documents: OpenDocuments) -> DocumentEndpoint:
        return DocumentEndpoint(
            open_documents,
            self._connections,
            admission=self._admission,
            settings=self._settings,
        )

    # --- who is let in --------------------------------------------------------------------------------

    async def accept(self, handshake: Handshake) -> Accepted | Refused:
        """Answer a handshake: a session is let in, everything else is refused, see ``refusals``."""
        try:
            async with asyncio.timeout(self._settings.authentication_timeout.total_seconds()):
                await self._check_capacity(handshake)
                # No await between the check and this.
                self._entering += 1
                try:
                    return await self._let_in(handshake)
                finally:
                    self._entering -= 1
        except Refusal as refusal:
            return await self._refuse(refusal, handshake)
        except RoomkeyError as error:
            return await self._refuse(refusal_of(error), handshake)
        except TimeoutError:
            return await self._refuse(unavailable("overloaded", "The session could not be checked in time."), handshake)

    async def _refuse(self, refusal: Refusal, handshake: Handshake) -> Accepted | Refused:
        self._refused += 1
        self._events.refused(refusal.code, address=handshake.client_ip, place=handshake.path)
        endpoint = self._document_endpoint
        is_stock = handshake.path != self._settings.path
        greeting = endpoint.greeting(handshake.path) if is_stock and endpoint is not None else ()
        return await self._refusals.answer(refusal, handshake, is_stock=is_stock, greeting=greeting)

    async def _check_capacity(self, handshake: Handshake) -> None:
        settings = self._settings
        if handshake.path != settings.path and not self._is_for_editors(handshake):
            raise Refusal(HTTPStatus.NOT_FOUND, "not_found", "There is no socket at this address.")
        self._admission.check_open()
        address = handshake.client_ip or ""
        if not self._is_exempt(address):
            await self._check_network(network_of(address))
        if len(self._connections.registry) + self._entering >= settings.max_connections:
            raise unavailable("overloaded", "The server has as many connections as it may.")

    async def _check_network(self, network: str) -> None:
        if wait := await self._counters.take(network, self._handshake_rate):
            raise too_many("rate_limited", "Too many connections from this address at once.", wait=wait)
        if self._connections.of_network[network] >= self._max_of_network:
            raise too_many("too_many_connections", "This address has as many connections as it may.")

    def _is_for_editors(self, handshake: Handshake) -> bool:
        return self._document_endpoint is not None and self._document_endpoint.leads_to(handshake.path)

    async def _let_in(self, handshake: Handshake) -> Accepted:
        if self._document_endpoint is not None and handshake.path != self._settings.path:
            return await self._document_endpoint.accept(handshake)
        session = await self._admission.authenticate_handshake(handshake)
        client = await self._admission.admit(
            session,
            lambda limits, now: JsonClient(
                JsonRules(
                    SessionGuard(session, limits, settings=self._settings, now=now),
                    settings=self._settings,
                    types=self._types,
                    inspector=self._inspector,
                    node=self._node,
                    decisions=self._connections.decisions,
                ),
                self._connections,
                client_of(handshake.headers, handshake.client_ip),
                self._rooms,
            ),
        )
        client.entrance = handshake
        return Accepted(
            conversation=client,
            subprotocol=select_subprotocol(handshake.subprotocols),
            max_message_bytes=self._settings.max_frame_bytes,
        )

    def _suspected(self, session: Session, what: Suspicion) -> None:
        if self._inspector is not None and self._inspector.is_news(session.id, self._clock.now()):
            self._events.report(
                SecurityEventType.INVALID_INPUT,
                errors.SuspiciousInput.code,
                actor=actor_of(session),
                session=session.id,
                user=session.user_id,
                place=self._settings.path,
                details={"looks_like": what.value},
            )

    # --- what happens to sessions ---------------------------------------------------------------------

    def on_events(self, events: Sequence[AnyEvent]) -> None:
        """Let the sockets of these sessions know, at once. Repetitions do not matter."""
        registry = self._connections.registry
        for event in events:
            if isinstance(event, UserRevoked):
                for client in registry.of_user(event.user):
                    self._tell(client, event)
            else:
                for client in registry.of_session(event.session):
                    self._tell(client, event)

    def on_gap(self, partition: int) -> None:
        """Events of these sessions were missed: nothing of theirs passes until storage says how they stand."""
        for client in tuple(self._connections.registry):
            if partition_of_id(client.guard.session.id) == partition:
                self._doubt(client)

    # --- what cannot be known ---------------------------------------------------------------------------

    def let_nobody_in(self) -> None:
        """Refuse handshakes until ``let_in``: it is not known what happens to sessions."""
        self._admission.is_blind = True

    def let_in(self) -> None:
        """Accept handshakes again."""
        self._admission.is_blind = False

    def close_all(self) -> None:
        """Close every socket; its client may come back."""
        for client in tuple(self._connections.registry):
            client.end(closing(CloseReason.UNAVAILABLE))

    def doubt_all(self) -> None:
        """Let nothing pass on any socket until storage says how its session stands."""
        for client in tuple(self._connections.registry):
            self._doubt(client)

    async def verify_all(self) -> None:
        """As ``doubt_all``, one socket after the other, so that storage can bear it."""
        questions = self._connections.questions
        for number, client in enumerate(tuple(self._connections.registry)):
            while questions.qsize() >= QUESTIONS_AT_A_TIME:  # noqa: ASYNC110  # a queue tells nobody of that
                await asyncio.sleep(VERIFY_PAUSE_SECONDS)
            if number % VERIFIED_AT_A_TIME == VERIFIED_AT_A_TIME - 1:
                await asyncio.sleep(VERIFY_PAUSE_SECONDS)
            self._doubt(client)

    def _doubt(self, client: RealtimeClient) -> None:
        client.carry_out_safely(lambda _: client.guard.doubt())
        self._connections.watch(client)

    def say_connections(self) -> None:
        """Tell other nodes again how many connections sessions have here: they may have taken this node for dead."""
        if self._counts is not None:
            self._counts.changed(self.sessions())

    def sessions(self) -> Sequence[SessionId]:
        """The sessions that have a socket here."""
        return tuple({client.guard.session.id: None for client in self._connections.registry})

    def in_use(self) -> Iterator[tuple[Session, Sequence[str]]]:
        """The session of each open socket, and the documents that it is in."""
        for client in tuple(self._connections.registry):
            yield client.guard.session, client.documents()

    def review(self, id: SessionId, reason: str | None = None) -> None:
        """Let the sockets of the session obey what it may do now, as far as that is known; see ``Review``."""
        effects = (Review(reason),)
        for client in self._connections.registry.of_session(id):
            if not client.guard.is_over:
                client.carry_out_safely(lambda _: effects)

    def traffic(self, id: SessionId) -> tuple[Session, int, int] | None:
        """A session that has sockets here, what they have sent, and how many of its messages were refused."""
        return self._connections.traffic(id)

    def warn(self, id: SessionId, details: Mapping[str, Any], until: datetime) -> None:
        """Warn the clients of the session that are here, and those that come before ``until``."""
        self._connections.warn(id, details, until)

    def watch_for_troubles(self, troubles: Callable[[], Mapping[str, str]]) -> None:
        """Tell clients that the service is degraded while ``troubles`` names anything, too. It must not wait."""
        self._connections.troubles.append(troubles)

    def nodes_gone(self, ids: Sequence[str]) -> None:
        """These nodes live no more: nobody is shown by way of them."""
        if isinstance(self._rooms, SharedRooms):
            self._rooms.nodes_gone(ids)

    def _tell(self, client: RealtimeClient, event: AnyEvent) -> None:
        was_over = client.guard.is_over
        client.carry_out_safely(lambda now: client.guard.happened(event, now))
        if client.guard.is_over and not was_over:
            self._revoked += 1
        self._connections.watch(client)

    # --- what time brings -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Watch deadlines, ask storage what connections want to know, and record activity, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._connections.work_in(group)
                group.create_task(self._keep_ticking())
                group.create_task(self._keep_touching())
                group.create_task(self.roll_call.run())
                if self._counts is not None:
                    group.create_task(self._counts.run())
                if isinstance(self._rooms, SharedRooms):
                    group.create_task(self._rooms.run())
                for _ in range(QUESTIONS_AT_A_TIME):
                    group.create_task(self._keep_answering())
        finally:
            self._connections.work_in(None)

    def tick(self) -> None:
        """Do what is due now. ``run`` calls this every ``settings.tick``."""
        now = self._clock.now()
        connections = self._connections
        for client in connections.deadlines.pop_due(now):
            if client.is_open:
                client.carry_out_safely(client.guard.due)
                connections.watch(client)
            else:
                client.end(closing(CloseReason.NOT_OPENED))
        self._refusals.tick(now)
        connections.sweep(now)
        if self._document_endpoint is not None:
            self._document_endpoint.tick(now)

    async def _keep_ticking(self) -> None:
        while True:
            await asyncio.sleep(self._settings.tick.total_seconds())
            self.tick()

    async def _keep_touching(self) -> None:
        while True:
            await asyncio.sleep(self._settings.tick.total_seconds())
            await self.record_activity()
            await self.record_violations()

    async def record_activity(self) -> None:
        """Let storage know of the sessions that were active since the last time. ``run`` calls this."""
        for id in self._connections.take_touched():
            # If it fails, the next activity tries again; until then the session is older than it should be.
            await self._record(id, "activity_not_recorded", self._sessions.touch(id))

    async def record_violations(self) -> None:
        """Let storage know of the sessions that misbehaved since the last time. ``run`` calls this."""
        for id, cause in self._connections.take_violations():
            await self._record(id, "violation_not_recorded", self._sessions.record_violation(id, cause))

    async def _record(self, id: SessionId, failure: str, work: Awaitable[object]) -> None:
        try:
            async with asyncio.timeout(self._settings.authentication_timeout.total_seconds()):
                await work
        except (RoomkeyError, TimeoutError) as error:
            _log.warning(failure, session=id, error=str(error))

    async def _keep_answering(self) -> None:
        while True:
            await self.answer_next()

    async def answer_next(self) -> None:
        """Wait for a question of a connection, and have it answered. ``run`` calls this."""
        client, question = await self._connections.questions.get()
        if client.guard.is_over:
            return
        try:
            async with asyncio.timeout(self._settings.authentication_timeout.total_seconds()):
                effects = await self._answer(client, question)
        except TimeoutError:
            effects = self._no_answer(client, question, errors.Storage("storage did not answer in time"))
        except RoomkeyError as error:
            effects = self._no_answer(client, question, error)
        except Exception:  # noqa: BLE001  # one question may not end the answering of all others
            _log.exception("question_failed", session=client.guard.session.id)
            effects = client.guard.close(closing(CloseReason.UNAVAILABLE))
        client.carry_out_safely(lambda _: effects)
        client.resume()
        self._connections.watch(client)

    async def _answer(self, client: RealtimeClient, question: Question) -> GuardEffects:
        connection = client.guard
        if isinstance(question, Verify):
            session = await self._sessions.get_session(connection.session.id)
            return connection.verified(session, self._clock.now())
        if client.entrance is None:
            session = await self._sessions.authenticate(question.token, client=client.device, is_activity=False)
        else:
            attempt = self._admission.attempt(client.entrance, question.proof)
            session = await self._admission.authenticate_attempt(attempt, question.token, client.device)
        others = len(self._connections.registry.of_session(session.id))
        if session.id != connection.session.id:
            if others >= self._settings.max_connections_per_session:
                fault = Fault(ErrorCode.RATE_LIMITED, "the session has as many connections as it may")
                return connection.not_refreshed(fault, self._clock.now())
            # The client's documents are reviewed as soon as it belongs to this session, which does not wait.
            for document in client.documents():
                await self._connections.decisions.decide(session, document)
        return connection.refreshed(session, self._clock.now())

    def _no_answer(self, client: RealtimeClient, question: Question, error: RoomkeyError) -> GuardEffects:
        now = self._clock.now()
        if isinstance(question, Verify):
            return client.guard.unverified(now)
        return client.guard.not_refreshed(fault_of(error), now)

    # --- the end --------------------------------------------------------------------------------------

    async def drain(self, within: timedelta) -> None:
        """
        Refuse new connections, and close the open ones, spread over ``within``.

        Clients reconnect when they are told to, without jitter of their own; so each is told another time.
        """
        self._admission.is_draining = True
        self._refusals.drain()
        if self._document_endpoint is not None:
            self._document_endpoint.drain()
        clients = list(self._connections.registry)
        random.shuffle(clients)
        steps = max(1, int(within.total_seconds() / DRAIN_STEP_SECONDS))
        at_once = max(1, ceil(len(clients) / steps))
        for start in range(0, len(clients), at_once):
            if start:
                await asyncio.sleep(DRAIN_STEP_SECONDS)
            for client in clients[start : start + at_once]:
                # S311: jitter is no secret.
                reconnect_after = self._settings.reconnect_after * random.uniform(0.1, 1.0)  # noqa: S311
                client.end(draining(reconnect_after))

    def statistics(self) -> RealtimeStatistics:
        """The figures now; reading them costs nothing."""
        connections, rooms = self._connections, self._rooms
        traffic = rooms.hub.traffic
        return RealtimeStatistics(
            connections=len(connections.registry),
            sessions=connections.registry.sessions,
            documents=len(rooms),
            histories_bytes=rooms.broker.kept_bytes(),
            messages_in=connections.messages_in,
            bytes_in=connections.bytes_in,
            messages_out=traffic.messages,
            bytes_out=traffic.bytes,
            publications=rooms.publications,
            cursors_collapsed=traffic.cursors_collapsed,
            dropped=traffic.dropped,
            slow_closes=traffic.slow_closes,
            refused=self._refused,
            revoked=self._revoked,
            ignored=rooms.ignored_messages if isinstance(rooms, SharedRooms) else 0,
        )


def _new_rooms(
    settings: RealtimeSettings,
    hub: Hub,
    broker: Broker | None,
    *,
    presence: PresenceStore | None,
    node: str | None,
    clock: Clock,
) -> Rooms:
    if broker is None or not broker.shared:
        return Rooms(settings, hub, broker or LocalBroker(settings, clock))
    if presence is None or node is None:
        raise errors.ConfigurationError("a node that shares its broker needs a name, and a place to say who is there")
    return SharedRooms(settings, hub, broker, presence=presence, node=node, clock=clock)
