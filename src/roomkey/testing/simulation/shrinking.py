"""The shortest plan that still breaks the same law: steps, clients and lost time are left out as long as it does."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from msgspec.structs import replace

from roomkey.testing.simulation.plan import Plan

T = TypeVar("T")

MAX_RUNS: Final = 400
"""Histories that are tried: a second or so for each thirty."""

Fails = Callable[[Plan], bool]


def shortest(plan: Plan, fails: Fails) -> Plan:
    """The least of ``plan`` that ``fails``."""
    budget = iter(range(MAX_RUNS))

    def still_fails(candidate: Plan) -> bool:
        return next(budget, None) is not None and fails(candidate)

    before = None
    while plan != before:
        before = plan
        plan = _with_fewer_steps(plan, still_fails)
        plan = _with_fewer_people(plan, still_fails)
        straight = replace(plan, offsets=(0.0,) * len(plan.offsets))
        if straight != plan and still_fails(straight):
            plan = straight
    return plan


def _with_fewer_steps(plan: Plan, fails: Fails) -> Plan:
    return replace(plan, steps=_least(plan.steps, lambda steps: fails(replace(plan, steps=steps))))


def _with_fewer_people(plan: Plan, fails: Fails) -> Plan:
    return replace(plan, people=_least(plan.people, lambda people: fails(replace(plan, people=people))))


def _least(parts: Sequence[T], fails: Callable[[tuple[T, ...]], bool]) -> tuple[T, ...]:
    """Delta debugging (Zeller and Hildebrandt, 2002): ever smaller pieces are left out."""
    kept = tuple(parts)
    size = max(1, len(kept) // 2)
    while size and kept:
        for without in _without_each(kept, size):
            if fails(without):
                kept = without
                break
        else:
            size //= 2
            continue
        size = min(size, len(kept))
    return kept


def _without_each(parts: tuple[T, ...], size: int) -> Iterator[tuple[T, ...]]:
    for start in range(0, len(parts), size):
        yield parts[:start] + parts[start + size :]
