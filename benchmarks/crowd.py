"""All clients of one room in one thread: they write, count what arrives, and time it, without a frame parsed."""

import selectors
import socket
import time
from collections import deque
from collections.abc import Sequence
from itertools import cycle
from typing import Final, Protocol

from msgspec import Struct

from benchmarks import websocket
from benchmarks.harness import Measures, quantiles
from benchmarks.httpload import Unexpected
from benchmarks.processes import Meter, Used

STALLED_SECONDS: Final = 10.0

LONGEST_ROUND_SECONDS: Final = 20.0  # pings are not answered, so nobody may wait for them

READ_BYTES: Final = 262_144


class Room(Struct, frozen=True):
    """So many clients, so many of whom write: as fast as edits arrive, or so many edits per second each."""

    clients: int
    writers: int
    rate: float | None = None

    @property
    def paced(self) -> bool:
        """Whether people would type like this."""
        return self.rate is not None

    def __str__(self) -> str:
        pace = "as fast as it goes" if self.rate is None else f"{self.rate:g} edits/s each"
        return f"{self.clients} clients, {self.writers} writers, {pace}"


class Script(Protocol):
    """
    What the writers of a room write.

    ``any_mark`` occurs once in what is received of each edit, as the beginning of the mark of its writer.
    """

    any_mark: bytes

    def mark(self, writer: int) -> bytes:
        """What is found in the edits of one writer and nowhere else. All marks are equally long."""
        ...

    def edit(self, writer: int) -> bytes | None:
        """The next edit as a frame, or ``None`` when there are no more: the round is over then."""
        ...


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


def witnesses(room: Room, nodes: int = 1) -> list[int]:
    """
    Who watches each writer, as the number of a client: somebody half the room further.

    With several ``nodes``, over which the clients go in turn, it is somebody on another one.
    """
    spread = room.clients // room.writers
    positions = [writer * spread for writer in range(room.writers)]
    shift = room.clients // 2 + spread // 2
    while nodes > 1 and any((at + shift) % room.clients % nodes == at % nodes for at in positions):
        shift += 1
    return [(at + shift) % room.clients for at in positions]


class Crowd:
    """
    Everybody in the room. An edit is counted by its mark, which costs a search in what one read returned.

    Of each writer one other client is the witness: that an edit came makes the writer send the next one, and
    since those of one writer come in order, it is known when each was sent. Witnesses are spread over the room,
    so that nobody is always served first. ``echoed`` says whether the server sends writers their own edits too.
    With several ``nodes``, over which the connections go in turn, a witness is on another node than its writer.
    """

    def __init__(
        self, connections: Sequence[socket.socket], room: Room, script: Script, *, echoed: bool = False, nodes: int = 1
    ) -> None:
        self.room = room
        self.sent = 0
        self.latencies: list[float] = []
        self._script = script
        self._receivers = room.clients if echoed else room.clients - 1
        self._is_over = False
        self._under_way: list[deque[float]] = [deque() for _ in range(room.writers)]
        """Of each writer, when what the witness has not seen yet was sent."""
        self._tail_size = len(script.mark(0)) - 1
        self._members = [_Member(connection) for connection in connections]
        spread = room.clients // room.writers
        self._writers = [self._members[writer * spread] for writer in range(room.writers)]
        for writer, position in enumerate(witnesses(room, nodes)):
            self._members[position].watched = writer
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
        """Edits that clients must have received when all is done."""
        return self.sent * self._receivers

    def measure(self, server: Used, seconds: float) -> Measures:
        """
        Work for so long; returns what that cost the server and this process, and how long deliveries took.

        Of a paced room it says how much of the pace was kept: below 100 % somebody could not follow.
        """
        meter = Meter(server)
        self.work(seconds)
        measures = meter.measures(self.deliveries, "delivery", "deliveries")
        (per_second, unit), (each, _) = measures.pop("deliveries"), measures["CPU per delivery"]
        if self.room.rate is None:
            told = {"deliveries per CPU second": (1e6 / each, "")}
        else:
            wanted = self.room.rate * self.room.writers * self._receivers
            told = {"pace kept": (per_second / wanted * 100, "%")}
        return {"deliveries": (per_second, unit), **told, **measures, **quantiles(self.latencies, "latency ")}

    def work(self, seconds: float) -> None:
        """
        Write for so long, or until nothing is left to be written, and read until everything has arrived.

        Raises:
            Unexpected: If something does not arrive, or arrives twice.
        """
        end = time.perf_counter() + min(seconds, LONGEST_ROUND_SECONDS)
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
            self.write(writer)
        while time.perf_counter() < end and not self._is_over:
            for writer in self.read(STALLED_SECONDS):
                self.write(writer)

    def _write_at(self, rate: float, end: float) -> None:
        pause, due = 1 / rate / self.room.writers, time.perf_counter()
        for writer in cycle(range(self.room.writers)):
            while (wait := due - time.perf_counter()) > 0:
                self.read(wait, needed=False)
            if due > end or self._is_over:
                return
            self.write(writer)
            due += pause

    def write(self, writer: int) -> None:
        """Send the next edit of one writer, if there is one."""
        edit = self._script.edit(writer)
        if edit is None:
            self._is_over = True
            return
        self.sent += 1
        self._under_way[writer].append(time.perf_counter())
        self._writers[writer].connection.send(edit)

    def read(self, wait: float, *, needed: bool = True) -> list[int]:
        """
        Read what is there, or comes within ``wait`` seconds; returns whose edits were witnessed.

        Raises:
            Unexpected: If nothing comes that is ``needed``, or a connection has ended.
        """
        ready = self._selector.select(wait)
        if needed and not ready:
            raise Unexpected(f"{self.expected - self.deliveries} of {self.expected} deliveries are missing")
        any_mark = self._script.any_mark
        witnessed: list[int] = []
        for key, _ in ready:
            member: _Member = key.data
            chunk = member.connection.recv(READ_BYTES)
            if not chunk:
                raise Unexpected("the server closed a connection")
            seen = member.tail + chunk
            # What lies in the tail as a whole was counted before.
            member.edits += seen.count(any_mark) - member.tail.count(any_mark)
            member.tail = seen[-self._tail_size :]
            if member.watched is not None:
                self._witness(member.watched, seen, witnessed)
        return witnessed

    def _witness(self, writer: int, seen: bytes, witnessed: list[int]) -> None:
        # A mark is longer than a tail, so none is found twice.
        for _ in range(seen.count(self._script.mark(writer))):
            self.latencies.append(time.perf_counter() - self._under_way[writer].popleft())
            witnessed.append(writer)
