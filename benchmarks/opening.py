"""A thousand small documents: how fast they are opened and edited, what each takes, and what is left of it."""

import socket
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Final

from benchmarks import websocket
from benchmarks.crowd import READ_BYTES
from benchmarks.editing import ANY_LETTER, HOCUSPOCUS, ROOMKEY, ROOMKEY_HOCUSPOCUS, VERSIONS, Side, servers, typed
from benchmarks.harness import Benchmark, Finding, Goal, Measures, Plan, Row, figures, installed, main, value
from benchmarks.httpload import Unexpected
from benchmarks.node import Missing
from benchmarks.processes import Meter
from roomkey.realtime.protocol import yjs_messages as yjs

DOCUMENTS: Final = 1_000
QUICK_DOCUMENTS: Final = 20
LETTERS: Final = 20

SETTINGS: Final = {"documents.idle_timeout": "1s", "documents.sweep_interval": "250ms"}
"""So that it need not be waited for minutes until documents that nobody uses are put away."""

LOOK_SECONDS: Final = 0.25
SETTLED_LOOKS: Final = 8
MOST_LOOKS: Final = 60


def _edit(side: Side, names: Sequence[str]) -> list[socket.socket]:
    """A client for each document; each types his letters and has read all of them."""
    [updates] = typed(1, LETTERS)
    connections = side.join(names)
    for name, connection in zip(names, connections, strict=True):
        connection.sendall(b"".join(side.frame(name, yjs.update(update)) for update in updates))
    for connection in connections:
        seen = b""
        while seen.count(ANY_LETTER) < LETTERS:
            chunk = connection.recv(READ_BYTES)
            if not chunk:
                raise Unexpected("the server closed a connection")
            seen += chunk
    return connections


def _measure(side: Side, documents: int, looks: int) -> Measures:
    """A first set of documents, a pause in which nobody is there, and a second set, on a server that is new."""
    names = [f"small-{number:06d}" for number in range(2 * documents)]
    with closing(side.join(["warm-up"])[0]):
        empty = side.server.usage().resident
    meter = Meter(side.server)
    connections = _edit(side, names[:documents])
    measures = meter.measures(documents, "document", "documents")
    full = side.server.usage().resident
    websocket.close(connections)
    left = _settled(side, looks)
    connections = _edit(side, names[documents:])
    again = side.server.usage().resident
    websocket.close(connections)
    return {
        "documents": measures["documents"],
        "CPU per document": measures["CPU per document"],
        "memory per document": (max(full - empty, 0) / documents / 1e3, "KB"),
        "kept when all have gone": (max(left - empty, 0) / documents / 1e3, "KB"),
        "a second set adds": (max(again - full, 0) / documents / 1e3, "KB"),
    }


def _settled(side: Side, looks: int) -> int:
    """The memory of the server when so many looks have not found less of it."""
    least, unchanged = side.server.usage().resident, 0
    for _ in range(MOST_LOOKS):
        time.sleep(LOOK_SECONDS)
        resident = side.server.usage().resident
        unchanged = unchanged + 1 if resident >= least else 0
        least = min(least, resident)
        if unchanged == looks:
            break
    return least


def run(plan: Plan) -> Finding:
    """All sides in turns, on new servers each time, for what was freed before is not asked for again."""
    documents, looks = plan.size(DOCUMENTS, QUICK_DOCUMENTS), plan.size(SETTLED_LOOKS, 1)
    case = f"{documents:,} documents"
    rounds: dict[str, list[Measures]] = {}
    skipped: dict[str, str] = {}
    for _ in range(plan.rounds):
        with servers(documents + 1, SETTINGS) as found:
            del found[ROOMKEY_HOCUSPOCUS]  # the same server, which would not be new any more
            for name, side in found.items():
                if isinstance(side, Missing):
                    skipped[name] = side.reason
                else:
                    rounds.setdefault(name, []).append(_measure(side, documents, looks))
    rows = [Row(case, name, figures(measured)) for name, measured in rounds.items()]
    rows += [Row(case, name, skipped=reason) for name, reason in skipped.items()]
    return Finding(rows, _goals(rows, case), NOTES)


def _goals(rows: Sequence[Row], case: str) -> list[Goal]:
    quantity = "memory per document"
    theirs = value(rows, case, HOCUSPOCUS, quantity)
    if theirs is None:
        return []
    what = f"{case}: {quantity}, against {HOCUSPOCUS}"
    return [Goal(what, value(rows, case, ROOMKEY, quantity), theirs, "KB", at_least=False)]


NOTES: Final = [
    (
        f"Each document has one client, which joins, types {LETTERS} letters and has them back. Memory is the growth "
        "of the process's resident set, with the connection and, for Roomkey, all that belongs to its session."
    ),
    (
        "When all have gone it is looked at until it shrinks no more. Allocators do not give everything back; what a "
        "second set of as many new documents adds then shows whether the first one is still there."
    ),
    "For Roomkey the idle timeout of documents is set to a second. The server of y-websocket keeps all documents.",
]

BENCHMARK: Final = Benchmark(
    name="opening",
    title="A thousand small documents",
    about="Documents opened and edited by one client each on a new server, and what they take, on one core.",
    run=run,
    versions=installed("picows", "pycrdt", "uvloop"),
    peers=VERSIONS,
)

if __name__ == "__main__":
    main(BENCHMARK)
