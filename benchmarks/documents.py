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
    quantiles,
    ratio,
    value,
)
from benchmarks.node import Missing
from benchmarks.processes import Meter

WANTED_RATIOS: Final[Mapping[Room, int]] = {Room(5, 5): 2, Room(50, 5): 5, Room(200, 20): 12}

AT_A_PACE: Final = Room(200, 20, rate=5)
"""As fast as people type, and no server has too much to do: what then passes until a letter is seen is latency."""

ROOMS: Final = (*WANTED_RATIOS, Room(200, 200), AT_A_PACE)
QUICK_ROOMS: Final = (Room(6, 3), Room(6, 3, rate=10))

_numbers = count(1)


def _contender(side: Side, room: Room) -> Contender:
    """The room on this server; its document and its clients are new in each round."""

    def contend(seconds: float) -> Measures:
        document = f"room-{next(_numbers):06d}"
        typing = side.typing(document, room.writers, seconds)
        connections = side.join([document] * room.clients)
        with closing(Crowd(connections, room, typing, echoed=True)) as crowd:
            meter = Meter(side.server)
            crowd.work(seconds)
            measures = meter.measures(crowd.deliveries, "delivery", "deliveries")
            typing.check(side.text(document))
        each, _ = measures["CPU per delivery"]
        return {
            "deliveries": measures.pop("deliveries"),
            "deliveries per CPU second": (1e6 / each, ""),
            **measures,
            **quantiles(crowd.latencies, "latency "),
        }

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
            measured = interleaved(plan, {name: _contender(side, room) for name, side in sides.items()})
            rows += [Row(str(room), name, figures) for name, figures in measured.items()]
            rows += [Row(str(room), name, skipped=side.reason) for name, side in missing.items()]
    return Finding(rows, _goals(rows), NOTES)


def _goals(rows: Sequence[Row]) -> list[Goal]:
    goals = [
        Goal(
            f"{room}: deliveries per CPU second against {theirs}",
            ratio(find(rows, str(room), ours), find(rows, str(room), theirs), "deliveries per CPU second"),
            wanted,
            TIMES,
        )
        for room, wanted in WANTED_RATIOS.items()
        for ours, theirs in ((ROOMKEY_HOCUSPOCUS, HOCUSPOCUS), (ROOMKEY, Y_WEBSOCKET))
    ]
    for room in (Room(200, 20), AT_A_PACE):
        typical = value(rows, str(room), HOCUSPOCUS, "latency p50")
        if typical is not None:
            slowest = value(rows, str(room), ROOMKEY_HOCUSPOCUS, "latency p99")
            goals.append(Goal(f"{room}: our p99 below the p50 of {HOCUSPOCUS}", slowest, typical, "ms", at_least=False))
    return goals


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
        "each, it says how long people wait for each other; what the load needs to read for everyone is in it."
    ),
    "Every round has a document of its own; those of earlier rounds may still be in memory.",
    "Limits per session are on and set so high that they are not met.",
]

BENCHMARK: Final = Benchmark(
    name="documents",
    title="Typing together against other servers of Yjs",
    about="Deliveries of single letters to everyone in one document, the server on one core.",
    run=run,
    versions={**VERSIONS, **installed("picows", "pycrdt", "uvloop")},
)


if __name__ == "__main__":
    main(BENCHMARK)
