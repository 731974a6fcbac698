"""What a server costs that nobody uses, and an open socket on which nothing is said."""

import resource
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import Final

from benchmarks.harness import Benchmark, Figure, Finding, Goal, Plan, Row, installed, main, value
from benchmarks.holder import holding
from benchmarks.httpload import Api, Unexpected
from benchmarks.node import Missing, peer, version_of
from benchmarks.processes import Started, roomkey

SOCKETS: Final = 10_000
RESERVED_FILES: Final = 100
"""Open files of a server that are no sockets, or that it keeps back."""

WARM_UP: Final = 100
HOLDERS: Final = 2
QUIET_SECONDS: Final = 30.0
"""Longer than the 25 s between two pings, so that every socket has been pinged and answered."""

WANTED_KB: Final = 12
WANTED_PERCENT: Final = 0.3
"""Of a core, of a server that nobody uses."""

SETTLE_SECONDS: Final = 2.0
"""What a server does when it has just started is not counted."""

NOBODY: Final = "nobody connected"
QUIET: Final = "open and quiet"

ROOMKEY: Final = "Roomkey"
MEMORY: Final = "Roomkey, memory"
LMDB: Final = "Roomkey, LMDB"
WS: Final = "Node.js ws, plain relay"


def possible_sockets() -> int:
    """How many sockets one server process can have here."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    return SOCKETS if files == resource.RLIM_INFINITY else min(SOCKETS, files - RESERVED_FILES)


def _idle(server: Started, path: str, tokens: Sequence[str | None], *, quiet: float) -> dict[str, Figure]:
    """Open a few sockets, look, open the rest, wait, and look again."""
    with ExitStack() as stack:
        stack.enter_context(holding(server, path, tokens[:WARM_UP]))
        before, begun = server.usage(), time.perf_counter()
        # From several addresses, for each has only so many ports.
        parts = [tokens[WARM_UP + number :: HOLDERS] for number in range(HOLDERS)]
        held = [
            stack.enter_context(holding(server, path, part, source=f"127.0.0.{number + 2}"))
            for number, part in enumerate(parts)
        ]
        opening, busy = time.perf_counter() - begun, server.usage()
        opened = sum(each.opened for each in held)
        if opened != len(tokens) - WARM_UP:
            raise Unexpected(f"only {opened} sockets could be opened")
        time.sleep(quiet)
        after = server.usage()
        lost = opened - sum(each.still_open() for each in held)
        if lost:
            raise Unexpected(f"the server closed {lost} quiet sockets")
    return {
        "sockets": Figure([len(tokens)], ""),
        "memory each": Figure([(after.resident - before.resident) / opened / 1000], "KB"),
        "CPU each, to open": Figure([busy.since(before) / opened * 1e6], "µs"),
        "opened": Figure([opened / opening], "/s"),
        "CPU each, per minute": Figure([after.since(busy) / quiet * 60 / opened * 1e6], "µs"),
        "resident memory": Figure([after.resident / 1e6], "MB"),
    }


def _unused(settle: float, quiet: float) -> list[Row]:
    """All servers at the same time, for none of them has anything to do."""
    with roomkey() as memory, roomkey(storage="file") as disk, peer("relay.mjs") as relay:
        sides = {MEMORY: memory, LMDB: disk, WS: relay}
        started = {name: side for name, side in sides.items() if isinstance(side, Started)}
        time.sleep(settle)
        before = {name: server.usage() for name, server in started.items()}
        time.sleep(quiet)
        after = {name: server.usage() for name, server in started.items()}
    rows = [
        Row(
            NOBODY,
            name,
            {
                "server CPU": Figure([after[name].since(before[name]) / quiet * 100], "%"),
                "resident memory": Figure([after[name].resident / 1e6], "MB"),
            },
        )
        for name in started
    ]
    return rows + [Row(NOBODY, name, skipped=side.reason) for name, side in sides.items() if isinstance(side, Missing)]


def run(plan: Plan) -> Finding:
    """One side after the other, once: memory does not depend on the moment."""
    sockets, quiet = plan.size(possible_sockets(), WARM_UP + 50), 0.2 if plan.quick else QUIET_SECONDS
    rows = _unused(0.1 if plan.quick else SETTLE_SECONDS, quiet)
    with roomkey() as server, closing(Api(server)) as api:
        empty = server.usage()
        tokens = [token for _, token in api.sessions(sockets)]
        sessions = (server.usage().resident - empty.resident) / sockets
        rows.append(Row(QUIET, ROOMKEY, _idle(server, "/ws", tokens, quiet=quiet)))
    with peer("relay.mjs") as server:
        if isinstance(server, Missing):
            rows.append(Row(QUIET, WS, skipped=server.reason))
        else:
            rows.append(Row(QUIET, WS, _idle(server, "/", [None] * sockets, quiet=quiet)))
    notes = [
        (
            f"{sockets:,} sockets to one process. Goal: {SOCKETS:,}; this system allows a process "
            f"{resource.getrlimit(resource.RLIMIT_NOFILE)[1]:,} open files."
        ),
        (
            "Memory is the growth of the server's resident set divided by the sockets; what the kernel keeps for a "
            "connection comes on top. In Roomkey each socket has a session of its own, made before; creating them all "
            f"through REST made the process grow by {sessions:,.0f} B each."
        ),
        f"Quiet means {quiet:g} s in which the clients send nothing but answers to pings.",
        f"With nobody connected a server is watched for {quiet:g} s, after {SETTLE_SECONDS:g} s to settle.",
    ]
    return Finding(rows, _goals(rows), notes)


def _goals(rows: Sequence[Row]) -> list[Goal]:
    each = value(rows, QUIET, ROOMKEY, "memory each")
    goals = [Goal("memory of an idle socket", each, WANTED_KB, "KB", at_least=False)]
    for side in (MEMORY, LMDB):
        cpu = value(rows, NOBODY, side, "server CPU")
        goals.append(Goal(f"CPU of an idle server, {side}", cpu, WANTED_PERCENT, "%", at_least=False))
    return goals


BENCHMARK: Final = Benchmark(
    name="idle",
    title="Idle servers and idle sockets",
    about="What a server takes that nobody uses, and one with many open, authenticated and silent sockets.",
    run=run,
    versions=installed("picows", "uvloop"),
    peers={"ws": version_of("ws")},
)

if __name__ == "__main__":
    main(BENCHMARK)
