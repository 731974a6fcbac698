"""Clients that join a document of 10 MB: how long they wait for it, and how long everybody else does meanwhile."""

import random
import selectors
import socket
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from itertools import count
from typing import Any, Final

from msgspec import Struct
from pycrdt import Doc, Text

from benchmarks import websocket
from benchmarks.crowd import READ_BYTES, STALLED_SECONDS
from benchmarks.editing import HOCUSPOCUS, ROOMKEY, ROOT, VERSIONS, Y_WEBSOCKET, Side, servers
from benchmarks.harness import (
    Benchmark,
    Contender,
    Finding,
    Goal,
    Measures,
    Plan,
    Row,
    installed,
    interleaved,
    main,
    quantiles,
    value,
)
from benchmarks.httpload import Unexpected
from benchmarks.node import Missing
from benchmarks.processes import Meter
from roomkey.realtime.protocol import yjs_messages as yjs

DOCUMENT: Final = "long"

PIECE: Final = (
    "It was written in paragraphs of a thousand letters, wherever the author had just put the cursor to.\n" * 10
)
PIECES: Final = 10_000
QUICK_PIECES: Final = 400

PARTS: Final = 40
"""In so many updates it is brought to the server; the whole is larger than a message may be."""

JOINERS: Final = (1, 10)

_numbers = count(1)


# --- the document ---------------------------------------------------------------------------------------


class _Part(Struct, frozen=True):
    """One update of the document, and the state vector behind it."""

    update: bytes
    state: bytes


@cache
def _written(pieces: int) -> tuple[list[_Part], str]:
    """What makes the document, and the text in it: pieces put anywhere, as a long history leaves them."""
    document: Doc[Any] = Doc(client_id=1)
    text = document.get(ROOT, type=Text)
    numbers = random.Random(1)  # the same document each time
    parts: list[_Part] = []
    for _ in range(PARTS):
        known = document.get_state()
        with document.transaction():
            for _ in range(pieces // PARTS):
                text.insert(numbers.randint(0, len(text)), PIECE)
        parts.append(_Part(document.get_update(known), document.get_state()))
    return parts, str(text)


@contextmanager
def _brought(side: Side, pieces: int) -> Generator[None]:
    """
    The document is on the server, and stays open, for somebody is in it.

    Raises:
        Unexpected: If it is not what was written.
    """
    parts, text = _written(pieces)
    with side.visit(DOCUMENT):
        with closing(side.join([DOCUMENT])[0]) as connection:
            for part in parts:
                connection.sendall(side.frame(DOCUMENT, yjs.update(part.update)))
                # What one client sends is read in order: an answer to a question behind it shows that it was taken.
                connection.sendall(side.frame(DOCUMENT, yjs.sync_step1(part.state)))
                side.receive_state(connection, DOCUMENT)
        if side.text(DOCUMENT) != text:
            raise Unexpected("the document is not what was written")
        yield


# --- those who join, and one who has something else to do -----------------------------------------------


class _Typist:
    """Someone who types in another document, each letter when the one before has come back."""

    def __init__(self, side: Side) -> None:
        document = f"elsewhere-{next(_numbers):06d}"
        self.waits: list[float] = []
        self.connection = side.join([document])[0]
        self._typing = side.typing(document, 1, 1)
        self._letter = self._typing.mark(0)
        self._sent_at = 0.0

    def type(self) -> None:
        """Send a letter, if there is one left."""
        frame = self._typing.edit(0)
        if frame is not None:
            self._sent_at = time.perf_counter()
            self.connection.send(frame)

    def read(self) -> None:
        """Read what is there; the next letter is sent if the last one is in it."""
        if self._letter in self.connection.recv(READ_BYTES):
            self.waits.append(time.perf_counter() - self._sent_at)
            self.type()


def _join(side: Side, joiners: int, typist: _Typist) -> float:
    """
    So many clients join at once while the typist types; returns the seconds until all of them have the document.

    Raises:
        Unexpected: If one does not get it.
    """
    connections = side.connect([DOCUMENT] * joiners)
    waiting = {connection: websocket.MessageAssembler() for connection in connections}
    with selectors.DefaultSelector() as selector:
        for connection in (*connections, typist.connection):
            selector.register(connection, selectors.EVENT_READ, connection)
        begun = time.perf_counter()
        for client, connection in enumerate(connections):
            side.greet(connection, DOCUMENT, client)
        while waiting:
            ready: list[socket.socket] = [key.data for key, _ in selector.select(STALLED_SECONDS)]
            if not ready:
                raise Unexpected(f"{len(waiting)} clients wait for the document")
            for connection in ready:
                if connection is typist.connection:
                    typist.read()
                elif _has_all(side, connection, waiting[connection]):
                    del waiting[connection]
                    selector.unregister(connection)
        seconds = time.perf_counter() - begun
    websocket.close(connections)
    return seconds


def _has_all(side: Side, connection: socket.socket, inbox: websocket.MessageAssembler) -> bool:
    chunk = connection.recv(READ_BYTES)
    if not chunk:
        raise Unexpected("the server closed a connection")
    return any(side.state_in(message, DOCUMENT) is not None for message in inbox.feed(chunk))


def _contender(side: Side, joiners: int) -> Contender:
    def contend(seconds: float) -> Measures:
        typist, durations = _Typist(side), list[float]()
        with closing(typist.connection):
            typist.type()
            meter, end = Meter(side.server), time.perf_counter() + seconds
            while not durations or time.perf_counter() < end:
                durations.append(_join(side, joiners, typist))
            measures = meter.measures(len(durations) * joiners, "join", "joins")
        return {
            **quantiles(durations, "all joined "),
            **quantiles(typist.waits, "others wait "),
            "others wait at most": (max(typist.waits, default=seconds) * 1000, "ms"),
            **measures,
        }

    return contend


# --- all sides ------------------------------------------------------------------------------------------


def run(plan: Plan) -> Finding:
    """One who joins, and many at once, on all sides in turns."""
    pieces = plan.size(PIECES, QUICK_PIECES)
    rows: list[Row] = []
    with servers(max(JOINERS) + 1) as found, ExitStack() as open_documents:
        sides = {name: side for name, side in found.items() if isinstance(side, Side)}
        for side in {side.server: side for side in sides.values()}.values():
            open_documents.enter_context(_brought(side, pieces))
        for joiners in JOINERS:
            case = _case(joiners)
            measured = interleaved(plan, {name: _contender(side, joiners) for name, side in sides.items()})
            rows += [Row(case, name, figures) for name, figures in measured.items()]
            rows += [Row(case, name, skipped=side.reason) for name, side in found.items() if isinstance(side, Missing)]
    return Finding(rows, _goals(rows), NOTES)


def _case(joiners: int) -> str:
    return f"{joiners} {'client joins' if joiners == 1 else 'clients join at once'}"


def _goals(rows: Sequence[Row]) -> list[Goal]:
    """Nobody waits longer here than elsewhere, neither those who join nor the others."""
    goals: list[Goal] = []
    for quantity in ("all joined p50", "others wait at most"):
        for theirs in (HOCUSPOCUS, Y_WEBSOCKET):
            wanted = value(rows, _case(max(JOINERS)), theirs, quantity)
            if wanted is not None:
                measured = value(rows, _case(max(JOINERS)), ROOMKEY, quantity)
                what = f"{_case(max(JOINERS))}: {quantity}, against {theirs}"
                goals.append(Goal(what, measured, wanted, "ms", at_least=False))
    return goals


NOTES: Final = [
    (
        f"The document was written in {PIECES:,} pieces of {len(PIECE)} letters at random places; it is open on the "
        "server. A client that knows nothing of it asks for all; the time is from its question until the last byte "
        "of the answer is read. They join again and again, until the round is over."
    ),
    "Others: somebody who types in another document meanwhile, each letter when the one before has come back.",
    "Before measuring, a new client must read in the document what was written.",
]

BENCHMARK: Final = Benchmark(
    name="joining",
    title="Joining a document of 10 MB",
    about="The time until a new client has the whole document, and what others notice, the server on one core.",
    run=run,
    versions=installed("picows", "pycrdt", "uvloop"),
    peers=VERSIONS,
)

if __name__ == "__main__":
    main(BENCHMARK)
