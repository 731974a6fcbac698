"""Simulated editors: clients of y-websocket and of Hocuspocus, with a real Yjs document each."""

import random
from typing import Any, Final

from pycrdt import Doc, Text

from roomkey.realtime.clients.document_subscription import READ_ONLY
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.realtime.transport import Accepted, Handshake
from roomkey.testing.simulation.clients import Client, Surroundings
from roomkey.testing.simulation.connections import Connection
from roomkey.testing.simulation.history import What
from roomkey.wire import lib0
from roomkey.wire.close import CloseCode

NEW_SESSION_WANTED: Final = frozenset({"session_invalidated", "session_expired", "invalid_token"})
"""What Hocuspocus clients are told that have to sign in again."""

LINEAGE_HEADER: Final = "roomkey-lineage"


class Copy:
    """A Yjs document of an editor, and which history it is of."""

    def __init__(self, client: int) -> None:
        self.doc: Doc[Any] = Doc(client_id=client)
        self.text: Text = self.doc.get("content", type=Text)
        self.client = client
        self.lineage = ""
        self.clock = 0
        """How much of it this client has written."""
        self.shown: dict[int, int] = {}
        """How much there is of each other Yjs client."""

    def write(self, words: str, at: int) -> bytes:
        """Insert ``words``; the update that says so."""
        before = self.doc.get_state()
        self.text.insert(at, words)
        self.clock += len(words)
        return self.doc.get_update(before)

    def erase(self, at: int, length: int) -> bytes:
        """Remove some characters; the update that says so."""
        before = self.doc.get_state()
        del self.text[at : at + length]
        return self.doc.get_update(before)

    def take(self, update: bytes) -> list[tuple[int, int]]:
        """Take in an update of others; which Yjs clients it brings forward, and up to which clock."""
        self.doc.apply_update(update)
        news = [
            (client, clock)
            for client, clock in sorted(lib0.read_state(self.doc.get_state()).items())
            if client != self.client and clock > self.shown.get(client, 0)
        ]
        self.shown.update(news)
        return news

    def __str__(self) -> str:
        return str(self.text)

    def __len__(self) -> int:
        return len(self.text)


class Editor(Client):
    """A client with a copy of a document, which it keeps while it is away."""

    def __init__(self, name: str, user: str, document: str, world: Surroundings, chance: random.Random) -> None:
        super().__init__(name, user, document, world, chance)
        self.copy = self._new_copy()
        self.awareness_clock = 0
        self.seen: dict[int, tuple[int, bytes]] = {}
        """The awareness of everyone: clock and state by Yjs client."""
        self.is_readonly = False
        self._is_synchronised = False

    def _new_copy(self) -> Copy:
        return Copy(self.chance.getrandbits(30) + 1)

    @property
    def is_in(self) -> bool:
        return self.connection is not None and self._is_synchronised

    def over(self) -> None:
        self._is_synchronised = False
        self.seen.clear()

    def drop_copy(self) -> None:
        """Begin anew, as a client must that has another history than the server."""
        self.world.note(What.RESET, who=self.name, document=self.document, lineage=self.copy.lineage)
        self.copy = self._new_copy()

    # --- what its user does ---------------------------------------------------------------------------

    def edit(self) -> None:
        if self.is_readonly:
            return
        self.says += 1
        length = len(self.copy)
        if length > 20 and self.chance.random() < 0.3:
            self.change(self.copy.erase(self.chance.randrange(length - 5), self.chance.randint(1, 5)))
        else:
            self.change(self.copy.write(f"{self.name}.{self.says} ", self.chance.randint(0, length)))
        self.world.note(
            What.TYPED,
            who=self.name,
            document=self.document,
            lineage=self.copy.lineage,
            number=self.copy.client,
            size=self.copy.clock,
            node=self._node(),
        )

    def _node(self) -> str:
        return "" if self.connection is None else self.connection.services.id

    def show(self) -> None:
        self.awareness_clock += 1
        state = b'{"cursor":%d}' % self.awareness_clock
        self.seen[self.copy.client] = (self.awareness_clock, state)
        self.speak(yjs.awareness([lib0.AwarenessEntry(self.copy.client, self.awareness_clock, state)]))

    def change(self, update: bytes) -> None:
        """Tell of a change."""
        if self.connection is not None:
            self.expect()
            self.speak(yjs.update(update))

    def expect(self) -> None:
        """A change goes out now, of which the server will say that it is durable."""

    def speak(self, message: bytes) -> None:
        """Send a message about the document."""
        self.say(message)

    # --- what the server says -------------------------------------------------------------------------

    def take(self, message: yjs.Message) -> None:
        """Do what a message of either protocol asks for."""
        match message:
            case yjs.SyncStep1(state):
                self.expect()
                self.speak(yjs.sync_step2(self.copy.doc.get_update(state)))
            case yjs.SyncStep2(update):
                self._apply(update)
                if not self._is_synchronised:
                    self._is_synchronised = True
                    self.show()
            case yjs.Update(update):
                self._apply(update)
            case yjs.AwarenessUpdate(entries):
                for entry in entries:
                    self._see(entry)
            case yjs.QueryAwareness():
                self.show()
            case _:
                pass

    def _apply(self, update: bytes) -> None:
        for client, clock in self.copy.take(update):
            self.world.note(
                What.SHOWN, who=self.name, document=self.document, node=self._node(), number=client, size=clock
            )

    def _see(self, entry: lib0.AwarenessEntry) -> None:
        known = self.seen.get(entry.client)
        if entry.client == self.copy.client:
            # As the real client does: it is here, whatever others say.
            if entry.state == b"null" and self.is_in and entry.clock >= self.awareness_clock:
                self.awareness_clock = entry.clock
                self.show()
            return
        if known is None or entry.clock > known[0] or (entry.clock == known[0] and entry.state == b"null"):
            self.seen[entry.client] = (entry.clock, entry.state)

    def visible(self) -> tuple[int, ...]:
        """The Yjs clients that it shows besides itself."""
        return tuple(
            sorted(
                client for client, (_, state) in self.seen.items() if state != b"null" and client != self.copy.client
            )
        )

    def note_durable(self, clock: int) -> None:
        """The server has said that everything that was written up to ``clock`` is durable."""
        if clock:
            self.world.note(
                What.DURABLE,
                who=self.name,
                document=self.document,
                lineage=self.copy.lineage,
                number=self.copy.client,
                size=clock,
            )


class YjsEditor(Editor):
    """A client of y-websocket that states its lineage and asks what is durable."""

    def __init__(self, name: str, user: str, document: str, world: Surroundings, chance: random.Random) -> None:
        super().__init__(name, user, document, world, chance)
        self._sent: list[int] = []

    def handshake(self) -> Handshake:
        query = {"status": "1"}
        if self.copy.lineage:
            query["lineage"] = self.copy.lineage
        return self._handshake(f"/yjs/{self.document}", query)

    def greeted(self, answer: Accepted) -> None:
        lineage = dict(answer.headers).get(LINEAGE_HEADER, "")
        if not self.copy.lineage:
            self.copy.lineage = lineage

    def begin(self) -> None:
        self._sent = []
        self.is_readonly = False
        self.speak(yjs.sync_step1(self.copy.doc.get_state()))

    def expect(self) -> None:
        self._sent.append(self.copy.clock)

    def hear(self, connection: Connection, message: bytes) -> None:
        if connection is not self.connection:
            return
        if message[0] == yjs.MessageKind.AUTH:
            self.is_readonly = lib0.read_text(message, 2)[0] == READ_ONLY or self.is_readonly
        elif message[0] == yjs.MessageKind.SYNC_STATUS:
            count = lib0.read_number(message, 1)[0]
            self.note_durable(self._sent[count - 1])
        elif message[0] != yjs.MessageKind.PING:  # which says here whether the service is degraded
            self.take(yjs.decode(message))

    def refused(self, status: int) -> None:
        if status in (CloseCode.RESET, CloseCode.GONE):
            self.drop_copy()
        super().refused(status)


class HocuspocusEditor(Editor):
    """A client of Hocuspocus with one document on its socket, and its token in a message."""

    is_known_at_once = False
    states_lineage = False

    def __init__(self, name: str, user: str, document: str, world: Surroundings, chance: random.Random) -> None:
        super().__init__(name, user, document, world, chance)
        self._open: list[int] = []
        self._is_known = self._is_spoilt = False
        self._address = lib0.text(document)

    def handshake(self) -> Handshake:
        return Handshake(path="/hocuspocus", raw_path="/hocuspocus", query={}, headers={}, client_ip="192.0.2.1")

    def begin(self) -> None:
        self._open = []
        self._is_known = self._is_spoilt = False
        self.is_readonly = False
        token = bytes((yjs.MessageKind.AUTH, 0)) + lib0.text(self.token)
        self.speak(token)
        self.speak(yjs.sync_step1(self.copy.doc.get_state()))

    def speak(self, message: bytes) -> None:
        self.say(self._address + message)

    def expect(self) -> None:
        self._open.append(self.copy.clock)

    def hear(self, connection: Connection, message: bytes) -> None:
        if connection is not self.connection or message == yjs.PING:
            return
        _, at = lib0.read_text(message, 0)
        content = message[at:]
        match content[0]:
            case yjs.MessageKind.AUTH:
                self._authenticated(content)
            case yjs.MessageKind.SYNC_STATUS:
                self._status(applied=bool(content[1]))
            case yjs.MessageKind.CLOSE | yjs.MessageKind.STATELESS:
                pass
            case _:
                self.take(yjs.decode_addressed(message).message)

    def _authenticated(self, content: bytes) -> None:
        kind = content[1]
        if kind == 1:
            reason = lib0.read_text(content, 2)[0]
            if reason == "document_deleted":
                self.drop_copy()
            elif reason.partition(":")[0] in NEW_SESSION_WANTED:
                self.session = None
            elif reason == "forbidden":
                self.wants_in = False
            self.go(politely=True, back=self.wants_in)
        elif kind == 2:
            if not self._is_known:
                self._is_known = True
                self.note_admission()
            self.is_readonly = lib0.read_text(content, 2)[0] == yjs.READ_ONLY

    def _status(self, *, applied: bool) -> None:
        if not self._open:
            return
        clock = self._open.pop(0)
        # What is refused is a gap: nothing behind it says anything of what came before.
        self._is_spoilt = self._is_spoilt or not applied
        if not self._is_spoilt:
            self.note_durable(clock)
