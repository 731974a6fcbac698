"""
What every benchmark has in common: rounds in turns, medians with their spread, goals, tables and JSON.

A benchmark is a function from a ``Plan`` to a ``Finding``; ``main`` gives it a command line.
"""

import argparse
import gc
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any, Final, NoReturn

import msgspec
import psutil
from msgspec import Struct, field
from rich.console import Console
from rich.table import Column, Table

from benchmarks import node
from benchmarks.processes import LOAD_CORE, end_children, run_on

TIMES: Final = "×"  # noqa: RUF001  # the sign is meant
_TO: Final = "–"  # noqa: RUF001  # as is this one

UNITS: Final[Mapping[str, int]] = {"/s": 0, "µs": 2, "ms": 2, "s": 3, "B": 0, "KB": 1, "MB": 1, "%": 0, "": 0, TIMES: 2}
"""What is measured in, and how many digits after the point are worth reading."""

SMALL_PERCENT: Final = 10

FLAT: Final = 2.0
"""So many times as dear an operation may be where there is a hundred or a thousand times as much of everything."""

Measures = Mapping[str, tuple[float, str]]
"""What one round found: a number and its unit by name."""

Contender = Callable[[float], Measures]
"""Works for about so many seconds and says what it measured."""


class Plan(Struct, frozen=True):
    """How thoroughly to measure. ``quick`` shows that everything works; its figures mean little."""

    quick: bool = False
    rounds: int = 5
    seconds: float = 3.0
    many: int | None = None
    """How many things are there before the clock starts, where a benchmark lets that be chosen."""

    def size(self, full: int, quick: int) -> int:
        """A number of things to do: ``full``, or ``quick`` where it must only work."""
        return quick if self.quick else full


class Figure(Struct, frozen=True):
    """One quantity, as each round measured it."""

    values: list[float]
    unit: str

    @property
    def median(self) -> float:
        """What is reported."""
        return median(self.values)

    def __str__(self) -> str:
        middle = in_unit(self.median, self.unit)
        if len(self.values) == 1:
            return middle
        return f"{middle} ({_digits(min(self.values), self.unit)}{_TO}{_digits(max(self.values), self.unit)})"


class Row(Struct, frozen=True):
    """
    What one side reached in one case, or why it was not measured.

    ``paced``: the load came as people bring it, and the figures say what that costs; if false, it came as fast as the
    server took it, and they say how much fits; ``None`` where there was no such load.
    """

    case: str
    side: str
    figures: dict[str, Figure] = {}
    skipped: str | None = None
    paced: bool | None = None


class Goal(Struct, frozen=True):
    """A figure that was aimed for. ``measured`` is ``None`` where it could not be measured."""

    what: str
    measured: float | None
    wanted: float
    unit: str
    at_least: bool = True

    @property
    def reached(self) -> bool | None:
        """Whether the median is on the right side of it."""
        if self.measured is None:
            return None
        return self.measured >= self.wanted if self.at_least else self.measured <= self.wanted

    def cells(self) -> tuple[str, str, str, str]:
        """What, wanted, measured, verdict."""
        verdict = {True: "reached", False: "missed", None: "not measured"}[self.reached]
        measured = "" if self.measured is None else in_unit(self.measured, self.unit)
        return self.what, f"{'≥' if self.at_least else '≤'} {in_unit(self.wanted, self.unit)}", measured, verdict


class Finding(Struct, frozen=True):
    """The result of a benchmark before it is known where and how it was run."""

    rows: list[Row]
    goals: list[Goal] = []
    notes: list[str] = []


class Machine(Struct, frozen=True):
    """Where it was measured."""

    processor: str
    cores: int
    memory: str
    system: str
    python: str
    node: str | None

    def __str__(self) -> str:
        node = f"Node.js {self.node}" if self.node else "no Node.js"
        return f"{self.processor}, {self.cores} cores, {self.memory}; {self.system}; Python {self.python}, {node}"


class Result(Struct, frozen=True, kw_only=True):
    """A finding with everything that one needs to judge it."""

    benchmark: str
    title: str
    about: str
    command: str
    machine: Machine
    versions: dict[str, str]
    peers: dict[str, str] = {}
    at: datetime
    took_seconds: float
    plan: Plan
    finding: Finding


class Benchmark(Struct, frozen=True, kw_only=True):
    """A comparison: what it is called, what it does, and how it is done."""

    name: str
    title: str
    about: str
    run: Callable[[Plan], Finding]
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    """Of the packages that Roomkey stands on here."""
    peers: Mapping[str, str] = field(default_factory=dict[str, str])
    """The versions of what it is compared with."""
    core: int = LOAD_CORE
    """Where the benchmark's own process belongs: beside the server, or in its place."""
    many: str | None = None
    """What ``--size`` is the number of, if it can be chosen."""


def interleaved(
    plan: Plan, contenders: Mapping[str, Contender], *, warm_up: bool = True
) -> dict[str, dict[str, Figure]]:
    """
    Let the contenders take turns, A B A B, so that a change of the machine's mood hits all of them.

    Each has warmed up before, unless every round is a beginning anyway; that does not count.
    """
    for contend in contenders.values() if warm_up else ():
        contend(min(1.0, plan.seconds / 2))
    found: dict[str, list[Measures]] = {name: [] for name in contenders}
    for _ in range(plan.rounds):
        for name, contend in contenders.items():
            gc.collect()
            found[name].append(contend(plan.seconds))
    return {name: figures(rounds) for name, rounds in found.items()}


def least(works: Mapping[str, Callable[[], object]], *, calls: int, turns: int) -> dict[str, float]:
    """
    Microseconds of CPU that a call of each takes at least, without what the call of an empty function takes.

    They take turns of as many ``calls``. Whatever else runs on the machine makes a turn longer, and never shorter: so
    the shortest counts, and a difference of two is a difference between the works.
    """
    shortest = dict.fromkeys((_empty, *works.values()), float("inf"))
    for _ in range(turns):
        for work in shortest:
            begun = time.process_time()
            for _ in range(calls):
                work()
            shortest[work] = min(shortest[work], time.process_time() - begun)
    return {name: (shortest[work] - shortest[_empty]) / calls * 1e6 for name, work in works.items()}


def at_once(work: Callable[[], Coroutine[Any, Any, object]]) -> Callable[[], None]:
    """A coroutine function as a function. It must not wait for anything: there is no loop."""

    def call() -> None:
        with suppress(StopIteration):
            work().send(None)

    return call


def _empty() -> None:
    pass


def figures(rounds: Sequence[Measures]) -> dict[str, Figure]:
    """Rounds side by side, quantity by quantity."""
    names = list(dict.fromkeys(name for measures in rounds for name in measures))
    return {
        name: Figure([measures[name][0] for measures in rounds], next(m[name][1] for m in rounds if name in m))
        for name in names
    }


def quantiles(seconds: Sequence[float], prefix: str = "") -> dict[str, tuple[float, str]]:
    """p50 and p99 of durations, in milliseconds; nothing if there are none."""
    if not seconds:
        return {}
    ordered = sorted(seconds)
    # The nearest rank: a value that really occurred.
    ranks = {"p50": len(ordered) // 2, "p99": min(len(ordered) * 99 // 100, len(ordered) - 1)}
    return {f"{prefix}{name}": (ordered[rank] * 1000, "ms") for name, rank in ranks.items()}


def in_unit(value: float, unit: str) -> str:
    """A number as people read it."""
    digits = _digits(value, unit)
    return digits if not unit else f"{digits}{'' if unit == '/s' else ' '}{unit}"


def _digits(value: float, unit: str) -> str:
    # A server that does little takes less than a percent of a core, and that is worth telling apart.
    digits = 2 if unit == "%" and value < SMALL_PERCENT else UNITS[unit]
    return f"{value:,.{digits}f}"


# --- the command line -----------------------------------------------------------------------------------


def main(benchmark: Benchmark) -> NoReturn:
    """Measure as the command line asks, print a table, write JSON, and exit: 1 if a goal was missed."""
    arguments = _parser(benchmark).parse_args()
    plan = Plan(quick=True, rounds=1, seconds=0.2) if arguments.quick else Plan(seconds=arguments.seconds)
    plan = msgspec.structs.replace(plan, rounds=arguments.rounds or plan.rounds, many=arguments.size)
    # So that a benchmark that is told to stop stops what it started.
    signal.signal(signal.SIGTERM, _stop)
    run_on(benchmark.core)
    begun = time.perf_counter()
    finding = benchmark.run(plan)
    if plan.quick:
        # Nobody can say after a fifth of a second whether a goal is reached.
        finding = msgspec.structs.replace(finding, goals=[])
    result = Result(
        benchmark=benchmark.name,
        title=benchmark.title,
        about=benchmark.about,
        command=_command(benchmark, arguments),
        machine=machine(),
        versions=dict(benchmark.versions),
        peers=dict(benchmark.peers),
        at=datetime.now(UTC).replace(microsecond=0),
        took_seconds=round(time.perf_counter() - begun, 1),
        plan=plan,
        finding=finding,
    )
    if arguments.json != "-":
        show(result)  # first, for it needs no file
    kept = arguments.json is None or _keep(result, arguments.json)
    missed = any(goal.reached is False for goal in finding.goals)
    sys.exit(0 if kept and not missed else 1)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    # Here and not only on the way out, which does not know a process that is being started at this moment.
    end_children()
    sys.exit(128 + number)


def _parser(benchmark: Benchmark) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{benchmark.name}", description=benchmark.about)
    parser.add_argument("--quick", action="store_true", help="show that it works, in a few seconds")
    parser.add_argument("--json", metavar="FILE", help="write the result there; - is standard output, without a table")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each side is measured (5)")
    if benchmark.many is None:
        parser.set_defaults(size=None)
    else:
        parser.add_argument("--size", type=int, metavar="N", help=benchmark.many)
    parser.add_argument("--seconds", type=float, metavar="S", default=Plan().seconds, help="how long a round is (3)")
    return parser


def _command(benchmark: Benchmark, arguments: argparse.Namespace) -> str:
    """What to type to measure the same again; where the result goes does not matter."""
    options = ["--quick"] if arguments.quick else []
    options += [f"--rounds {arguments.rounds}"] if arguments.rounds else []
    options += [f"--size {arguments.size}"] if arguments.size else []
    options += [f"--seconds {arguments.seconds:g}"] if arguments.seconds != Plan().seconds else []
    return " ".join([f"python -m benchmarks.{benchmark.name}", *options])


def _keep(result: Result, file: str) -> bool:
    encoded = in_json(result)
    if file == "-":
        print(encoded)
        return True
    return write_or_print(Path(file), encoded)


def in_json(results: Result | Sequence[Result]) -> str:
    """As results are kept."""
    return msgspec.json.format(msgspec.json.encode(results), indent=1).decode()


def write(file: Path, content: str) -> bool:
    """Write a file, and the folder that it lies in if there is none; or say why that is impossible."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n", encoding="utf-8")
    except OSError as error:
        print(f"{file} cannot be written: {error.strerror}", flush=True)
        return False
    return True


def write_or_print(file: Path, content: str) -> bool:
    """Write a file, or print what was meant for it: what took minutes to measure is not lost to a disk."""
    written = write(file, content)
    if not written:
        print(content, flush=True)
    return written


def show(result: Result) -> None:
    """Print the tables of a result."""
    console = Console(width=None if sys.stdout.isatty() else 280)  # in a file nothing needs to be broken
    console.print(f"[bold]{result.title}[/bold]\n{result.about}\n{result.machine}", highlight=False)
    for lines in tables(result.finding):
        table = Table(*(Column(name, overflow="fold") for name in lines.columns), title=lines.heading or None)
        for cells in lines.cells:
            table.add_row(*cells)
        console.print(table)
    for note in result.finding.notes:
        console.print(f"- {note}", highlight=False, markup=False)


HEADINGS: Final[Mapping[bool | None, str]] = {
    True: "Paced: what it costs every day",
    False: "Saturated: how much fits",
    None: "",
}
"""What a table is about, by how its rows were ``paced``; in this order."""


class Lines(Struct, frozen=True):
    """A table of text, with what stands above it."""

    heading: str
    columns: Sequence[str]
    cells: Sequence[Sequence[str]]


def tables(finding: Finding) -> list[Lines]:
    """The finding as tables of text: one for each pace and set of quantities, and one of the goals."""
    made: list[Lines] = []
    for paced, heading in HEADINGS.items():
        groups: dict[tuple[str, ...], list[Row]] = {}
        for row in finding.rows:
            if row.figures and row.paced is paced:
                groups.setdefault(tuple(row.figures), []).append(row)
        for names, rows in groups.items():
            cells = [(row.case, row.side, *(str(figure) for figure in row.figures.values())) for row in rows]
            made.append(Lines(heading, ("case", "side", *names), cells))
    skipped = [(row.case, row.side, f"skipped: {row.skipped}") for row in finding.rows if row.skipped]
    if skipped:
        made.append(Lines("", ("case", "side", ""), skipped))
    if finding.goals:
        made.append(Lines("", GOAL_COLUMNS, [goal.cells() for goal in finding.goals]))
    return made


GOAL_COLUMNS: Final = ("goal", "wanted", "measured", "")


def machine() -> Machine:
    """This machine."""
    gibibytes = psutil.virtual_memory().total / 2**30
    return Machine(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory=f"{gibibytes:.0f} GiB",
        system=f"{platform.system()} {platform.release().partition('-')[0]} {platform.machine()}",
        python=platform.python_version(),
        node=node.node_version(),
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown processor"
    )


def ratio(one: Row | None, other: Row | None, quantity: str) -> float | None:
    """How many times the other's median the one's is, if both were measured."""
    if one is None or other is None or quantity not in one.figures or quantity not in other.figures:
        return None
    return one.figures[quantity].median / other.figures[quantity].median


def find(rows: Sequence[Row], case: str, side: str) -> Row | None:
    """The row of that case and side, if it was measured."""
    return next((row for row in rows if (row.case, row.side) == (case, side) and row.figures), None)


def value(rows: Sequence[Row], case: str, side: str, quantity: str) -> float | None:
    """The median of a quantity, if it was measured."""
    row = find(rows, case, side)
    return None if row is None or quantity not in row.figures else row.figures[quantity].median


def installed(*packages: str) -> dict[str, str]:
    """The versions of Python packages."""
    from importlib.metadata import version  # noqa: PLC0415  # slow, and only some need it

    return {package: version(package) for package in packages}
