"""What a thousand active editors cost, nodes and store apart, at three sizes; ``scaling_page`` says what follows."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Final

import msgspec
from msgspec import Struct

from benchmarks.citizens import Lived, citizens
from benchmarks.city import PEOPLE
from benchmarks.cluster_sides import NODES, POSTGRESQL, REDIS, roomkey_on, running
from benchmarks.databases import Database
from benchmarks.editing import Side, typed
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
)
from benchmarks.joined import Joined, documents_of, people, roomkeys
from benchmarks.node import Missing
from benchmarks.scaling_model import (
    COMMANDS,
    EDITORS,
    NODE_CPU,
    NODE_MEMORY,
    QUANTITIES,
    RECEIVED,
    RESTING_COMMANDS,
    RESTING_NODE_CPU,
    RESTING_STORE_CPU,
    SENT,
    STORE_CPU,
    STORE_MEMORY,
    lines,
)
from benchmarks.store_counts import Counts, counts
from roomkey.realtime.protocol import yjs_messages as yjs

RATE: Final = 1.0
"""Letters per second in each document, of one of its people in turn."""

SIZES: Final[Mapping[str, Sequence[int]]] = {REDIS: (100, 250, 500), POSTGRESQL: (50, 125, 200)}
"""
Documents: the largest number is what one core can do for all nodes and the store, and still has time left. A core that
is full does together what has come meanwhile, for less than a line says.
"""
QUICK_SIZES: Final[Mapping[str, Sequence[int]]] = {REDIS: (2,)}

ELSEWHERE: Final = "elsewhere"
ELSEWHERE_SECONDS: Final = 0.1
"""Between two letters there, while all others are at rest."""

SETTLING_SECONDS: Final = 1.0

SHORTEST_SECONDS: Final = 6.0
"""A processor's clock ticks a hundred times a second: short rounds would be rounded."""

MOST_ROUNDS: Final = 3
WANTED_ERROR: Final = 20


class Size(Struct, frozen=True):
    """So many documents."""

    documents: int

    def __str__(self) -> str:
        return f"{self.documents * PEOPLE:,} editors in {self.documents:,} documents"


class _Spent(Struct, frozen=True):
    """What a stretch of time took, and what there was at its end."""

    seconds: float
    nodes: float
    store: float
    memory: float
    asked: Counts


def _during(joined: Joined, work: Callable[[], object]) -> _Spent:
    asked, nodes, store = counts(joined.store), joined.of_nodes(), joined.store.usage()
    begun = time.perf_counter()
    work()
    seconds = time.perf_counter() - begun
    after = joined.of_nodes()
    used = after.since(nodes), joined.store.usage().since(store)
    return _Spent(seconds, *used, after.resident, counts(joined.store).since(asked))


def _rest(side: Side, seconds: float) -> None:
    """Nobody types but one, in another document: where many people are, somebody always does."""
    count = int(seconds / ELSEWHERE_SECONDS) + 1
    with closing(side.join([ELSEWHERE])[0]) as connection:
        for update in typed(1, count)[0]:
            connection.sendall(side.frame(ELSEWHERE, yjs.update(update)))
            time.sleep(seconds / count)


def contender(name: str, size: Size) -> Contender:
    """A store and nodes of its own for each round."""

    def contend(seconds: float) -> Measures:
        with running(name) as store:
            assert isinstance(store, Database)
            with roomkeys(NODES, store) as joined:
                side = documents_of(joined, people(joined, size.documents))
                names = [f"city/{number:06d}" for number in range(size.documents)]
                with citizens(side, names, RATE, seconds) as everybody:
                    time.sleep(min(SETTLING_SECONDS, seconds))
                    resting = _during(joined, lambda: _rest(side.sides[0], seconds))
                    lived: list[Lived] = []
                    typing = _during(joined, lambda: lived.append(everybody.live()))
                    everybody.read()
        return _measures(everybody.joined, resting, typing, lived[0], seconds)

    return contend


def _measures(editors: int, resting: _Spent, typing: _Spent, lived: Lived, wanted: float) -> Measures:
    seconds = typing.seconds
    sent = {SENT: (typing.asked.sent / seconds / 1e3, "KB")} if typing.asked.sent else {}
    return {
        EDITORS: (editors, ""),
        NODE_CPU: (typing.nodes / seconds * 100, "%"),
        STORE_CPU: (typing.store / seconds * 100, "%"),
        NODE_MEMORY: (typing.memory / 1e6, "MB"),
        STORE_MEMORY: (typing.asked.stored / 1e6, "MB"),
        COMMANDS: (typing.asked.commands / seconds, "/s"),
        RECEIVED: (typing.asked.received / seconds / 1e3, "KB"),
        **sent,
        RESTING_NODE_CPU: (resting.nodes / resting.seconds * 100, "%"),
        RESTING_STORE_CPU: (resting.store / resting.seconds * 100, "%"),
        RESTING_COMMANDS: (resting.asked.commands / resting.seconds, "/s"),
        "pace kept": (wanted / seconds * 100, "%"),
        "deliveries": (lived.deliveries / seconds, "/s"),
        "load CPU": (lived.cpu_seconds / seconds * 100, "%"),
        **quantiles(lived.latencies, "delivery "),
    }


def run(plan: Plan) -> Finding:
    """Size after size, on both stores in turns."""
    seconds = plan.seconds if plan.quick else max(plan.seconds, SHORTEST_SECONDS)
    plan = msgspec.structs.replace(plan, rounds=min(plan.rounds, MOST_ROUNDS), seconds=seconds)
    rows: list[Row] = []
    sizes: dict[str, Sequence[int]] = {}
    for name, documents in (QUICK_SIZES if plan.quick else SIZES).items():
        with running(name) as store:
            if isinstance(store, Missing):
                rows.append(Row("all sizes", roomkey_on(name), skipped=store.reason))
            else:
                sizes[name] = documents
    for step in zip(*sizes.values(), strict=True):
        cases = {roomkey_on(name): (name, Size(documents)) for name, documents in zip(sizes, step, strict=True)}
        measured = interleaved(plan, {side: contender(*case) for side, case in cases.items()}, warm_up=False)
        rows += [Row(str(cases[side][1]), side, figures, paced=True) for side, figures in measured.items()]
    return Finding(rows, _goals(rows), NOTES)


def _goals(rows: Sequence[Row]) -> list[Goal]:
    return [
        Goal(
            f"{name}: error at the largest size, {side}",
            line.error * 100,
            WANTED_ERROR,
            "%",
            at_least=False,
        )
        for side in map(roomkey_on, (REDIS, POSTGRESQL))
        for name, line in lines(rows, side).items()
        if name in QUANTITIES
    ]


NOTES: Final = [
    (
        f"{PEOPLE} people in each document, each on another of {NODES} nodes, take turns to type {RATE:g} letter per "
        "second. Nodes and store have one core, so 100 % is all that there is; the load has the other. At rest all of "
        "them are there, and nobody types but one, in another document."
    ),
    (
        "Received and sent are bytes per second. PostgreSQL counts transactions instead of commands, and as received "
        "what it writes to its log; what it sends it does not count. Stored is the memory of Redis, the files of "
        "PostgreSQL, whose transactions grow more slowly than a line: what comes in one turn is stored in one. Where "
        "the pace was not kept, everything had too much to do, and the line is not that of people."
    ),
]

BENCHMARK: Final = Benchmark(
    name="scaling",
    title="What a thousand editors cost, and how it grows",
    about="Three nodes on one store at three sizes; a line through the smaller ones must tell the largest.",
    run=run,
    versions=installed("asyncpg", "hiredis", "picows", "pycrdt", "redis", "sqlalchemy", "uvloop"),
)

if __name__ == "__main__":
    main(BENCHMARK)
