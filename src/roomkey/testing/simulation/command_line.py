"""The command: histories of many seeds, and of the first one that breaks a law, the shortest that does."""

import argparse
import gc
import os
from collections.abc import Sequence
from multiprocessing import get_context
from time import perf_counter
from typing import Final

from roomkey.testing.simulation.histories import simulate
from roomkey.testing.simulation.laws import violations
from roomkey.testing.simulation.plan import Plan, plan_of
from roomkey.testing.simulation.shrinking import shortest

SEEDS_AT_A_TIME: Final = 25


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 1 if a law was broken."""
    parser = argparse.ArgumentParser(prog="python -m roomkey.testing.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="number of histories (default: %(default)s)")
    parser.add_argument("--from", type=int, default=1, dest="first", help="first seed (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="default: one per processor")
    parser.add_argument("--show", action="store_true", help="print the history of the first seed, and stop")
    options = parser.parse_args(arguments)
    if options.show:
        _show(plan_of(options.first))
        return 0
    failed = _first_failing(range(options.first, options.first + options.seeds), options.processes)
    if failed is None:
        return 0
    _explain(plan_of(failed))
    return 1


def _first_failing(seeds: range, processes: int) -> int | None:
    batches = [seeds[start : start + SEEDS_AT_A_TIME] for start in range(0, len(seeds), SEEDS_AT_A_TIME)]
    begun = perf_counter()
    done = 0
    with get_context("spawn").Pool(processes) as pool:
        for batch, failed in zip(batches, pool.imap(_failing_of, batches), strict=True):
            done += len(batch)
            if failed is not None:
                print(f"seed {failed} breaks a law", flush=True)  # noqa: T201  # this is a command
                return failed
            if done % (20 * SEEDS_AT_A_TIME) == 0 or done == len(seeds):
                print(f"{done} histories in {perf_counter() - begun:.1f} s, none breaks a law", flush=True)  # noqa: T201
    return None


def _failing_of(seeds: range) -> int | None:
    """The first of the seeds whose history breaks a law."""
    gc.freeze()
    for seed in seeds:
        if _broken(plan_of(seed)):
            return seed
    gc.collect()
    return None


def _broken(plan: Plan) -> set[str]:
    """The laws that the history of ``plan`` breaks."""
    return {found.partition(":")[0] for found in violations(simulate(plan))}


def _explain(plan: Plan) -> None:
    broken = _broken(plan)
    _show(shortest(plan, lambda candidate: bool(broken & _broken(candidate))))


def _show(plan: Plan) -> None:
    history = simulate(plan)
    print(plan, *history, *violations(history), sep="\n")  # noqa: T201
