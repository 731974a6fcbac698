"""Servers of Yjs documents and their clients: how each is spoken to, what is typed, and what must come out of it."""

import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Final

from msgspec import Struct
from pycrdt import Doc, Text, TransactionEvent
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_real

from benchmarks import node, python, websocket
from benchmarks.crowd import STALLED_SECONDS, Crowd, Room
from benchmarks.httpload import Api, Unexpected
from benchmarks.node import Missing
from benchmarks.processes import HOST, Started, roomkey
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.wire import lib0

ROOT: Final = "content"

ROOMKEY: Final = "Roomkey"
ROOMKEY_HOCUSPOCUS: Final = "Roomkey, Hocuspocus protocol"
HOCUSPOCUS: Final = "Hocuspocus"
Y_WEBSOCKET: Final = "y-websocket"
PYCRDT_WEBSOCKET: Final = "pycrdt-websocket"
PYCRDT_WEBSOCKET_SQLITE: Final = "pycrdt-websocket, SQLite"

VERSIONS: Final[Mapping[str, str]] = {
    **{package: node.version_of(package) for package in ("@hocuspocus/server", "@y/websocket-server", "yjs")},
    "yjs in @y/websocket-server": node.version_of("@y/websocket-server/node_modules/yjs"),
    **{package: python.version_of(package) for package in ("pycrdt-store", "pycrdt-websocket")},
}

STEP_2: Final = b"\x00\x01"
UPDATE: Final = b"\x00\x02"

# --- how a server is spoken to --------------------------------------------------------------------------


class Side(Struct, frozen=True):
    """
    A server and its protocol. That of Hocuspocus is ``addressed``: one address for all documents, and the name of
    the document in front of every message; that of y-websocket has an address for each document.
    """

    server: Started
    path: str
    addressed: bool = False
    tokens: Sequence[str] = ()
    """Of as many clients as there may be at a time, if the server asks who they are."""
    one_by_one: bool = False
    """Of several clients that come into a new document at the same moment, this server forgets some."""

    def prefix(self, document: str) -> bytes:
        """What stands in front of every message."""
        return yjs.address(document) if self.addressed else b""

    def frame(self, document: str, message: bytes) -> bytes:
        """A message as it goes over the wire."""
        return websocket.frame(self.prefix(document) + message, websocket.BINARY)

    def connect(self, documents: Sequence[str]) -> list[socket.socket]:
        """A client for each document, several of which may be the same; nothing is said yet."""
        tokens = self.tokens or [None] * len(documents)
        who = [(self.address(document), token) for document, token in zip(documents, tokens, strict=False)]
        batches = [[each] for each in who] if self.one_by_one else [who]
        opened: list[socket.socket] = []
        with ExitStack() as undo:
            undo.callback(websocket.close, opened)
            for batch in batches:
                opened += websocket.connect_each(self.server.port, batch)
            undo.pop_all()
        return opened

    def greeting(self, document: str, client: int = 0) -> list[bytes]:
        """What clients say first: who they are, that they have nothing, and that they have nothing to add."""
        messages = [
            yjs.sync_step1(lib0.EMPTY_STATE),
            yjs.sync_step2(lib0.EMPTY_UPDATE),
        ]
        if self.addressed:
            token = self.tokens[client] if self.tokens else ""
            messages.insert(0, bytes((yjs.MessageKind.AUTH, 0)) + lib0.text(token))
        return [self.prefix(document) + message for message in messages]

    def greet(self, connection: socket.socket, document: str, client: int = 0) -> None:
        """Say it."""
        messages = self.greeting(document, client)
        connection.sendall(b"".join(websocket.frame(message, websocket.BINARY) for message in messages))

    def join(self, documents: Sequence[str]) -> list[socket.socket]:
        """A client for each document, that has been told what is in it."""
        connections = self.connect(documents)
        for client, (connection, document) in enumerate(zip(connections, documents, strict=True)):
            self.greet(connection, document, client)
        for connection, document in zip(connections, documents, strict=True):
            self.receive_state(connection, document)
        return connections

    def receive_state(self, connection: socket.socket, document: str) -> bytes:
        """Read until the answer to a step 1; returns the update in it. What came before and behind is lost."""
        inbox = websocket.MessageAssembler()
        while chunk := connection.recv(262_144):
            for message in inbox.feed(chunk):
                if (state := self.state_in(message, document)) is not None:
                    return state
        raise Unexpected("the server closed the connection")

    def state_in(self, message: bytes, document: str) -> bytes | None:
        """The update in the answer to a step 1, or ``None`` if ``message`` is something else."""
        prefix = self.prefix(document) + STEP_2
        return lib0.read_bytes(message, len(prefix))[0] if message.startswith(prefix) else None

    def update_in(self, message: bytes, document: str) -> bytes | None:
        """What has changed, or ``None`` if ``message`` is something else."""
        prefix = self.prefix(document) + UPDATE
        return lib0.read_bytes(message, len(prefix))[0] if message.startswith(prefix) else None

    def text(self, document: str) -> str:
        """What a client that comes now reads in the document."""
        with closing(self.connect([document])[0]) as connection:
            self.greet(connection, document)
            return text_of([self.receive_state(connection, document)])

    def typing(self, document: str, writers: int, seconds: float) -> "Typing":
        """So many writers, who have something to type in the document for about so long."""
        each = int(MANY_LETTERS_PER_SECOND * max(seconds, SHORTEST_SECONDS) / writers)
        return Typing([[self.frame(document, yjs.update(update)) for update in own] for own in typed(writers, each)])

    @contextmanager
    def visit(self, document: str) -> Generator[ClientConnection]:
        """A real WebSocket client in the document. It answers pings by itself, so it can stay as long as it likes."""
        client = len(self.tokens) - 1
        headers = {"Authorization": f"Bearer {self.tokens[client]}"} if self.tokens else None
        address = f"ws://{HOST}:{self.server.port}{self.address(document)}"
        with connect_real(address, additional_headers=headers, max_queue=None, max_size=None) as real:
            for message in self.greeting(document, client):
                real.send(message)
            yield real

    def address(self, document: str) -> str:
        """Where to connect for the document."""
        return self.path if self.addressed else f"{self.path}/{document}"


def text_of(updates: Sequence[bytes]) -> str:
    """What Yjs makes of the updates."""
    document: Doc[Any] = Doc()
    for update in updates:
        document.apply_update(update)
    return str(document.get(ROOT, type=Text))


# --- what is typed --------------------------------------------------------------------------------------

FIRST_LETTER: Final = 0x20000
"""The ideographs from here on share the first two bytes of UTF-8, which nothing else in an update has: see below."""

ANY_LETTER: Final = b"\xf0\xa0"
LETTERS: Final = 4096

LETTERS_PER_CLIENT: Final = 8_000
"""
A Yjs client id is used for so many letters only. Each counts two in its clock, so that clocks stay below 2^14 and
are written in two bytes, of which only the first is larger than 127, as both of ``ANY_LETTER`` are.
"""

SHORTEST_SECONDS: Final = 0.2

MANY_LETTERS_PER_SECOND: Final = 24_000
"""Of all writers together, more than any server takes; a round in which they are used up ends earlier."""


@cache
def typed(writers: int, each: int) -> list[list[bytes]]:
    """
    What each writer types: updates of one letter, his own, behind the last one.

    Nobody sees what the others type; that a server has to put together.
    """
    clients = count(_FIRST_CLIENT)
    return [
        [
            update
            for begun in range(0, each, LETTERS_PER_CLIENT)
            for update in _type(chr(FIRST_LETTER + writer), min(each - begun, LETTERS_PER_CLIENT), next(clients))
        ]
        for writer in range(writers)
    ]


_FIRST_CLIENT: Final = 3_000_000_000  # as large as most, for they are random numbers of 32 bits


def _type(letter: str, times: int, client: int) -> list[bytes]:
    assert ANY_LETTER not in lib0.number(client)
    document: Doc[Any] = Doc(client_id=client)
    text = document.get(ROOT, type=Text)
    updates: list[bytes] = []

    def note(event: TransactionEvent) -> None:
        updates.append(event.update)

    document.observe(note)
    for _ in range(times):
        text += letter
    return updates


class Typing:
    """The script of a room in which everybody types a letter of his own, made before the clock starts."""

    any_mark = ANY_LETTER

    def __init__(self, frames: Sequence[Sequence[bytes]]) -> None:
        self._frames = frames
        self.written = [0] * len(frames)

    def mark(self, writer: int) -> bytes:
        """The letter of a writer."""
        return chr(FIRST_LETTER + writer).encode()

    def edit(self, writer: int) -> bytes | None:
        """The next letter of a writer."""
        position = self.written[writer]
        if position == len(self._frames[writer]):
            return None
        self.written[writer] += 1
        return self._frames[writer][position]

    def check(self, text: str) -> None:
        """
        Accept a text in which there is what was written, and nothing else.

        Raises:
            Unexpected: If it is not so.
        """
        wanted = {chr(FIRST_LETTER + writer): written for writer, written in enumerate(self.written) if written}
        if Counter(text) != wanted:
            raise Unexpected(f"there are {len(text)} letters in the document instead of {sum(self.written)}")


# --- the servers ----------------------------------------------------------------------------------------

PEERS: Final = (HOCUSPOCUS, Y_WEBSOCKET, PYCRDT_WEBSOCKET)
"""Those that keep nothing on the disk, and so do the least work."""


class _Peer(Struct, frozen=True):
    """How a server is started: ``stores`` says that it wants to be told of a file for its documents."""

    start: Callable[..., AbstractContextManager[Started | Missing]]
    script: str
    path: str = ""
    addressed: bool = False
    stores: bool = False
    one_by_one: bool = False


_PEERS: Final[Mapping[str, _Peer]] = {
    HOCUSPOCUS: _Peer(node.peer, "hocuspocus.mjs", path="/", addressed=True),
    Y_WEBSOCKET: _Peer(node.peer, "y-websocket.mjs"),
    PYCRDT_WEBSOCKET: _Peer(python.peer, "pycrdt_websocket.py", one_by_one=True),
    PYCRDT_WEBSOCKET_SQLITE: _Peer(python.peer, "pycrdt_websocket.py", stores=True, one_by_one=True),
}


@contextmanager
def peer(name: str, folder: str | None = None) -> Generator[Side | Missing]:
    """
    One of the other servers, running: of ``PEERS``, or ``PYCRDT_WEBSOCKET_SQLITE``.

    The last one keeps its file in ``folder``, or in one that is gone when the block is left.
    """
    wanted = _PEERS[name]
    with tempfile.TemporaryDirectory(prefix="roomkey-benchmark-") as temporary:
        arguments = [str(Path(folder or temporary) / "documents.sqlite")] if wanted.stores else []
        with wanted.start(wanted.script, *arguments) as server:
            if isinstance(server, Missing):
                yield server
            else:
                yield Side(server, wanted.path, addressed=wanted.addressed, one_by_one=wanted.one_by_one)


@contextmanager
def ours(clients: int, settings: Mapping[str, str] | None = None, *, storage: str = "file") -> Generator[Side]:
    """Roomkey, with sessions for so many clients; what is written is on the disk (LMDB) before it is acknowledged."""
    with roomkey(storage=storage, settings=settings) as server, closing(Api(server)) as api:
        yield Side(server, "/yjs", tokens=[token for _, token in api.sessions(clients)])


@contextmanager
def servers(
    clients: int, settings: Mapping[str, str] | None = None, *, peers: Sequence[str] = PEERS
) -> Generator[dict[str, Side | Missing]]:
    """
    Roomkey for so many clients and the ``peers``, running, by name.

    Roomkey speaks both protocols, and is measured with each.
    """
    with ExitStack() as stack:
        side = stack.enter_context(ours(clients, settings))
        as_hocuspocus = Side(side.server, "/hocuspocus", addressed=True, tokens=side.tokens)
        yield {
            ROOMKEY: side,
            ROOMKEY_HOCUSPOCUS: as_hocuspocus,
            **{name: stack.enter_context(peer(name)) for name in peers},
        }


Join = Callable[[str, int], list[socket.socket]]
"""Lets so many into a document."""

_checks = count(1)


def check(side: Side, join: Join | None = None, *, nodes: int = 1) -> None:
    """
    Show that a real client in the room reads the same text as one that comes later, and as was typed.

    The others in the room are let in by ``join``, if they come over several ``nodes``.

    Raises:
        Unexpected: If it does not.
    """
    room, document = Room(5, 2, rate=100), f"checked-{next(_checks)}"
    typing = side.typing(document, room.writers, 0.25)
    others = side.join([document] * room.clients) if join is None else join(document, room.clients)
    with side.visit(document) as real, closing(Crowd(others, room, typing, echoed=True, nodes=nodes)) as crowd:
        while side.state_in(_receive(real), document) is None:
            pass
        crowd.work(0.25)

        updates: list[bytes] = []
        while len(text_of(updates)) < sum(typing.written):
            update = side.update_in(_receive(real), document)
            updates += [] if update is None else [update]
        typing.check(text_of(updates))
        if side.text(document) != text_of(updates):
            raise Unexpected("who comes later reads something else")


def _receive(real: ClientConnection) -> bytes:
    message = real.recv(STALLED_SECONDS)
    return message if isinstance(message, bytes) else message.encode()
