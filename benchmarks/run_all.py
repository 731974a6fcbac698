"""
Every benchmark, one after the other, each in a process of its own.

``python -m benchmarks.run_all --output results.json --report docs`` measures everything and writes the page.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from benchmarks import report
from benchmarks.harness import Result, in_json, write

NAMES: Final = (
    *("city", "sessions", "stores", "memory", "durable", "start", "rest", "broadcast", "revocation", "idle"),
    *("documents", "joining", "opening", "compaction", "growth", "audit", "attacks", "cluster", "scaling"),
    *("middleware", "guard", "encryption", "webhooks"),
)

LIMIT_SECONDS: Final = 1800
STOP_SECONDS: Final = 60

RESORT: Final = Path("benchmark-results.json")
"""Where results go if nobody says where, or they cannot be written there; and if not here either, they are printed."""


def measure(name: str, options: Sequence[str]) -> Result | None:
    """Run one benchmark; its output goes where ours goes. ``None`` if it failed, or took too long."""
    with tempfile.TemporaryDirectory(prefix="roomkey-benchmark-") as folder:
        file = Path(folder) / "result.json"
        command = [sys.executable, "-m", f"benchmarks.{name}", *options, "--json", str(file)]
        process = subprocess.Popen(command)
        try:
            process.wait(LIMIT_SECONDS)
        finally:
            if process.poll() is None:
                _stop(process)
        return msgspec.json.decode(file.read_bytes(), type=Result) if file.exists() else None


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()  # it ends its servers then
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


Measure = Callable[[str, Sequence[str]], Result | None]


def run(given: Sequence[str] | None = None, *, measure: Measure = measure) -> int:
    """
    Measure what the command line in ``given`` asks for, and keep each result as soon as it is there.

    Exit code 1 if a benchmark failed, a goal was missed, or something could not be written.
    """
    arguments = _parser().parse_args(given)
    options = ["--quick"] if arguments.quick else []
    options += ["--rounds", str(arguments.rounds)] if arguments.rounds else []
    results: list[Result] = []
    failed: list[str] = []
    unwritten: list[Path] = []
    names: list[str] = arguments.only or list(NAMES)
    for number, name in enumerate(names, 1):
        print(f"\n[{number}/{len(names)}] {name}", flush=True)
        try:
            result = measure(name, options)
        except subprocess.TimeoutExpired:
            result = None
        if result is None:
            failed.append(name)
            continue
        results.append(result)
        if not write(arguments.output, in_json(results)):
            unwritten.append(arguments.output)
            arguments.output = RESORT
            if not write(RESORT, in_json(results)):
                print(in_json([result]), flush=True)
    if arguments.report is not None and not report.write(results, arguments.report):
        unwritten.append(arguments.report)
    missed = [goal.what for result in results for goal in result.finding.goals if goal.reached is False]
    print(f"\n{len(results)} measured, {len(failed)} failed {failed or ''}, {len(missed)} goals missed {missed or ''}")
    return 1 if failed or missed or unwritten else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run_all", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="show that everything works, within a minute or two")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each side is measured (5)")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", help=f"some of: {', '.join(NAMES)}")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", default=RESORT, help=f"write the results there as JSON ({RESORT})"
    )
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="write benchmarks.md and benchmarks.svg there")
    return parser


if __name__ == "__main__":
    sys.exit(run())
