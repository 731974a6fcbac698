"""A node is killed while people type on it: when they are whole again on others, and when nobody sees its ghosts."""

import selectors
import socket
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import count
from typing import Final

import msgspec
from msgspec import Struct

from benchmarks import websocket
from benchmarks.crowd import READ_BYTES
from benchmarks.editing import ANY_LETTER, Side, typed
from benchmarks.harness import Measures, quantiles
from benchmarks.httpload import Api, Unexpected
from benchmarks.joined import MIGRATED, Joined
from benchmarks.processes import Secrets, Started, roomkey
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.wire import lib0
from roomkey.wire.lib0 import AwarenessEntry

PATIENCE_SECONDS: Final = 30.0
"""Whoever is not whole then, or still sees ghosts, fails the benchmark."""

RETRY_SECONDS: Final = 0.2

SHORTEST_LOAD_SECONDS: Final = 1.0

FIRST_GHOST: Final = 4_000_000

_rounds = count(1)


class Killing(Struct, frozen=True):
    """
    What the node that is killed has: documents with so many people each, the last of whom has an awareness state and
    does not come back, and people in a room of JSON with a presence, none of whom comes back.
    """

    documents: int
    people: int
    lobby: int
    ghosts: bool = True
    """Whether to wait until nobody sees them any more, which takes as long as the lease of a node."""

    @property
    def sockets(self) -> int:
        """On the node that is killed."""
        return self.documents * self.people + self.lobby

    def __str__(self) -> str:
        return f"a node is killed with {self.sockets} sockets, {self.documents} edits/s"


# --- clients that look at what they are told ------------------------------------------------------------


class _Client:
    """A socket on a node, and what is known of its document."""

    __slots__ = ("begun", "connection", "document", "letters", "on_message", "rest", "whole_at")

    def __init__(
        self, connection: socket.socket, document: int, on_message: Callable[["_Client", bytes], None]
    ) -> None:
        self.connection = connection
        self.document = document
        self.on_message = on_message
        self.rest = b""
        self.letters = 0
        self.begun = 0.0
        self.whole_at: float | None = None


class _Crew:
    """Clients of several nodes in one thread. Pings are answered."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._connections: list[socket.socket] = []

    def close(self) -> None:
        """Everybody leaves."""
        self._selector.close()
        websocket.close(self._connections)

    def add(self, client: _Client) -> None:
        """Read what this one is told from now on, too."""
        client.connection.setblocking(False)
        self._connections.append(client.connection)
        self._selector.register(client.connection, selectors.EVENT_READ, client)

    def read(self, wait: float) -> None:
        """Read what is there, or comes within ``wait`` seconds."""
        for key, _ in self._selector.select(wait):
            client: _Client = key.data
            try:
                chunk = client.connection.recv(READ_BYTES)
            except ConnectionError:
                chunk = b""
            if not chunk:
                self._selector.unregister(client.connection)
                continue
            received, end = client.rest + chunk, 0
            for opcode, payload, after in websocket.frames(received):
                end = after
                if opcode == websocket.PING:
                    client.connection.send(websocket.frame(payload, websocket.PONG))
                elif opcode != websocket.CLOSE:
                    client.on_message(client, payload)
            client.rest = received[end:]

    def read_until(self, is_done: Callable[[], bool], what: Callable[[], str]) -> None:
        """
        Read until that is so.

        Raises:
            Unexpected: If it is not so in time.
        """
        deadline = time.perf_counter() + PATIENCE_SECONDS
        while not is_done():
            if time.perf_counter() > deadline:
                raise Unexpected(f"after {PATIENCE_SECONDS:.0f} s {what()}")
            self.read(0.1)


# --- what is seen from other nodes ----------------------------------------------------------------------


class _Observers:
    """Somebody in each document and in the room, on a node that lives on."""

    def __init__(self, crew: _Crew, side: Side, names: Sequence[str], lobby: str, members: Sequence[str]) -> None:
        self.letters = [0] * len(names)
        self.shown: set[int] = set()
        """The documents that have a ghost now."""
        self.present: set[str] = set()
        """The sessions that are in the room now."""
        self.changed_at = {"awareness": 0.0, "presence": 0.0}
        """When that was last told."""
        self._members = members
        for number, connection in enumerate(side.join(names)):
            crew.add(_Client(connection, number, self._on_document))
        crew.add(_Client(_in_lobby(side.server, side.tokens[-1:], lobby)[0], 0, self._on_lobby))

    def see(self, killing: Killing) -> bool:
        """Whether they see everyone who shows himself."""
        return len(self.shown) == killing.documents and len(self.present) == killing.lobby

    def describe(self) -> str:
        """Whom they see."""
        return f"{len(self.shown)} awareness states and {len(self.present)} members of the room are seen elsewhere"

    def _on_document(self, client: _Client, message: bytes) -> None:
        self.letters[client.document] += message.count(ANY_LETTER)
        if message[0] != yjs.MessageKind.AWARENESS:
            return
        for entry in lib0.read_awareness(lib0.read_bytes(message, 1)[0]):
            if entry.client == FIRST_GHOST + client.document:
                self.changed_at["awareness"] = time.perf_counter()
                (self.shown.discard if entry.is_gone else self.shown.add)(client.document)

    def _on_lobby(self, _client: _Client, message: bytes) -> None:
        heard = msgspec.json.decode(message)
        if heard["message_type"] == "user_presence":
            session = heard["payload"]["session_info"]["session_id"]
            if session in self._members:
                self.changed_at["presence"] = time.perf_counter()
                is_gone = heard["payload"]["status"] == "offline"
                (self.present.discard if is_gone else self.present.add)(session)


def _in_lobby(server: Started, tokens: Sequence[str], lobby: str) -> list[socket.socket]:
    connections = websocket.connect(server.port, "/ws", tokens)
    for connection in connections:
        connection.sendall(_message("subscribe", lobby))
    for connection in connections:
        websocket.receive_until(connection, b'"subscribed"')
    return connections


def _message(kind: str, document: str, **payload: str) -> bytes:
    content = {"id": kind, "message_type": kind, "payload": {"document": document, **payload}}
    return websocket.frame(msgspec.json.encode(content))


# --- a round --------------------------------------------------------------------------------------------


def kill(joined: Joined, secrets: Secrets, killing: Killing, seconds: float) -> Measures:
    """
    Add a node to ``joined``, let people work on it, and kill it.

    Raises:
        Unexpected: If somebody is not whole again or ghosts stay, or two nodes do not agree in the end.
    """
    with ExitStack() as stack:
        victim = stack.enter_context(roomkey(storage=joined.store.url, settings=MIGRATED, secrets=secrets))
        crew = stack.enter_context(closing(_Crew()))
        return _Killed(joined, victim, killing, crew).measure(max(seconds, SHORTEST_LOAD_SECONDS))


class _Killed:
    """One round."""

    def __init__(self, joined: Joined, victim: Started, killing: Killing, crew: _Crew) -> None:
        number = next(_rounds)
        self._killing = killing
        self._victim = victim
        self._crew = crew
        self._names = [f"killed-{number}-{document}" for document in range(killing.documents)]
        self._lobby = f"lobby-{number}"
        with closing(Api(joined.servers[0])) as api:
            everyone = api.sessions(killing.sockets, f"killed-{number}")
            watchers = [token for _, token in api.sessions(killing.documents + 1, f"watcher-{number}")]
        self._members = [id for id, _ in everyone[: killing.lobby]]
        self._lobby_tokens = [token for _, token in everyone[: killing.lobby]]
        self._tokens = [token for _, token in everyone[killing.lobby :]]
        self._survivors = joined.servers[:2]
        self._living = [Side(server, "/yjs", tokens=watchers) for server in self._survivors]

    def measure(self, seconds: float) -> Measures:
        """Everybody comes, types, and comes again."""
        observers = _Observers(self._crew, self._living[0], self._names, self._lobby, self._members)
        with self._crowded() as people:
            self._crew.read_until(lambda: observers.see(self._killing), observers.describe)
            self._type(people, seconds)
            self._victim.process.kill()
            begun = time.perf_counter()
        wanted = list(observers.letters)
        returned = self._return(wanted)
        last = max(client.whole_at or 0.0 for client in returned) - begun
        whole = [(client.whole_at or 0.0) - client.begun for client in returned]
        measures = {
            "sockets": (float(self._killing.sockets), ""),
            "last whole": (last, "s"),
            **quantiles(whole, "whole "),
        }
        if self._killing.ghosts:
            measures |= self._until_clean(observers, begun)
        self._check(wanted)
        return measures

    @contextmanager
    def _crowded(self) -> Generator[list[socket.socket]]:
        """The sockets of those who type, and of those who will be ghosts, on the node that is going to be killed."""
        side = Side(self._victim, "/yjs", tokens=self._tokens)
        where = [name for name in self._names for _ in range(self._killing.people)]
        people = side.join(where)
        lobby = _in_lobby(self._victim, self._lobby_tokens, self._lobby)
        try:
            for number, connection in enumerate(people[self._killing.people - 1 :: self._killing.people]):
                state = [AwarenessEntry(FIRST_GHOST + number, 1, b'{"user":{"name":"ghost"}}')]
                connection.sendall(websocket.frame(yjs.awareness(state), websocket.BINARY))
            for connection in lobby:
                connection.sendall(_message("user_presence", self._lobby, status="here"))
            yield people
        finally:
            websocket.close([*people, *lobby])

    def _type(self, people: Sequence[socket.socket], seconds: float) -> None:
        """The first in each document types a letter a second; what they receive is not read."""
        writers = people[:: self._killing.people]
        letters = [websocket.frame(yjs.update(update), websocket.BINARY) for update in typed(1, int(seconds) + 1)[0]]
        begun = time.perf_counter()
        for number in range(int(seconds * len(writers))):
            while (wait := begun + number / len(writers) - time.perf_counter()) > 0:
                self._crew.read(wait)
            writers[number % len(writers)].sendall(letters[number // len(writers)])

    def _return(self, wanted: Sequence[int]) -> list[_Client]:
        """All but the ghosts come back, to the other nodes in turn, as fast as those let them in."""
        killing, returned = self._killing, list[_Client]()
        coming = [number for number in range(len(self._tokens)) if (number + 1) % killing.people]

        def on_message(client: _Client, message: bytes) -> None:
            client.letters += message.count(ANY_LETTER)
            is_told = client.whole_at is None and message[:2] in (b"\x00\x01", b"\x00\x02")
            if is_told and client.letters >= wanted[client.document]:
                client.whole_at = time.perf_counter()

        for first in range(0, len(coming), websocket.BATCH):
            batch, begun = coming[first : first + websocket.BATCH], time.perf_counter()
            for turn, server in enumerate(self._survivors):
                own = batch[turn :: len(self._survivors)]
                side = Side(server, "/yjs", tokens=[self._tokens[number] for number in own])
                names = [self._names[number // killing.people] for number in own]
                for number, name, connection in zip(own, names, self._connect(side, names), strict=True):
                    side.greet(connection, name)
                    client = _Client(connection, number // killing.people, on_message)
                    client.begun = begun
                    returned.append(client)
                    self._crew.add(client)
            self._crew.read(0)
        self._crew.read_until(
            lambda: all(client.whole_at is not None for client in returned),
            lambda: f"{sum(client.whole_at is None for client in returned)} of {len(returned)} are not whole",
        )
        return returned

    def _connect(self, side: Side, names: Sequence[str]) -> list[socket.socket]:
        """As clients do it: who is refused tries again."""
        deadline = time.perf_counter() + PATIENCE_SECONDS
        while True:
            try:
                return side.connect(names)
            except (Unexpected, OSError):
                if time.perf_counter() > deadline:
                    raise
            self._crew.read(RETRY_SECONDS)

    def _until_clean(self, observers: _Observers, begun: float) -> Measures:
        """Seconds from the kill until nobody is shown any more who was there through the node that is gone."""
        self._crew.read_until(lambda: not (observers.shown or observers.present), observers.describe)
        clean = {f"{what} clean": (at - begun, "s") for what, at in observers.changed_at.items()}
        with closing(websocket.connect(self._survivors[-1].port, "/ws", self._living[-1].tokens[-1:])[0]) as newcomer:
            newcomer.sendall(_message("subscribe", self._lobby))
            told = websocket.receive_until(newcomer, b'"subscribed"')
        if ghosts := [id for id in self._members if id.encode() in told]:
            raise Unexpected(f"a newcomer is told of {len(ghosts)} who are gone")
        return clean

    def _check(self, wanted: Sequence[int]) -> None:
        """All nodes have the same, and everything that somebody had seen."""
        for name, least in zip(self._names, wanted, strict=True):
            texts = {side.text(name) for side in self._living}
            if len(texts) != 1 or len(texts.pop()) < least:
                raise Unexpected(f"{name} is not what it was")
