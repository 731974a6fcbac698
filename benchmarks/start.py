"""How long one waits for a server to answer, and for ``import roomkey``."""

import subprocess
import sys
import time
from http.client import HTTPConnection
from typing import Final

from benchmarks.harness import Benchmark, Finding, Goal, Measures, Plan, Row, interleaved, main, value
from benchmarks.httpload import Unexpected
from benchmarks.processes import HOST, SERVER_CORE, roomkey

STARTS_IN_A_ROUND: Final = 2
WANTED_START_SECONDS: Final = 1.0
WANTED_IMPORT_MS: Final = 150.0

SERVE: Final = "roomkey serve"
PYTHON: Final = "python -c"


def _start(storage: str) -> Measures:
    """From starting the process to the answer of /health/live."""
    begun = time.perf_counter()
    with roomkey(storage=storage) as server:
        connection = HTTPConnection(HOST, server.port, timeout=10)
        connection.request("GET", "/health/live")
        status = connection.getresponse().status
        seconds = time.perf_counter() - begun
        usage = server.usage()
        connection.close()
    if status != 200:
        raise Unexpected(f"/health/live answered {status}")
    return {
        "until it answers": (seconds, "s"),
        "CPU": (usage.cpu_seconds * 1000, "ms"),
        "resident memory": (usage.resident / 1e6, "MB"),
    }


def _python(code: str) -> Measures:
    """A whole run of the interpreter."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return {"wall time": ((time.perf_counter() - begun) * 1000, "ms")}


def run(plan: Plan) -> Finding:
    """Each start is a fresh process, in turns; the files are in the cache of the system."""
    turns = Plan(quick=plan.quick, rounds=plan.size(STARTS_IN_A_ROUND * plan.rounds, 1), seconds=0)
    storages = {"memory": "memory", "LMDB, new directory": "file"}
    started = interleaved(
        turns, {side: lambda _, storage=storage: _start(storage) for side, storage in storages.items()}
    )
    codes = {"import roomkey": "import roomkey", "nothing": "pass"}
    ran = interleaved(turns, {side: lambda _, code=code: _python(code) for side, code in codes.items()})
    rows = [Row(SERVE, side, measured) for side, measured in started.items()]
    rows += [Row(PYTHON, side, measured) for side, measured in ran.items()]
    goals = [
        Goal(
            f"{SERVE}, {side}", value(rows, SERVE, side, "until it answers"), WANTED_START_SECONDS, "s", at_least=False
        )
        for side in storages
    ]
    whole, bare = (value(rows, PYTHON, side, "wall time") for side in codes)
    own = None if whole is None or bare is None else whole - bare
    goals.append(
        Goal("import roomkey, without the interpreter's own start", own, WANTED_IMPORT_MS, "ms", at_least=False)
    )
    return Finding(rows, goals, NOTES)


NOTES: Final = [
    (
        "From starting the process to the answer of /health/live, storage open. Cold means a new process; its files "
        "are in the cache of the system and compiled to bytecode."
    ),
    "import roomkey is the wall time of a whole interpreter that does just that, next to one that does nothing.",
]

BENCHMARK: Final = Benchmark(
    name="start",
    title="Cold start",
    about="Time until a new server answers, memory at that moment, and the time of the import.",
    run=run,
    core=SERVER_CORE,
)

if __name__ == "__main__":
    main(BENCHMARK)
