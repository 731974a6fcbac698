"""Servers that act as one: started on one store, measured together with it, and spoken to at all of them in turn."""

import socket
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from msgspec import Struct

from benchmarks import broadcast, editing, node
from benchmarks.broadcast import Edits
from benchmarks.crowd import Crowd, Room
from benchmarks.databases import Database
from benchmarks.harness import Contender, Measures
from benchmarks.httpload import Api
from benchmarks.node import Missing
from benchmarks.processes import Secrets, Started, Usage, new_secrets, roomkey

MIGRATED: Final[Mapping[str, str]] = {"storage.migrate": "true"}


class Joined(Struct, frozen=True):
    """Servers, and the store that joins them."""

    servers: Sequence[Started]
    store: Database

    def usage(self) -> Usage:
        """What all of them have used, and the store."""
        return _sum([*(server.usage() for server in self.servers), self.store.usage()])

    def of_nodes(self) -> Usage:
        """What the servers have used, without the store."""
        return _sum([server.usage() for server in self.servers])

    def first(self, count: int) -> "Joined":
        """The same with fewer servers: what the others use does not count."""
        return Joined(self.servers[:count], self.store)


def _sum(used: Sequence[Usage]) -> Usage:
    return Usage(
        sum(usage.cpu_seconds for usage in used),
        sum(usage.resident for usage in used),
        sum(usage.peak for usage in used),
    )


@contextmanager
def roomkeys(count: int, store: Database, secrets: Secrets | None = None) -> Generator[Joined]:
    """So many nodes of Roomkey that have everything in one store: sessions, documents, rooms, and each other."""
    secrets = secrets or new_secrets()
    with ExitStack() as stack:
        servers = [
            stack.enter_context(roomkey(storage=store.url, settings=MIGRATED, secrets=secrets)) for _ in range(count)
        ]
        yield Joined(servers, store)


@contextmanager
def hocuspocuses(count: int, store: Database) -> Generator[Joined | Missing]:
    """So many of Hocuspocus, joined by Redis, with one file of SQLite for what they store."""
    with TemporaryDirectory(prefix="roomkey-benchmark-") as folder:
        file = str(Path(folder) / "documents.sqlite")
        with _peers("hocuspocus-stored.mjs", [file, store.url], count, store) as joined:
            yield joined


@contextmanager
def socketios(count: int, store: Database) -> Generator[Joined | Missing]:
    """So many of Socket.IO, joined by a stream in Redis."""
    with _peers("socketio.mjs", [store.url], count, store) as joined:
        yield joined


@contextmanager
def _peers(script: str, arguments: Sequence[str], count: int, store: Database) -> Generator[Joined | Missing]:
    with ExitStack() as stack:
        servers: list[Started] = []
        for _ in range(count):
            server = stack.enter_context(node.peer(script, *arguments))
            if isinstance(server, Missing):
                yield server
                return
            servers.append(server)
        yield Joined(servers, store)


# --- clients on all of them -----------------------------------------------------------------------------

_numbers = count(1)


class Documents(Struct, frozen=True):
    """Typing together: client after client is on the next node."""

    joined: Joined
    sides: Sequence[editing.Side]
    """Of each server, with tokens of its own."""

    def join(self, document: str, clients: int) -> list[socket.socket]:
        """So many in one document, in turn on each node, who have been told what is in it."""
        nodes = len(self.sides)
        return _in_turn([side.join([document] * len(range(n, clients, nodes))) for n, side in enumerate(self.sides)])

    def contender(self, room: Room) -> Contender:
        """The room on these nodes; its document and its clients are new in each round."""

        def contend(seconds: float) -> Measures:
            document = f"room-{next(_numbers):06d}"
            typing = self.sides[0].typing(document, room.writers, seconds)
            connections = self.join(document, room.clients)
            with closing(Crowd(connections, room, typing, echoed=True, nodes=len(self.sides))) as crowd:
                measures = crowd.measure(self.joined, seconds)
                for side in self.sides:
                    typing.check(side.text(document))
            return measures

        return contend

    def check(self) -> None:
        """
        Show that a real client on the last node reads what people on all of them have typed.

        Raises:
            Unexpected: If it does not.
        """
        editing.check(self.sides[-1], self.join, nodes=len(self.sides))

    def on(self, count: int) -> "Documents":
        """The same on fewer nodes."""
        return Documents(self.joined.first(count), self.sides[:count])


class Rooms(Struct, frozen=True):
    """A room of JSON: client after client is on the next node."""

    joined: Joined
    sides: Sequence[broadcast.Side]
    form: bytes = broadcast.OURS
    """What is sent: a number and who wrote it."""

    def join(self, clients: int) -> list[socket.socket]:
        """So many in the room, in turn on each node."""
        nodes = len(self.sides)
        return _in_turn([side.join(len(range(n, clients, nodes))) for n, side in enumerate(self.sides)])

    def contender(self, room: Room) -> Contender:
        """The room on these nodes; its clients come anew in each round."""

        def contend(seconds: float) -> Measures:
            connections = self.join(room.clients)
            with closing(Crowd(connections, room, Edits(self.form), nodes=len(self.sides))) as crowd:
                return crowd.measure(self.joined, seconds)

        return contend

    def on(self, count: int) -> "Rooms":
        """The same on fewer nodes."""
        return Rooms(self.joined.first(count), self.sides[:count], self.form)


def _in_turn(parts: Sequence[Sequence[socket.socket]]) -> list[socket.socket]:
    total = sum(map(len, parts))
    return [parts[number % len(parts)][number // len(parts)] for number in range(total)]


class Tokens(Struct, frozen=True):
    """Sessions for people on all nodes; each node's people are others."""

    of_nodes: Sequence[Sequence[str]]


def people(joined: Joined, each: int) -> Tokens:
    """Sessions for so many people on each node."""
    with closing(Api(joined.servers[0])) as api:
        tokens = [token for _, token in api.sessions(each * len(joined.servers), "editor")]
    return Tokens([tokens[number * each : (number + 1) * each] for number in range(len(joined.servers))])


def documents_of(joined: Joined, tokens: Tokens, *, as_hocuspocus: bool = False) -> Documents:
    """Roomkey's documents, in the protocol of y-websocket or of Hocuspocus."""
    path = "/hocuspocus" if as_hocuspocus else "/yjs"
    return Documents(
        joined,
        [
            editing.Side(server, path, addressed=as_hocuspocus, tokens=own)
            for server, own in zip(joined.servers, tokens.of_nodes, strict=True)
        ],
    )


def rooms_of(joined: Joined, tokens: Tokens) -> Rooms:
    """Roomkey's rooms."""
    sides = [broadcast.side_of(server, own) for server, own in zip(joined.servers, tokens.of_nodes, strict=True)]
    return Rooms(joined, sides)


def documents_of_hocuspocus(joined: Joined) -> Documents:
    """Those of Hocuspocus, which lets everybody in."""
    return Documents(joined, [editing.Side(server, "/", addressed=True) for server in joined.servers])


SOCKETIO_PATH: Final = "/socket.io/?EIO=4&transport=websocket"
SOCKETIO_EDIT: Final = b'42["edit",{"id":"%012d","document":"room",%s,"text":"what was typed"}]'


def rooms_of_socketio(joined: Joined, people: int) -> Rooms:
    """The room of Socket.IO, which lets everybody in."""
    sides = [
        # 4 is a message of Engine.IO, 0 in it that of Socket.IO which connects, and both sides say it.
        broadcast.Side(server, SOCKETIO_PATH, [None] * people, b"40", b'40{"sid"')
        for server in joined.servers
    ]
    return Rooms(joined, sides, SOCKETIO_EDIT)
