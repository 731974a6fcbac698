"""What an open socket costs a server while nothing is said on it."""

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

SOCKETS: Final = 20_000
RESERVED_FILES: Final = 100
"""Open files of a server that are no sockets, or that it keeps back."""

WARM_UP: Final = 100
HOLDERS: Final = 2
QUIET_SECONDS: Final = 30.0
"""Longer than the 25 s between two pings, so that every socket has been pinged and answered."""

WANTED_KB: Final = 14

ROOMKEY: Final = "Roomkey"
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


def run(plan: Plan) -> Finding:
    """One side after the other, once: memory does not depend on the moment."""
    sockets, quiet = plan.size(possible_sockets(), WARM_UP + 50), 0.2 if plan.quick else QUIET_SECONDS
    case = "open and quiet"
    with roomkey() as server, closing(Api(server)) as api:
        empty = server.usage()
        tokens = [token for _, token in api.sessions(sockets)]
        sessions = (server.usage().resident - empty.resident) / sockets
        rows = [Row(case, ROOMKEY, _idle(server, "/ws", tokens, quiet=quiet))]
    with peer("relay.mjs") as server:
        if isinstance(server, Missing):
            rows.append(Row(case, WS, skipped=server.reason))
        else:
            rows.append(Row(case, WS, _idle(server, "/", [None] * sockets, quiet=quiet)))
    each = value(rows, case, ROOMKEY, "memory each")
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
    ]
    return Finding(rows, [Goal("memory of an idle socket", each, WANTED_KB, "KB", at_least=False)], notes)


BENCHMARK: Final = Benchmark(
    name="idle",
    title="Idle sockets",
    about="Resident memory of a server with as many open, authenticated and silent sockets as the system allows.",
    run=run,
    versions=installed("picows", "uvloop"),
    peers={"ws": version_of("ws")},
)

if __name__ == "__main__":
    main(BENCHMARK)
