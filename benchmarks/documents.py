"""One document in which many type at once: what a delivery costs Roomkey, and what it costs other servers of Yjs."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import count
from typing import Final

from benchmarks.crowd import Crowd, Room
from benchmarks.editing import (
    HOCUSPOCUS,
    ROOMKEY,
    ROOMKEY_HOCUSPOCUS,
    VERSIONS,
    Y_WEBSOCKET,
    Side,
    check,
    servers,
)
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
    value,
)
from benchmarks.node import Missing

LARGE: Final = Room(200, 20, rate=5)
"""As fast as people type, and no server has too much to do: what then passes until a letter is seen is latency."""

ROOMS: Final = (LARGE, Room(5, 5), Room(50, 5), Room(200, 20), Room(200, 200))
QUICK_ROOMS: Final = (Room(6, 3, rate=10), Room(6, 3))

WANTED_RATIOS: Final[Mapping[Room, Mapping[str, float]]] = {
    Room(5, 5): {HOCUSPOCUS: 1.8, Y_WEBSOCKET: 1.2},
    Room(200, 200): {HOCUSPOCUS: 2, Y_WEBSOCKET: 12},
}
"""Deliveries per CPU second against each of them."""

WANTED_COST: Final = 0.7
WANTED_MS: Final = 30

SAME_PROTOCOL: Final[Mapping[str, str]] = {HOCUSPOCUS: ROOMKEY_HOCUSPOCUS, Y_WEBSOCKET: ROOMKEY}

_numbers = count(1)


def contender(side: Side, room: Room) -> Contender:
    """The room on this server; its document and its clients are new in each round."""

    def contend(seconds: float) -> Measures:
        document = f"room-{next(_numbers):06d}"
        typing = side.typing(document, room.writers, seconds)
        connections = side.join([document] * room.clients)
        with closing(Crowd(connections, room, typing, echoed=True)) as crowd:
            measures = crowd.measure(side.server, seconds)
            typing.check(side.text(document))
        return measures

    return contend


def run(plan: Plan) -> Finding:
    """Every room on all sides in turns; all servers are there throughout, and one has work."""
    rooms = QUICK_ROOMS if plan.quick else ROOMS
    rows: list[Row] = []
    with servers(max(room.clients for room in rooms) + 1) as found:
        sides = {name: side for name, side in found.items() if isinstance(side, Side)}
        missing = {name: side for name, side in found.items() if isinstance(side, Missing)}
        for side in sides.values():
            check(side)
        for room in rooms:
            measured = interleaved(plan, {name: contender(side, room) for name, side in sides.items()})
            rows += [Row(str(room), name, figures, paced=room.paced) for name, figures in measured.items()]
            rows += [Row(str(room), name, skipped=side.reason) for name, side in missing.items()]
    return Finding(rows, _goals(rows), NOTES)


def _goals(rows: Sequence[Row]) -> list[Goal]:
    goals = [
        Goal(
            f"{room}: deliveries per CPU second against {theirs}",
            _against(rows, room, theirs, "deliveries per CPU second"),
            wanted,
            TIMES,
        )
        for room, ratios in WANTED_RATIOS.items()
        for theirs, wanted in ratios.items()
    ]
    cost = _against(rows, LARGE, HOCUSPOCUS, "CPU per delivery")
    goals.append(Goal(f"{LARGE}: CPU against {HOCUSPOCUS}", cost, WANTED_COST, TIMES, at_least=False))
    for side in (ROOMKEY, ROOMKEY_HOCUSPOCUS):
        slowest = value(rows, str(LARGE), side, "latency p99")
        goals.append(Goal(f"{LARGE}: delivery p99, {side}", slowest, WANTED_MS, "ms", at_least=False))
    return goals


def _against(rows: Sequence[Row], room: Room, theirs: str, quantity: str) -> float | None:
    """How many times the other's our median is, in the other's protocol."""
    ours = SAME_PROTOCOL[theirs]
    return ratio(find(rows, str(room), ours), find(rows, str(room), theirs), quantity)


NOTES: Final = [
    (
        "Roomkey looks at session and grant for every message, keeps limits, remembers who wrote what, and writes "
        "everything to the disk (LMDB) while it is measured. The others have no storage and let everybody in."
    ),
    (
        "Everyone who writes types one letter at a time behind his last one, as updates of Yjs that were made before "
        "the clock starts. A delivery is one letter that has reached one client; all servers send writers their own "
        "letters too, and those count. Letters that a server merges into one message count as the letters they are."
    ),
    (
        "After every round a new client joins and must read everything that was typed, and nothing else. Before "
        "measuring, a real WebSocket client in the room must have come to the same text."
    ),
    (
        "As fast as it goes: a writer's next letter leaves when another client has received the one before. The "
        "latency there says in other words how many deliveries a second there are. At a pace, 5 letters a second "
        "each, it says how long people wait for each other; what the load needs to read for everyone is in it. The "
        "load CPU per delivery is what reading costs the clients: it depends on how much a server sends at a time. "
        "Where the pace was not kept, server or load had too much to do, and the figures are not those of people."
    ),
    "Every round has a document of its own; those of earlier rounds may still be in memory.",
    "Limits per session are on and set so high that they are not met.",
]

BENCHMARK: Final = Benchmark(
    name="documents",
    title="Typing together against other servers of Yjs",
    about="Deliveries of single letters to everyone in one document, the server on one core.",
    run=run,
    versions=installed("picows", "pycrdt", "uvloop"),
    peers=VERSIONS,
)


if __name__ == "__main__":
    main(BENCHMARK)
