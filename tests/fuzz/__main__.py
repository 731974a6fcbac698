"""The command line of the fuzzers."""

import argparse
import sys
from collections.abc import Callable
from random import Random, SystemRandom
from time import monotonic

from tests.fuzz import guided
from tests.fuzz.running import attempt, fuzz
from tests.fuzz.targets import TARGETS


def main() -> int:
    """Fuzz, say what came of it, and return 1 if there is a finding."""
    options = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    options.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    options.add_argument("--inputs", type=int, help="for each target, in place of --seconds: the same on every machine")
    options.add_argument("--target", action="append", choices=sorted(TARGETS), help="only this one")
    options.add_argument("--seed", type=int, default=SystemRandom().randrange(1 << 32))
    options.add_argument("--input", help="try this input alone, in hexadecimal, as a finding shows it")
    options.add_argument("--guided", action="store_true", help="with atheris, a process per target")
    given = options.parse_args()
    chosen = given.target or list(TARGETS)
    if given.guided:
        if not guided.is_possible():
            options.error(guided.MISSING)
        return max(min(1, abs(guided.guide(name, given.seconds / len(chosen)))) for name in chosen)
    if given.input is not None:
        print(attempt(TARGETS[chosen[0]], bytes.fromhex(given.input)))  # noqa: T201
        return 0
    print(f"seed {given.seed}")  # noqa: T201
    found = 0
    for name in chosen:
        goes_on = _until(given.inputs, given.seconds / len(chosen))
        outcome = fuzz(TARGETS[name], Random(f"{given.seed} {name}"), goes_on)
        print(f"{name:18} {outcome.tried:9,} inputs, {outcome.accepted:9,} accepted")  # noqa: T201
        if outcome.finding is not None:
            found += 1
            print(f"    FOUND {outcome.finding.what}\n    --target {name} --input {outcome.finding.data.hex()}")  # noqa: T201
    return 1 if found else 0


def _until(inputs: int | None, seconds: float) -> Callable[[int], bool]:
    if inputs is not None:
        return lambda tried: tried < inputs
    end = monotonic() + seconds
    return lambda _: monotonic() < end


if __name__ == "__main__":
    sys.exit(main())
