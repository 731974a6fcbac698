"""One room, many clients, some of whom write: what a delivery costs Roomkey, and what it costs a plain relay."""

import selectors
import socket
import time
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from itertools import count, cycle
from typing import Final

from msgspec import Struct
from websockets.sync.client import connect as connect_real

from benchmarks import websocket
from benchmarks.harness import (
    TIMES,
    Benchmark,
    Contender,
    Finding,
    Goal,
    Measures,
    Plan,
    Row,
    find,
    installed,
    interleaved,
    main,
    quantiles,
    ratio,
    value,
)
from benchmarks.httpload import Api, Unexpected
from benchmarks.node import Missing, peer, version_of
from benchmarks.processes import HOST, Meter, Started, roomkey

DOCUMENT: Final = b"room"
WANTED_RATIO: Final = 10

ROOMKEY: Final = "Roomkey"
WS: Final = "Node.js ws, plain relay"

STALLED_SECONDS: Final = 10.0


class Room(Struct, frozen=True):
    """So many clients, so many of whom write: as fast as edits arrive, or so many edits per second each."""

    clients: int
    writers: int
    rate: float | None = None

    def __str__(self) -> str:
        pace = "as fast as it goes" if self.rate is None else f"{self.rate:g} edits/s each"
        return f"{self.clients} clients, {self.writers} writers, {pace}"


ROOMS: Final = (Room(200, 20), Room(20, 20), Room(50, 5), Room(200, 20, rate=10))
QUICK_ROOMS: Final = (Room(6, 3), Room(6, 3, rate=10))


# --- what is sent ---------------------------------------------------------------------------------------

_numbers = count(1)
_BEGINNING: Final = time.perf_counter_ns()

_ANY_MARK: Final = b'"by":"'
_SENT_AT: Final = b',"at":"'
_DIGITS: Final = 13  # of nanoseconds: hours
_SPAN: Final = len(b'"by":"0000"') + len(_SENT_AT) + _DIGITS


def _mark(writer: int) -> bytes:
    """What is found in the edits of one writer and nowhere else."""
    return b'"by":"%04d"' % writer


def _edit(writer: int) -> bytes:
    """An edit as Roomkey wants it; to the relay it is text. Never the same id again: Roomkey would notice."""
    return websocket.frame(
        b'{"id":"%012d","message_type":"realtime_edit","payload":{"document":"%s",%s%s%0*d"}}'
        % (next(_numbers), DOCUMENT, _mark(writer), _SENT_AT, _DIGITS, time.perf_counter_ns() - _BEGINNING)
    )


# --- the clients ----------------------------------------------------------------------------------------


class _Member:
    """A client in the room. It counts the edits that it receives, and may be a writer's witness."""

    __slots__ = ("connection", "edits", "tail", "watched")

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.edits = 0
        self.tail = b""
        """The end of what was read last, in which the beginning of a mark may be."""
        self.watched: int | None = None
        """The writer whose edits it looks for."""


class Crowd:
    """
    All clients of a room, in one thread, without a frame parsed.

    An edit is counted by a mark that occurs once in each, which costs a search in what one read returned. Of
    each writer one other client is the witness: it reads when the edit was sent, and that it came makes the
    writer send the next one. Witnesses are spread over the room, so that nobody is always served first.
    """

    def __init__(self, connections: list[socket.socket], room: Room) -> None:
        self.room = room
        self.sent = 0
        self.latencies: list[float] = []
        self._members = [_Member(connection) for connection in connections]
        spread = room.clients // room.writers
        self._writers = [self._members[writer * spread] for writer in range(room.writers)]
        for writer in range(room.writers):
            # Half the room further, and not a writer where there are others.
            position = writer * spread + room.clients // 2 + spread // 2
            self._members[position % room.clients].watched = writer
        self._selector = selectors.DefaultSelector()
        for member in self._members:
            member.connection.setblocking(False)
            self._selector.register(member.connection, selectors.EVENT_READ, member)

    def close(self) -> None:
        """Everybody leaves."""
        self._selector.close()
        websocket.close([member.connection for member in self._members])

    @property
    def deliveries(self) -> int:
        """Edits that clients received."""
        return sum(member.edits for member in self._members)

    @property
    def expected(self) -> int:
        """Edits that clients must have received when all is done: each by everyone but its writer."""
        return self.sent * (self.room.clients - 1)

    def work(self, seconds: float) -> None:
        """
        Write for so long, at most 20 s because pings are not answered, and read until everything has arrived.

        Raises:
            Unexpected: If something does not arrive, or arrives twice.
        """
        end = time.perf_counter() + min(seconds, 20.0)
        if self.room.rate is None:
            self._write_on_arrival(end)
        else:
            self._write_at(self.room.rate, end)
        while self.deliveries < self.expected:
            self.read(STALLED_SECONDS)
        if self.deliveries > self.expected:
            raise Unexpected(f"{self.deliveries} deliveries instead of {self.expected}")

    def _write_on_arrival(self, end: float) -> None:
        for writer in range(self.room.writers):
            self._write(writer)
        while time.perf_counter() < end:
            for writer in self.read(STALLED_SECONDS):
                self._write(writer)

    def _write_at(self, rate: float, end: float) -> None:
        pause, due = 1 / rate / self.room.writers, time.perf_counter()
        for writer in cycle(range(self.room.writers)):
            while (wait := due - time.perf_counter()) > 0:
                self.read(wait, needed=False)
            if due > end:
                return
            self._write(writer)
            due += pause

    def _write(self, writer: int) -> None:
        self.sent += 1
        self._writers[writer].connection.send(_edit(writer))

    def read(self, wait: float, *, needed: bool = True) -> list[int]:
        """
        Read what is there, or comes within ``wait`` seconds; returns whose edits were witnessed.

        Raises:
            Unexpected: If nothing comes that is ``needed``, or a connection has ended.
        """
        ready = self._selector.select(wait)
        if needed and not ready:
            raise Unexpected(f"{self.expected - self.deliveries} of {self.expected} deliveries are missing")
        witnessed: list[int] = []
        for key, _ in ready:
            member: _Member = key.data
            chunk = member.connection.recv(262_144)
            if not chunk:
                raise Unexpected("the server closed a connection")
            seen = member.tail + chunk
            # What lies in the tail as a whole was counted before.
            member.edits += seen.count(_ANY_MARK) - member.tail.count(_ANY_MARK)
            member.tail = seen[1 - _SPAN :]
            if member.watched is not None:
                self._witness(member.watched, seen, witnessed)
        return witnessed

    def _witness(self, writer: int, seen: bytes, witnessed: list[int]) -> None:
        now, mark, position = time.perf_counter_ns() - _BEGINNING, _mark(writer), 0
        while (position := seen.find(mark, position)) >= 0 and position + _SPAN <= len(seen):
            sent_at = seen[position + _SPAN - _DIGITS : position + _SPAN]
            self.latencies.append((now - int(sent_at)) / 1e9)
            witnessed.append(writer)
            position += _SPAN


class Side(Struct, frozen=True):
    """A server, and what its clients present and say before they are in the room."""

    server: Started
    path: str
    tokens: list[str | None]
    greeting: bytes = b""
    greeted: bytes = b""

    def join(self, clients: int) -> list[socket.socket]:
        """So many clients in the room."""
        connections = websocket.connect(self.server.port, self.path, self.tokens[:clients])
        if self.greeting:
            for connection in connections:
                connection.sendall(websocket.frame(self.greeting))
            for connection in connections:
                websocket.receive_until(connection, self.greeted)
        return connections

    def contender(self, room: Room) -> Contender:
        """The room on this server; its clients come anew in each round."""

        def contend(seconds: float) -> Measures:
            with closing(Crowd(self.join(room.clients), room)) as crowd:
                meter = Meter(self.server)
                crowd.work(seconds)
                measures = meter.measures(crowd.deliveries, "delivery", "deliveries")
            each, _ = measures["CPU per delivery"]
            return {
                "deliveries": measures.pop("deliveries"),
                "deliveries per CPU second": (1e6 / each, ""),
                **measures,
                **quantiles(crowd.latencies, "latency "),
            }

        return contend

    def check(self) -> None:
        """
        Show that the crowd counts what a real client receives.

        Raises:
            Unexpected: If it does not.
        """
        room = Room(5, 2, rate=100)
        headers = {"Authorization": f"Bearer {self.tokens[-1]}"} if self.tokens[-1] else None
        with (
            connect_real(f"ws://{HOST}:{self.server.port}{self.path}", additional_headers=headers) as real,
            closing(Crowd(self.join(room.clients), room)) as crowd,
            closing(self.join(1)[0]) as parsed,
        ):
            if self.greeting:
                real.send(self.greeting.decode())
                while self.greeted.decode() not in str(real.recv(STALLED_SECONDS)):
                    pass
            crowd.work(0.25)

            heard: list[bytes] = []
            while len(heard) < crowd.sent:
                message = str(real.recv(STALLED_SECONDS)).encode()
                heard += [message] if _ANY_MARK in message else []
            received = b""
            while (found := _edits_in(received)) != heard:
                if len(found) >= crowd.sent or not (chunk := parsed.recv(262_144)):
                    raise Unexpected("a real client received something else than was counted")
                received += chunk


def _edits_in(received: bytes) -> list[bytes]:
    return [payload for _, payload, _ in websocket.frames(received) if _ANY_MARK in payload]


# --- both sides -----------------------------------------------------------------------------------------


@contextmanager
def _roomkey(members: int) -> Generator[Side]:
    subscribe = b'{"id":"subscribe","message_type":"subscribe","payload":{"document":"%s"}}' % DOCUMENT
    with roomkey() as server, closing(Api(server)) as api:
        tokens = [token for _, token in api.sessions(members)]
        yield Side(server, "/ws", list(tokens), subscribe, b'"subscribed"')


@contextmanager
def _ws(members: int) -> Generator[Side | Missing]:
    with peer("relay.mjs") as server:
        yield server if isinstance(server, Missing) else Side(server, "/", [None] * members)


def run(plan: Plan) -> Finding:
    """Every room on both sides in turns; both servers are there throughout, and one has work."""
    rooms = QUICK_ROOMS if plan.quick else ROOMS
    members = max(room.clients for room in rooms) + 1
    rows: list[Row] = []
    with _roomkey(members) as ours, _ws(members) as theirs:
        sides = {ROOMKEY: ours} if isinstance(theirs, Missing) else {ROOMKEY: ours, WS: theirs}
        for side in sides.values():
            side.check()
        for room in rooms:
            found = interleaved(plan, {name: side.contender(room) for name, side in sides.items()})
            rows += [Row(str(room), name, figures) for name, figures in found.items()]
            if isinstance(theirs, Missing):
                rows.append(Row(str(room), WS, skipped=theirs.reason))
    return Finding(rows, _goals(rows, rooms), NOTES)


def _goals(rows: list[Row], rooms: Sequence[Room]) -> list[Goal]:
    case = str(rooms[0])
    cheaper = ratio(find(rows, case, ROOMKEY), find(rows, case, WS), "deliveries per CPU second")
    goals = [Goal(f"{case}: deliveries per CPU second against ws", cheaper, WANTED_RATIO, TIMES)]
    slowest, typical = value(rows, case, ROOMKEY, "latency p99"), value(rows, case, WS, "latency p50")
    if typical is not None:
        goals.append(Goal(f"{case}: our p99 below the p50 of ws", slowest, typical, "ms", at_least=False))
    return goals


NOTES: Final = [
    (
        "Roomkey does everything: sessions with deadlines and grants looked at for every frame, limits, validation, "
        "message ids, a history to recover from, acknowledgements. The relay hands on bytes that it does not read."
    ),
    (
        "As fast as it goes: a writer's next edit leaves when another client has received the one before. Latency is "
        "from the writer's send to that client's receive; the time that the load takes to read for everyone is in it."
    ),
    (
        "Messages that are there at the same time leave Roomkey in one write to each client; the relay makes a write "
        "of each. Where edits come one by one, as at a fixed rate, both sides mostly pay for the kernel's work."
    ),
    (
        "Every delivery is counted; a round in which one is missing or too many fails. Before measuring, a real "
        "WebSocket client in the room must have received the same messages."
    ),
    "Limits per session are on and set so high that they are not met.",
]

BENCHMARK: Final = Benchmark(
    name="broadcast",
    title="A room's broadcast against Node.js ws",
    about="Deliveries of edits of about 120 bytes to everyone in one room, the server on one core.",
    run=run,
    versions={**installed("picows", "uvloop", "uvicorn"), "ws": version_of("ws")},
)

if __name__ == "__main__":
    main(BENCHMARK)
