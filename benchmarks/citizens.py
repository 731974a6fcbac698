"""
People in many documents, in processes of their own, because one process may open only so many sockets.

Each process reads one line of JSON from standard input, an ``Order``, lets its people in, and prints how many. For each
further line it does what the line says and prints what came of it: ``live`` has them type for a while, ``read`` has
somebody come to some of the documents and read. It answers pings meanwhile, and leaves when standard input ends.
"""

import os
import selectors
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Final

import msgspec
from msgspec import Struct

from benchmarks.city import CHECKED, PEOPLE, Place, Population
from benchmarks.editing import Side, Typing, typed
from benchmarks.httpload import Unexpected
from benchmarks.joined import Documents
from benchmarks.processes import LOAD_CORE, STOP_SECONDS, Started, run_on
from roomkey.realtime.protocol import yjs_messages as yjs

DOCUMENTS_PER_PROCESS: Final = 3_500
"""Three sockets each."""

AT_A_TIME: Final = 30
"""So many documents are entered at a time; in between, those who are there answer pings."""

PING_SECONDS: Final = 0.001
PATIENCE_SECONDS: Final = 0.2


class Where(Struct, frozen=True):
    """A node, and the tokens of those who come to it."""

    port: int
    path: str
    addressed: bool
    tokens: Sequence[str]


class Order(Struct, frozen=True):
    """Documents in which somebody types ``rate`` letters a second; of their people each is on the next node."""

    nodes: Sequence[Where]
    documents: Sequence[str]
    rate: float
    seconds: float


class Lived(Struct, frozen=True):
    """What came of it: how much was delivered, and how long each delivery took, in seconds."""

    deliveries: int
    cpu_seconds: float
    latencies: Sequence[float]
    problem: str = ""


class Citizens:
    """The other end of these processes."""

    def __init__(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        self._processes = processes
        self.joined = sum(int(line or 0) for line in self._answers())

    def live(self) -> Lived:
        """
        All of them type and read until everything has arrived.

        Raises:
            Unexpected: If something does not arrive, or arrives twice.
        """
        self._say(b"live\n")
        parts = [msgspec.json.decode(line, type=Lived) for line in self._answers()]
        for part in parts:
            if part.problem:
                raise Unexpected(part.problem)
        return Lived(
            sum(part.deliveries for part in parts),
            sum(part.cpu_seconds for part in parts),
            [latency for part in parts for latency in part.latencies],
        )

    def read(self) -> None:
        """
        Have newcomers read some of the documents.

        Raises:
            Unexpected: If one reads something else than was typed.
        """
        self._say(b"read\n")
        if problem := b"".join(self._answers()).strip():
            raise Unexpected(problem.decode())

    def _say(self, line: bytes) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(line)
            process.stdin.flush()

    def _answers(self) -> list[bytes]:
        found: list[bytes] = []
        for process in self._processes:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise Unexpected("the people have gone: see above")
            found.append(line)
        return found


@contextmanager
def citizens(documents: Documents, names: Sequence[str], rate: float, seconds: float) -> Generator[Citizens]:
    """``PEOPLE`` in each of these documents, each with a session of his own, until the block is left."""
    with ExitStack() as stack:
        processes: list[subprocess.Popen[bytes]] = []
        for taken in range(0, len(names), DOCUMENTS_PER_PROCESS):
            part = names[taken : taken + DOCUMENTS_PER_PROCESS]
            process = stack.enter_context(_process())
            order = Order(_where(documents, taken, len(part)), part, rate, seconds)
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            process.stdin.flush()
            processes.append(process)
        yield Citizens(processes)


def _where(documents: Documents, first: int, count: int) -> list[Where]:
    """The nodes with the tokens of the people of so many documents."""
    spread = -(-PEOPLE // len(documents.sides))  # of one document so many are on one node at most
    return [
        Where(side.server.port, side.path, side.addressed, side.tokens[first * spread : (first + count) * spread])
        for side in documents.sides
    ]


@contextmanager
def _process() -> Generator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "benchmarks.citizens"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process
    finally:
        process.stdin.close()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


# --- in such a process ----------------------------------------------------------------------------------


class _Elsewhere(Started):
    """A server that another process has started."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.key = ""


def _inhabited(order: Order, sides: Sequence[Side]) -> Population:
    """Everybody has connected, and knows what is in his document: nothing."""
    scripts = typed(PEOPLE, int(order.seconds * order.rate) + 2)
    population = Population([], [])
    for first in range(0, len(order.documents), AT_A_TIME):
        documents = order.documents[first : first + AT_A_TIME]
        names = [name for name in documents for _ in range(PEOPLE)]
        joined = [
            iter(_since(side, order, first).join(names[number :: len(sides)])) for number, side in enumerate(sides)
        ]
        population.welcome(
            [next(joined[number % len(sides)]) for number in range(len(names))],
            [
                Place(name, Typing([[sides[0].frame(name, yjs.update(update)) for update in own] for own in scripts]))
                for name in documents
            ],
        )
        population.rest(PING_SECONDS)
    return population


def _since(side: Side, order: Order, first: int) -> Side:
    """The side for those who come after the people of the ``first`` documents."""
    used = first * len(side.tokens) // len(order.documents)
    return msgspec.structs.replace(side, tokens=side.tokens[used:])


def _live(population: Population, order: Order) -> bytes:
    own, problem = time.process_time(), ""
    try:
        population.live(order.rate, order.seconds)
    except Unexpected as unexpected:
        problem = str(unexpected)
    used = time.process_time() - own
    return msgspec.json.encode(Lived(population.deliveries, used, population.latencies, problem))


def _read(population: Population, sides: Sequence[Side]) -> bytes:
    places = population.places
    try:
        for place in places[:: max(1, len(places) // CHECKED)]:
            for side in sides:
                place.typing.check(side.text(place.name))
    except Unexpected as unexpected:
        return str(unexpected).encode()
    return b""


def _main() -> None:
    run_on(LOAD_CORE)
    line = _line()
    if not line:
        return
    order = msgspec.json.decode(line, type=Order)
    sides = [
        Side(_Elsewhere(node.port), node.path, addressed=node.addressed, tokens=node.tokens) for node in order.nodes
    ]
    with closing(_inhabited(order, sides)) as population:
        print(len(population.places) * PEOPLE, flush=True)
        while line := _line(population):
            done = _live(population, order) if line == b"live\n" else _read(population, sides)
            sys.stdout.buffer.write(done + b"\n")
            sys.stdout.buffer.flush()


def _line(population: Population | None = None) -> bytes:
    """The next line of standard input; whoever is there answers pings meanwhile. Empty at its end."""
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        while population is not None and not selector.select(0):
            population.rest(PATIENCE_SECONDS)
    # Not through sys.stdin, which would read ahead.
    line = bytearray()
    while not line.endswith(b"\n"):
        chunk = os.read(sys.stdin.fileno(), 65536)
        if not chunk:
            return b""
        line += chunk
    return bytes(line)


if __name__ == "__main__":
    _main()
