"""The cost model: a line through what was measured at several sizes, its error, and what it says of larger ones."""

from collections.abc import Mapping, Sequence
from math import ceil
from statistics import linear_regression
from typing import Final

from msgspec import Struct

from benchmarks.cluster_sides import NODES
from benchmarks.harness import Row
from roomkey.realtime.settings import RealtimeSettings

NODE_CPU: Final = "CPU of nodes"
STORE_CPU: Final = "CPU of store"
NODE_MEMORY: Final = "memory of nodes"
STORE_MEMORY: Final = "stored"
COMMANDS: Final = "commands"
RECEIVED: Final = "received by store"
SENT: Final = "sent by store"
EDITORS: Final = "editors"

RESTING_NODE_CPU: Final = f"{NODE_CPU} at rest"
RESTING_STORE_CPU: Final = f"{STORE_CPU} at rest"
RESTING_COMMANDS: Final = f"{COMMANDS} at rest"

QUANTITIES: Final = (NODE_CPU, STORE_CPU, NODE_MEMORY, STORE_MEMORY, COMMANDS, RECEIVED, SENT)
RESTING: Final = (RESTING_NODE_CPU, RESTING_STORE_CPU, RESTING_COMMANDS)
"""Of people who are in their documents while nobody types."""

THOUSAND: Final = 1000

BUSY: Final = 70.0
"""So many percent of a core may be used: the rest is for people who come all at once, and for nodes that are away."""

SOCKETS_PER_NODE: Final = RealtimeSettings().max_connections
"""So many a node lets in, whatever they do."""


class Line(Struct, frozen=True):
    """
    What a quantity is for so many editors: ``each`` for a thousand, and ``idle`` for all nodes if there is nobody.

    ``error`` says how far the line through all sizes but the largest is off there, in what was measured.
    """

    idle: float
    each: float
    error: float

    def at(self, editors: float, nodes: float = NODES) -> float:
        """What it is for so many editors on so many nodes, each of which adds its part of ``idle``."""
        return self.idle * nodes / NODES + self.each * editors / THOUSAND


def fit(points: Sequence[tuple[float, float]]) -> Line:
    """The line through all points, of which there are at least three, in the order of their sizes."""
    (last, measured), smaller = points[-1], points[:-1]
    slope, intercept = linear_regression(*zip(*smaller, strict=True))
    error = abs(intercept + slope * last - measured) / measured if measured else 0.0
    slope, intercept = linear_regression(*zip(*points, strict=True))
    return Line(max(intercept, 0.0), max(slope, 0.0) * THOUSAND, error)


def lines(rows: Sequence[Row], side: str) -> Mapping[str, Line]:
    """A line for each quantity of this side that was measured at three sizes."""
    measured = sorted(
        (row.figures for row in rows if row.side == side and row.figures), key=lambda found: found[EDITORS].median
    )
    if len(measured) < 3:
        return {}
    return {
        name: fit([(found[EDITORS].median, found[name].median) for found in measured])
        for name in (*QUANTITIES, *RESTING)
        if all(name in found and found[name].median for found in measured)
    }


class Needed(Struct, frozen=True):
    """
    What so many sockets need, some of which are active editors and the others silent.

    ``nodes`` and ``shards`` are processes and stores with a core each. The rest is of each node and of each shard:
    megabytes, commands per second, kilobytes per second.
    """

    sockets: int
    editors: int
    nodes: int
    shards: int
    node_memory: float
    store_memory: float
    commands: float
    received: float | None
    sent: float | None


def needed(found: Mapping[str, Line], sockets: int, editors: int) -> Needed:
    """
    How many nodes and shards that takes, if each is as busy as ``BUSY`` says, and what each of them holds and hears.

    Silent sockets cost what people cost who are at rest. What a node costs that has nothing to do is counted for each
    node, at the store as well.
    """
    silent = (sockets - editors) / THOUSAND
    cpu = found[NODE_CPU]
    busy = cpu.each * editors / THOUSAND + found[RESTING_NODE_CPU].each * silent
    nodes = max(ceil(busy / max(BUSY - cpu.idle / NODES, BUSY / 2)), ceil(sockets / SOCKETS_PER_NODE))
    shards = max(1, ceil((found[STORE_CPU].at(editors, nodes) + found[RESTING_STORE_CPU].each * silent) / BUSY))
    traffic = {name: found[name].at(editors, nodes) / shards if name in found else None for name in (RECEIVED, SENT)}
    return Needed(
        sockets,
        editors,
        nodes,
        shards,
        found[NODE_MEMORY].at(sockets, nodes) / nodes,
        found[STORE_MEMORY].at(sockets, nodes) / shards,
        (found[COMMANDS].at(editors, nodes) + found[RESTING_COMMANDS].each * silent) / shards,
        traffic[RECEIVED],
        traffic[SENT],
    )
