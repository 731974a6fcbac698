"""One room, many clients, some of whom write: what a delivery costs Roomkey, and what it costs a plain relay."""

import socket
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import count
from typing import Final

from msgspec import Struct
from websockets.sync.client import connect as connect_real

from benchmarks import websocket
from benchmarks.crowd import STALLED_SECONDS, Crowd, Room
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
    ratio,
)
from benchmarks.httpload import Api, Unexpected
from benchmarks.node import Missing, peer, version_of
from benchmarks.processes import HOST, Started, roomkey

ROOMKEY: Final = "Roomkey"
WS: Final = "Node.js ws, plain relay"


ROOMS: Final = (Room(200, 20, rate=10), Room(200, 20), Room(20, 20), Room(50, 5))
QUICK_ROOMS: Final = (Room(6, 3, rate=10), Room(6, 3))

WANTED_RATIOS: Final[Mapping[Room, float]] = {Room(200, 20): 5, Room(20, 20): 1.5}
"""Deliveries per CPU second against the relay."""


# --- what is sent ---------------------------------------------------------------------------------------

_numbers = count(1)

_ANY_MARK: Final = b'"by":"'


OURS: Final = b'{"id":"%012d","message_type":"realtime_edit","payload":{"document":"room",%s,"text":"what was typed"}}'


class Edits:
    """Edits as Roomkey wants them, or in another ``form`` with a number and the mark; to the relay they are text."""

    any_mark = _ANY_MARK

    def __init__(self, form: bytes = OURS) -> None:
        self._form = form

    def mark(self, writer: int) -> bytes:
        """Who wrote it."""
        return b'%s%04d"' % (_ANY_MARK, writer)

    def edit(self, writer: int) -> bytes:
        """The next one."""
        # Never the same id again: Roomkey would notice.
        return websocket.frame(self._form % (next(_numbers), self.mark(writer)))


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
            with closing(Crowd(self.join(room.clients), room, Edits())) as crowd:
                return crowd.measure(self.server, seconds)

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
            closing(Crowd(self.join(room.clients), room, Edits())) as crowd,
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
    with roomkey() as server, closing(Api(server)) as api:
        yield side_of(server, [token for _, token in api.sessions(members)])


def side_of(server: Started, tokens: Sequence[str]) -> Side:
    """The room on a Roomkey whose sessions have these tokens."""
    subscribe = b'{"id":"subscribe","message_type":"subscribe","payload":{"document":"room"}}'
    return Side(server, "/ws", list(tokens), subscribe, b'"subscribed"')


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
            rows += [Row(str(room), name, figures, paced=room.paced) for name, figures in found.items()]
            if isinstance(theirs, Missing):
                rows.append(Row(str(room), WS, skipped=theirs.reason))
    return Finding(rows, _goals(rows), NOTES)


def _goals(rows: Sequence[Row]) -> list[Goal]:
    return [
        Goal(
            f"{room}: deliveries per CPU second against ws",
            ratio(find(rows, str(room), ROOMKEY), find(rows, str(room), WS), "deliveries per CPU second"),
            wanted,
            TIMES,
        )
        for room, wanted in WANTED_RATIOS.items()
    ]


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
    versions=installed("picows", "uvloop", "uvicorn"),
    peers={"ws": version_of("ws")},
)

if __name__ == "__main__":
    main(BENCHMARK)
