"""Sockets, sessions and a loop that tests hold in their hands, around the real realtime services."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec.structs import replace

from roomkey.backends.memory.counters import MemoryCounters
from roomkey.backends.memory.one_time import MemoryOneTime
from roomkey.domain.access import EVERYTHING_WRITABLE, Access, Grant, Grants
from roomkey.domain.lifecycle import NEXT_STATE, apply, check_usable, overdue
from roomkey.domain.session import (
    AnyEvent,
    Client,
    Deleted,
    Invalidated,
    Session,
    SessionEvent,
    SessionId,
    SessionState,
    UserRevoked,
)
from roomkey.errors import InvalidToken
from roomkey.ports import Broker, Counters, PresenceStore
from roomkey.realtime.clients.json_client import JsonClient
from roomkey.realtime.endpoint import SessionWebSocketHandler
from roomkey.realtime.rooms.rooms import Rooms
from roomkey.realtime.settings import RealtimeSettings
from roomkey.realtime.transport import Accepted, Conversation, Handshake, Refused
from roomkey.security.events import SecurityEvent, SecurityEvents
from roomkey.security.injection import Inspector
from roomkey.security.possession import check_holder
from roomkey.security.tickets import TICKET_LIMITS, Tickets
from roomkey.testing.clock import ManualClock
from roomkey.wire.frame import Frame
from tests.support.ws_messages import fulfils, heard

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
READ_ONLY: Grants = (Grant("**", Access.READ),)


class Turns:
    """What ``call_soon`` is to a loop: functions that are called when the test says that a turn begins."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def __call__(self, callback: Callable[[], None]) -> None:
        self.waiting.append(callback)

    def turn(self) -> None:
        """One turn; what is scheduled during it waits for the next."""
        waiting, self.waiting = self.waiting, []
        for callback in waiting:
            callback()

    def settle(self) -> None:
        """Turns until nothing waits."""
        while self.waiting:
            self.turn()


class FakeSocket:
    """
    A ``Socket`` whose reader takes everything at once, or, while ``stalled``, nothing.

    ``messages`` are what arrived, decoded; ``unread`` is what the operating system has not taken.
    """

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.sends: list[Sequence[Frame]] = []
        self.unread = 0
        self.stalled = False
        self.closed_with: tuple[int, str] | None = None
        self.aborted = False
        self._read = 0

    def send(self, frames: Sequence[Frame]) -> None:
        if self.closed_with is not None or self.aborted:
            return
        self.sends.append(frames)
        self.frames.extend(frames)
        if self.stalled:
            self.unread += sum(frame.size for frame in frames)

    def buffered(self) -> int:
        return self.unread

    def close(self, code: int, reason: str = "") -> None:
        if self.closed_with is None:
            self.closed_with = (int(code), str(reason))

    def abort(self) -> None:
        self.aborted = True

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(frame.payload) for frame in self.frames]

    def news(self) -> list[dict[str, Any]]:
        """The messages since this was last asked."""
        news = self.messages[self._read :]
        self._read += len(news)
        return news


class JsonSocket(FakeSocket):
    """One of ``/ws``: whatever arrives is what the schema of its messages says."""

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [heard(frame.payload) for frame in self.frames]


class FakeSessions:
    """``ports.Authenticator`` in a dictionary; commands tell the listener at once, as the manager does."""

    def __init__(self, clock: ManualClock, *, first: int = 0) -> None:
        """``first`` sessions are those of others: no two nodes issue the same."""
        self._clock = clock
        self._sessions: dict[SessionId, Session] = {}
        self._tokens: dict[str, SessionId] = {}
        self._issued = first
        self.listener: Callable[[Sequence[AnyEvent]], None] = lambda _: None
        self.touched: list[SessionId] = []
        self.violations: list[tuple[SessionId, str]] = []
        self.failure: Exception | None = None
        self.before_returning: Callable[[], object] = lambda: None
        """Called once between the next read and its return: where the races are."""

    def issue(
        self,
        user_id: str = "alice",
        *,
        grants: Grants = EVERYTHING_WRITABLE,
        state: SessionState = SessionState.ACTIVE,
        lifetime: timedelta = timedelta(hours=24),
        idle: timedelta | None = timedelta(hours=1),
    ) -> tuple[Session, str]:
        self._issued += 1
        now = self._clock.now()
        session = Session(
            id=SessionId(f"3a{self._issued:026d}"),
            user_id=user_id,
            state=state,
            created_at=now,
            expires_at=now + lifetime,
            idle_timeout=idle,
            activation_timeout=timedelta(minutes=10),
            last_seen_at=now,
            version=2,
            grants=grants,
        )
        token = f"{session.id}.{'s' * 43}"
        self._sessions[session.id] = session
        self._tokens[token] = session.id
        return session, token

    def adopt(self, session: Session) -> None:
        """Know a session of another node, with its token."""
        self._sessions[session.id] = session
        self._tokens[f"{session.id}.{'s' * 43}"] = session.id

    def __getitem__(self, id: SessionId) -> Session:
        return self._sessions[id]

    def get(self, id: SessionId) -> Session | None:
        """The session as it is stored."""
        return self._sessions.get(id)

    def settle(self, id: SessionId) -> Session | None:
        """The session, expired if its time is over."""
        session = self._sessions.get(id)
        if session is not None and (event := overdue(session, self._clock.now())) is not None:
            session = self._sessions[id] = apply(session, event)
            self.listener([event])
        return session

    def change_if_allowed(self, id: SessionId, kind: type[SessionEvent]) -> None:
        """As ``change``, unless the session is gone or its state does not allow it."""
        session = self._sessions.get(id)
        if session is not None and (kind is Deleted or kind in NEXT_STATE[session.state]):
            self.change(id, kind)

    def regrant(self, id: SessionId, grants: Grants) -> None:
        """Other grants, in a way that no event tells of."""
        session = self._sessions[id]
        self._sessions[id] = replace(session, grants=grants, version=session.version + 1)

    def change(self, id: SessionId, kind: type[SessionEvent], *, tell: bool = True, **fields: Any) -> SessionEvent:
        session = self._sessions[id]
        event = kind(session=id, user=session.user_id, version=session.version + 1, at=self._clock.now(), **fields)
        if kind is Deleted:
            del self._sessions[id]
        else:
            self._sessions[id] = apply(session, event)
        if tell:
            self.listener([event])
        return event

    def revoke_user(self, user_id: str, *, keep: SessionId | None = None, tell: bool = True) -> UserRevoked:
        revoked = UserRevoked(user=user_id, epoch=1, at=self._clock.now(), session=keep)
        for session in list(self._sessions.values()):
            if session.user_id == user_id and session.id != keep and session.state.is_live:
                self.change(session.id, Invalidated, tell=False)
        if tell:
            self.listener([revoked])
        return revoked

    async def authenticate(
        self,
        token: str,
        *,
        client: Client | None = None,  # noqa: ARG002  # as the manager
        is_activity: bool = True,
        held: Sequence[str] = (),
    ) -> Session:
        session = self._read(self._tokens.get(token, SessionId("")))
        if session is None:
            raise InvalidToken("no session answers to this token")
        check_holder(session, held)
        check_usable(session, even_pending=True)
        if is_activity:
            await self.touch(session.id)
        return session

    async def get_session(self, id: SessionId) -> Session | None:
        return self._read(id)

    async def recognise(self, session: Session, client: Client) -> None:
        """Nobody watches."""

    async def touch(self, id: SessionId) -> None:
        self._fail()
        self.touched.append(id)
        session = self._sessions.get(id)
        if session is not None:
            self._sessions[id] = replace(session, last_seen_at=self._clock.now())

    async def record_violation(self, id: SessionId, cause: str) -> None:
        self._fail()
        self.violations.append((id, cause))

    def _read(self, id: SessionId) -> Session | None:
        self._fail()
        session = self.settle(id)
        hook, self.before_returning = self.before_returning, lambda: None
        hook()
        return session

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


class Node:
    """A ``SessionWebSocketHandler`` on a loop, a clock and sessions in the hands of the test."""

    def __init__(
        self,
        *,
        broker: Broker | None = None,
        presence: PresenceStore | None = None,
        node: str | None = None,
        clock: ManualClock | None = None,
        counters: Counters | None = None,
        first_session: int = 0,
        inspector: Inspector | None = None,
        living: Callable[[], Collection[str]] = tuple,
        **settings: Any,
    ) -> None:
        self.clock = clock or ManualClock(NOON)
        self.turns = Turns()
        self.sessions = FakeSessions(self.clock, first=first_session)
        self.tickets = Tickets(MemoryOneTime(self.clock, TICKET_LIMITS))
        self.counters = MemoryCounters(self.clock) if counters is None else counters
        self.settings = RealtimeSettings(**settings)
        self.is_audit_behind = False
        self.reported: list[SecurityEvent] = []
        events = SecurityEvents(self.clock)
        events.listen(self.reported.append)
        self.handler = SessionWebSocketHandler(
            self.sessions,
            settings=self.settings,
            clock=self.clock,
            tickets=self.tickets,
            broker=broker,
            presence=presence,
            node=node,
            counters=self.counters,
            is_audit_behind=lambda: self.is_audit_behind,
            events=events,
            inspector=inspector,
            schedule=self.turns,
            living=living,
        )
        self.sessions.listener = self.handler.on_events
        self._connections = self.handler._connections  # pyright: ignore[reportPrivateUsage]  # tests look at what is kept

    @asynccontextmanager
    async def at_work(self) -> AsyncGenerator[None]:
        """The handler runs, with everything that it does in the background, until the block is left."""
        running = asyncio.create_task(self.handler.run())
        await asyncio.sleep(0)
        try:
            yield
        finally:
            running.cancel()
            await asyncio.wait([running])

    @property
    def rooms(self) -> Rooms:
        return self._connections.rooms

    @property
    def questions(self) -> asyncio.Queue[Any]:
        return self._connections.questions

    def deadlines(self) -> int:
        return len(self._connections.deadlines)

    def remembered(self) -> dict[str, int]:
        """How much the handler keeps of what."""
        host = self._connections
        return {
            "peers": len(host.registry),
            "ledgers": len(host.limits),
            "rooms": len(host.rooms),
            "presence": host.rooms.present(),
        }

    async def knock(self, token: str | None = None, **fields: Any) -> Accepted | Refused:
        headers = dict(fields.pop("headers", {}))
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        path = fields.pop("path", "/ws")
        handshake = Handshake(
            path=path, raw_path=path, query=fields.pop("query", {}), headers=headers, client_ip="192.0.2.1", **fields
        )
        return await self.handler.accept(handshake)

    async def enter(self, token: str) -> "Caller":
        """A client whose handshake was accepted, and who has been greeted."""
        answer = await self.knock(token)
        assert isinstance(answer, Accepted), answer
        caller = Caller(self, answer.conversation)
        caller.open()
        caller.news()
        return caller

    async def client(self, user_id: str = "alice", **session: Any) -> "Caller":
        """A client with a new session."""
        _, token = self.sessions.issue(user_id, **session)
        return await self.enter(token)

    async def member(self, document: str = "d", user_id: str = "alice", **session: Any) -> "Caller":
        """A client with a new session that follows ``document``."""
        caller = await self.client(user_id, **session)
        caller.say("subscribe", {"document": document})
        caller.news()
        return caller

    async def answer(self) -> None:
        """Let storage answer what connections asked."""
        while not self.questions.empty():
            await self.handler.answer_next()
        self.turns.settle()

    def pass_time(self, **duration: float) -> None:
        """Time passes, and the handler notices."""
        self.clock.advance(timedelta(**duration))
        self.handler.tick()
        self.turns.settle()


class Caller:
    """A client: what it says, and what it heard."""

    def __init__(self, node: Node, conversation: Conversation) -> None:
        assert isinstance(conversation, JsonClient)
        self.node = node
        self.peer = peer = conversation
        self.socket = JsonSocket()
        self.session = peer.guard.session
        self._number = 0

    def open(self) -> None:
        self.peer.opened(self.socket)
        self.node.turns.settle()

    def say(self, message_type: str, payload: Mapping[str, Any] | None = None, *, id: str | None = None) -> str:
        """Send a message and let the loop turn; returns the message's id."""
        before = len(self.socket.frames)
        self.whisper(message_type, payload, id=id)
        self.node.turns.settle()
        if not fulfils(self._said) and self.closed_with is None:
            assert any(_is_refusal(heard(frame.payload), self._last) for frame in self.socket.frames[before:])
        return self._last

    def whisper(self, message_type: str, payload: Mapping[str, Any] | None = None, *, id: str | None = None) -> str:
        """Send a message within the current turn."""
        self._number += 1
        self._last = id or f"m{self._number}"
        body = {"id": self._last, "message_type": message_type, "payload": payload or {}, "timestamp": NOON}
        self._said = msgspec.json.encode(body)
        self.peer.text(self._said)
        return self._last

    def raw(self, message: bytes) -> None:
        self.peer.text(message)
        self.node.turns.settle()

    def edit(self, text: str, document: str = "d", *, id: str | None = None) -> str:
        return self.say("realtime_edit", {"document": document, "text": text}, id=id)

    def news(self) -> list[dict[str, Any]]:
        return self.socket.news()

    def answer_to(self, id: str) -> dict[str, Any]:
        """The one message that refers to ``id``."""
        (message,) = [message for message in self.socket.messages if message["id"] == id]
        return message

    def payload_of(self, message_type: str) -> dict[str, Any]:
        """The payload of the one unread message of this type."""
        (payload,) = [message["payload"] for message in self.news() if message["message_type"] == message_type]
        return payload

    def hang_up(self, code: int = 1000) -> None:
        self.peer.closed(code)
        self.node.turns.settle()

    @property
    def closed_with(self) -> tuple[int, str] | None:
        return self.socket.closed_with


def _is_refusal(message: Mapping[str, Any], id: str) -> bool:
    return message["id"] == id and message["message_type"] == "error"
