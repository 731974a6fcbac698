"""Documents in the hands of a test: a store with bad days, a node on a clock that stands still, and editors."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from pycrdt import Doc, Map, Text, TransactionEvent

from roomkey.backends.memory.counters import MemoryCounters
from roomkey.backends.memory.documents import MemoryDocumentStore
from roomkey.backends.memory.one_time import MemoryOneTime
from roomkey.documents.crdt.awareness import Owner
from roomkey.documents.crdt.replica import Replica
from roomkey.documents.document import Document
from roomkey.documents.loading import Seed, assemble
from roomkey.documents.open_documents import OpenDocuments
from roomkey.documents.relay import Peers
from roomkey.documents.settings import DocumentSettings
from roomkey.documents.writer import Draft
from roomkey.errors import Storage
from roomkey.ports import Append, AppendOutcome, Author, DocumentUpdate, StoredDocument
from roomkey.realtime.endpoint import SessionWebSocketHandler
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.realtime.rooms.hub import Outbox
from roomkey.realtime.settings import RealtimeSettings
from roomkey.realtime.transport import Accepted, Conversation, Handshake, Refused
from roomkey.security.tickets import TICKET_LIMITS, Tickets
from roomkey.testing.clock import ManualClock
from roomkey.wire import lib0
from tests.support.sockets import NOON, FakeSessions, FakeSocket, Turns

ALICE, BOB = Author("user:alice", None, "alice"), Author("user:bob", None, "bob")

TURNS = 30
"""More than anything takes that waits for nobody."""


class FaultyStore(MemoryDocumentStore):
    """
    A store that is ``away`` when the test says so, or acts only when its ``gate`` is opened, or is ``slow`` to say that
    it has appended, which it does when it is ``late``; a ``fault`` is
    something that no store should raise.

    Commits with one of the ``broken`` documents fail. ``appended`` are the batches that were stored, ``commits`` the
    documents that were stored together, ``tried`` counts those that were brought. What happened is in
    ``calls``; ``at_once`` is the most appends to one document that were under way at the same time.
    """

    def __init__(self, *, shared: bool = False) -> None:
        super().__init__()
        self.shared = shared
        self.away = False
        self.fault: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.slow = False
        self.late = asyncio.Event()
        self.calls: list[str] = []
        self.tried_at: list[float] = []
        self.appended: list[list[bytes]] = []
        self.commits: list[list[str]] = []
        self.broken: set[str] = set()
        self.at_once = 0
        self._under_way: dict[str, int] = {}

    @property
    def loads(self) -> int:
        return self.calls.count("load")

    async def load(self, name: str) -> StoredDocument | None:
        self.calls.append("load")
        await self._answer()
        return await super().load(name)

    async def append(
        self, name: str, lineage: str, updates: Sequence[DocumentUpdate], *, after: int | None = None
    ) -> int:
        self.tried_at.append(asyncio.get_running_loop().time())
        self._under_way[name] = self._under_way.get(name, 0) + 1
        self.at_once = max(self.at_once, self._under_way[name])
        try:
            await self._answer()
            head = await super().append(name, lineage, updates, after=after)
        finally:
            self._under_way[name] -= 1
        self.appended.append([update.data for update in updates])
        if self.slow:
            await self.late.wait()
        return head

    async def append_each(self, appends: Sequence[Append]) -> Sequence[AppendOutcome]:
        if self.broken.intersection(each.name for each in appends):
            raise Storage("this document cannot be stored")
        outcomes = await super().append_each(appends)
        self.commits.append([each.name for each in appends])
        return outcomes

    async def _answer(self) -> None:
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        if self.away:
            raise Storage("the store is away")

    def forget_updates(self, count: int, name: str = "d", *, in_silence: bool = False) -> None:
        """Lose the last updates, as a server does that fails over; ``in_silence``, ``changes`` does not tell."""
        document = self._documents[name]
        assert len(document.log) >= count
        del document.log[len(document.log) - count :]
        self._changes += not in_silence

    def forget_documents(self) -> None:
        """Come back empty."""
        self._documents.clear()
        self._names.clear()
        self._graves.clear()
        self._changes += 1

    async def content(self, name: str) -> Replica:
        """What a process that begins now would find."""
        stored = await super().load(name)
        return Replica() if stored is None else await assemble(stored)

    async def text(self, name: str) -> str:
        """What it would read."""
        return text_of((await self.content(name)).doc)


def text_of(doc: Doc[Any]) -> str:
    """What the document says."""
    return str(doc.get("content", type=Text))


def text(document: Document) -> str:
    """What an open document says."""
    return text_of(document.replica.doc)


class Writer:
    """Somebody with a document of their own; ``updates`` are what they did, one by one."""

    def __init__(self) -> None:
        self.doc: Doc[Any] = Doc()
        self.text = self.doc.get("content", type=Text)
        self.map = self.doc.get("map", type=Map)
        self.updates: list[bytes] = []
        self._subscription = self.doc.observe(self._note)

    def _note(self, event: TransactionEvent) -> None:
        self.updates.append(event.update)

    def type(self, words: str) -> bytes:
        """The update of typing ``words`` at the end."""
        self.text += words
        return self.updates[-1]

    def insert(self, at: int, words: str) -> bytes:
        """The update of typing ``words`` at a place."""
        self.text.insert(at, words)
        return self.updates[-1]

    def erase(self, count: int) -> bytes:
        """The update of deleting the first bytes."""
        del self.text[:count]
        return self.updates[-1]


async def stored(store: FaultyStore, words: str, name: str = "d") -> Writer:
    """Somebody who wrote these words into the document before this process began."""
    writer = Writer()
    record = await store.create(name, f"lineage of {name}", NOON)
    await store.append(name, record.lineage, [DocumentUpdate(writer.type(words), ALICE, NOON)])
    store.appended.clear()
    return writer


async def outside(store: FaultyStore, update: bytes, name: str = "d") -> None:
    """Another process stores an update."""
    record = await store.find(name)
    assert record is not None
    await MemoryDocumentStore.append(store, name, record.lineage, [DocumentUpdate(update, BOB, NOON)])


def proposed(document: Document, change: Callable[[Doc[Any]], None], *, work: int | None = None) -> Draft:
    """A change that the server makes for Alice in its turn; with ``work`` on the bench of the document."""

    def make(replica: Replica) -> bytes | None:
        made: list[bytes] = []
        replica.edit(change, made.append)
        return made[0] if made else None

    draft = Draft(make, ALICE, NOON, check=lambda _: None, work=work)
    document.submit(draft)
    return draft


class Editor:
    """
    A y-websocket client: a document that lives on when the connection is lost.

    What is sent waits in ``outgoing`` until it is delivered; what the server says waits in the socket until it
    is read. ``sent`` are the changes that were delivered over this connection; ``denials`` are reasons that the
    server gave.
    """

    def __init__(self) -> None:
        self.doc: Doc[Any] = Doc()
        self.text = self.doc.get("content", type=Text)
        self.map = self.doc.get("map", type=Map)
        self.socket = FakeSocket()
        self.peer: Conversation | None = None
        self.outgoing: list[bytes] = []
        self.sent: list[bytes] = []
        self.denials: list[str] = []
        self.shown: dict[int, bytes] = {}
        self._read = 0
        self._is_applying = False
        self._subscription = self.doc.observe(self._changed)

    def _changed(self, event: TransactionEvent) -> None:
        if not self._is_applying and self.peer is not None:
            self._say(yjs.update(event.update))

    def _say(self, message: bytes) -> None:
        self.outgoing.append(message)

    # --- the connection -------------------------------------------------------------------------------

    def opened(self, peer: Conversation) -> None:
        """Begin as the real client does: with a step 1."""
        self.peer, self.socket = peer, FakeSocket()
        self.outgoing, self.sent, self._read = [yjs.sync_step1(self.doc.get_state())], [], 0
        peer.opened(self.socket)

    def cut(self) -> None:
        """Lose the connection with everything that was on its way in either direction."""
        peer, self.peer = self.peer, None
        self.outgoing = []
        if peer is not None:
            peer.closed(1006)

    def stall(self) -> None:
        """Read nothing any more."""
        self.socket.stalled = True

    def unstall(self) -> None:
        """Read again, as fast as it comes."""
        self.socket.stalled, self.socket.unread = False, 0
        if self.peer is not None:
            self.peer.writable()

    @property
    def is_closed(self) -> bool:
        return self.peer is None or self.socket.closed_with is not None

    # --- messages -------------------------------------------------------------------------------------

    def deliver(self, count: int | None = None) -> None:
        """Let the server have the first messages that wait; all of them, if it is not said how many."""
        count = len(self.outgoing) if count is None else count
        delivered, self.outgoing = self.outgoing[:count], self.outgoing[count:]
        for message in delivered:
            if self.peer is not None and self.socket.closed_with is None:
                if message[:2] in (b"\x00\x01", b"\x00\x02"):
                    self.sent.append(lib0.read_bytes(message, 2)[0])
                self.peer.binary(message)

    def read(self) -> None:
        """Take in what has come."""
        while self._read < len(self.socket.frames):
            frame = self.socket.frames[self._read].payload
            self._read += 1
            self._hear(frame)

    def _hear(self, frame: bytes) -> None:
        if frame[0] == yjs.MessageKind.AUTH:
            self.denials.append(lib0.read_text(frame, 2)[0])
        elif frame[0] != yjs.MessageKind.SYNC_STATUS:
            self._take(yjs.decode(frame))

    def _take(self, message: yjs.Message) -> None:
        match message:
            case yjs.SyncStep1(state):
                self._say(yjs.sync_step2(self.doc.get_update(state)))
            case yjs.SyncStep2(update) | yjs.Update(update):
                self._apply(update)
            case yjs.AwarenessUpdate(entries):
                self.shown.update({entry.client: entry.state for entry in entries})
            case _:
                raise AssertionError(message)

    def _apply(self, update: bytes) -> None:
        self._is_applying = True
        try:
            self.doc.apply_update(update)
        finally:
            self._is_applying = False

    @property
    def durable(self) -> list[bytes]:
        """The changes of this connection that the server has said are durable."""
        counts = [
            0,
            *(lib0.read_number(frame, 1)[0] for frame in self.frames if frame[0] == yjs.MessageKind.SYNC_STATUS),
        ]
        assert counts == sorted(set(counts)), "acknowledged backwards"
        assert counts[-1] <= len(self.sent), "more was acknowledged than was sent"
        return self.sent[: counts[-1]]

    @property
    def frames(self) -> list[bytes]:
        """Everything that has come over this connection."""
        return [frame.payload for frame in self.socket.frames]


class House:
    """
    A node with documents, at work until it is closed or crashes; what is in ``store`` outlives it.

    Waiting takes no time, so tests run ``in_no_time``. Nothing goes out before ``settle``.
    """

    def __init__(
        self,
        store: FaultyStore | None = None,
        *,
        clock: ManualClock | None = None,
        seed: Seed | None = None,
        sessions: FakeSessions | None = None,
        max_outbox_bytes: int = 1024 * 1024,
        realtime: Mapping[str, Any] | None = None,
        peers: Peers | None = None,
        **settings: Any,
    ) -> None:
        self.store = store or FaultyStore()
        self.clock = clock or ManualClock(NOON)
        self.turns = Turns()
        self.sessions = sessions or FakeSessions(self.clock)
        settings.setdefault("save_interval", timedelta())
        settings.setdefault("share_interval", timedelta())
        self.settings = DocumentSettings(**settings)
        self.open_documents = OpenDocuments(
            self.store, settings=self.settings, clock=self.clock, seed=seed, peers=peers
        )
        self.handler = SessionWebSocketHandler(
            self.sessions,
            settings=RealtimeSettings(
                handshake_burst=1_000_000,
                max_connections_per_session=1_000,
                max_outbox_bytes=max_outbox_bytes,
                **(realtime or {}),
            ),
            clock=self.clock,
            tickets=Tickets(MemoryOneTime(self.clock, TICKET_LIMITS)),
            counters=MemoryCounters(self.clock),
            open_documents=self.open_documents,
            schedule=self.turns,
        )
        self.sessions.listener = self.handler.on_events
        endpoint = self.handler._document_endpoint  # pyright: ignore[reportPrivateUsage]  # tests look inside
        assert endpoint is not None
        self.audiences = endpoint._audiences  # pyright: ignore[reportPrivateUsage]
        self.hub = self.audiences.hub
        self._stop = asyncio.Event()
        self._work: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        opened = asyncio.Event()
        self._work = asyncio.create_task(self._be_at_work(opened))
        await opened.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.close()
        else:
            await self.crash()

    async def _be_at_work(self, opened: asyncio.Event) -> None:
        async with self.open_documents.relay, self.open_documents.at_work():
            opened.set()
            await self._stop.wait()

    async def close(self) -> None:
        """Stop as a node does that is told to."""
        self._stop.set()
        if self._work is not None:
            await asyncio.wait([self._work])

    async def crash(self) -> None:
        """Be gone at once, and everything with it that is not stored."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait([self._work])

    # --- time -----------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Let everything happen that waits for nobody; no time passes."""
        for _ in range(TURNS):
            await asyncio.sleep(0)
            self.turns.settle()

    async def pass_time(self, seconds: float) -> datetime:
        """Let time pass, for the loop and on the clock, and the node notice."""
        await asyncio.sleep(seconds)
        now = self.clock.advance(seconds=seconds)
        self.handler.tick()
        await self.settle()
        return now

    # --- documents ------------------------------------------------------------------------------------

    @asynccontextmanager
    async def open(self, name: str = "d", *, create: bool = True) -> AsyncGenerator[Document]:
        """The document, in use."""
        async with self.open_documents.using(name, create=create) as document:
            yield document

    async def document(self, name: str = "d") -> Document:
        """The document, open, stored, and not in use."""
        async with self.open_documents.using(name, create=True) as document:
            await self.settle()
            return document

    def attend(self, document: Document, address: bytes = b"") -> "Listener":
        """Somebody in the document who only listens."""
        return Listener(self, document, address)

    # --- editors --------------------------------------------------------------------------------------

    async def knock(self, token: str, name: str = "d", **query: str) -> Accepted | Refused:
        """A handshake for the document."""
        return await self.handshake(f"/yjs/{name}", {"authorization": f"Bearer {token}"}, query=query)

    async def handshake(self, path: str, headers: Mapping[str, str], **more: Any) -> Accepted | Refused:
        """Any handshake."""
        more.setdefault("query", {})
        return await self.handler.accept(
            Handshake(path=path, raw_path=path, headers=headers, client_ip="192.0.2.1", **more)
        )

    async def connect(self, editor: Editor, token: str, name: str = "d") -> bool:
        """Let ``editor`` in; whether that was possible."""
        answer = await self.knock(token, name, status="1")
        if isinstance(answer, Accepted):
            editor.opened(answer.conversation)
        return isinstance(answer, Accepted)

    async def editor(self, user_id: str = "alice", name: str = "d", **session: Any) -> Editor:
        """An editor with a session of its own that is in the document and in step with it."""
        editor = Editor()
        _, token = self.sessions.issue(user_id, **session)
        assert await self.connect(editor, token, name)
        await self.converse(editor)
        return editor

    async def converse(self, *editors: Editor, rounds: int = 4) -> None:
        """Let messages go to and fro."""
        for _ in range(rounds):
            for editor in editors:
                editor.deliver()
            await self.settle()
            for editor in editors:
                editor.read()


class Listener:
    """An ``Subscriber`` that notes what it is told."""

    def __init__(self, house: House, document: Document, address: bytes) -> None:
        self.address = address
        self.box = Outbox(lambda: None)
        self.box.socket = self.socket = FakeSocket()
        self.told: list[str] = []
        self._document = document
        self._house = house
        self._audience = house.audiences.join(document, self, house.clock.now())

    def show(self, client: int, clock: int = 1) -> None:
        """Introduce a Yjs client."""
        entries, now = [lib0.AwarenessEntry(client, clock, b"{}")], self._house.clock.now()
        self._audience.introduced(entries, now)
        self._document.take_awareness(entries, Owner(self, f"user:{client}"), now)

    def document_deleted(self) -> None:
        self._part("deleted")

    def unavailable(self) -> None:
        self._part("unavailable")

    def storage_lost(self) -> None:
        self._part("storage lost")

    def ask_for_missing(self) -> None:
        self.told.append("asked")

    def remind(self, reminders: Sequence[lib0.AwarenessEntry]) -> None:
        self.told += [f"remind {entry.client}" for entry in reminders]

    def _part(self, reason: str) -> None:
        self.told.append(reason)
        self.leave()

    def leave(self) -> None:
        """Be gone."""
        self._house.audiences.leave(self._document, self, self._house.clock.now())

    @property
    def awareness(self) -> list[yjs.AwarenessUpdate]:
        return [message for message in self.heard if isinstance(message, yjs.AwarenessUpdate)]

    @property
    def heard(self) -> list[yjs.Message]:
        return [yjs.decode(frame.payload) for frame in self.socket.frames]
