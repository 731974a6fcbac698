"""Servers of Yjs documents and their clients: how each is spoken to, what is typed, and what must come out of it."""

import socket
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import cache
from itertools import count
from typing import Any, Final

from msgspec import Struct
from pycrdt import Doc, Text, TransactionEvent
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_real

from benchmarks import node, python, websocket
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

VERSIONS: Final[Mapping[str, str]] = {
    "@hocuspocus/server": node.version_of("@hocuspocus/server"),
    "@y/websocket-server": node.version_of("@y/websocket-server"),
    "pycrdt-websocket": python.version_of("pycrdt-websocket"),
    "yjs": node.version_of("yjs"),
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
        return websocket.connect_each(self.server.port, who)

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
        each = int(MANY_LETTERS_PER_SECOND * max(seconds, 1) / writers)
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


@contextmanager
def servers(clients: int, settings: Mapping[str, str] | None = None) -> Generator[dict[str, Side | Missing]]:
    """
    All servers, running, by name. Roomkey has sessions for so many clients and keeps what is written on the disk.

    It speaks both protocols, and is measured with each.
    """
    with ExitStack() as stack:
        ours = stack.enter_context(roomkey_sides(clients, settings))
        yield {**ours, **{name: stack.enter_context(start()) for name, start in PEERS.items()}}


@contextmanager
def roomkey_sides(clients: int, settings: Mapping[str, str] | None = None) -> Generator[dict[str, Side]]:
    """Roomkey by both protocols, with so many sessions, and everything that is written kept on the disk."""
    with roomkey(storage="file", settings=settings) as ours:
        with closing(Api(ours)) as api:
            tokens = [token for _, token in api.sessions(clients)]
        yield {
            ROOMKEY: Side(ours, "/yjs", tokens=tokens),
            ROOMKEY_HOCUSPOCUS: Side(ours, "/hocuspocus", addressed=True, tokens=tokens),
        }


@contextmanager
def _hocuspocus() -> Generator[Side | Missing]:
    with node.peer("hocuspocus.mjs") as server:
        yield _side(server, "/", addressed=True)


@contextmanager
def _y_websocket() -> Generator[Side | Missing]:
    with node.peer("y-websocket.mjs") as server:
        yield _side(server)


@contextmanager
def _pycrdt_websocket() -> Generator[Side | Missing]:
    with python.peer("pycrdt_websocket.py") as server:
        yield _side(server)


PEERS: Final[Mapping[str, Callable[[], AbstractContextManager[Side | Missing]]]] = {
    HOCUSPOCUS: _hocuspocus,
    Y_WEBSOCKET: _y_websocket,
    PYCRDT_WEBSOCKET: _pycrdt_websocket,
}
"""How each of the others is started."""


def _side(server: Started | Missing, path: str = "", *, addressed: bool = False) -> Side | Missing:
    return server if isinstance(server, Missing) else Side(server, path, addressed=addressed)
