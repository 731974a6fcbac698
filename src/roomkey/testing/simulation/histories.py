"""Histories: the world of a plan, from its beginning to its end."""

import asyncio
import random
import sys
from collections.abc import Generator, MutableMapping
from contextlib import contextmanager
from typing import Any, Final

import structlog

from roomkey.errors import Storage
from roomkey.testing.simulation.acts import ACTS
from roomkey.testing.simulation.at_rest import look, look_at_queues, visit
from roomkey.testing.simulation.history import History, What
from roomkey.testing.simulation.nodes import Settings
from roomkey.testing.simulation.plan import ACTIVE_SECONDS, OF_CLIENTS, REST_SECONDS, Plan, Step
from roomkey.testing.simulation.virtual_time import determined
from roomkey.testing.simulation.world import World

LOOKS: Final = 5
"""How often queues are looked at while things happen."""

VISIT_SECONDS: Final = 2.0
"""How long before the end somebody looks into every room on every node."""

EXPECTED: Final = frozenset({"blind", "blind_for_too_long"})
"""What services call an error that is one of their surroundings."""


def simulate(plan: Plan, settings: Settings | None = None) -> History:
    """Let the history of ``plan`` take place. The same plan and settings are the same history, byte for byte."""
    chance = random.Random(f"chance {plan.seed}")  # noqa: S311  # not for secrets
    with determined(chance) as loop:
        world = World(plan, settings or Settings(), loop, chance)
        loop.set_exception_handler(lambda _, context: world.note(What.DEFECT, text=str(context.get("exception"))))
        with _defects_noted(world):
            loop.run_until_complete(_take_place(world))
        return world.history


async def _take_place(world: World) -> None:
    world.begin()
    for step in world.plan.steps:
        if step.act not in OF_CLIENTS or step.number in world.clients:
            world.later(step.at, _act, world, step)
    for _ in range(LOOKS):
        await asyncio.sleep(ACTIVE_SECONDS / LOOKS)
        for services in world.nodes:
            if services is not None and services.is_up:
                look_at_queues(services, world)
    world.heal()
    await asyncio.sleep(REST_SECONDS - VISIT_SECONDS)
    visit(world)
    await asyncio.sleep(VISIT_SECONDS)
    look(world)
    await world.end()


def _act(world: World, step: Step) -> None:
    outcome = ACTS[step.act](world, step)
    if outcome is not None:
        world.spawn(outcome)


@contextmanager
def _defects_noted(world: World) -> Generator[None]:
    """Nothing is logged meanwhile; what a service calls an error is written down."""

    def note(_logger: Any, method: str, event: MutableMapping[str, Any]) -> Any:
        if method in ("error", "exception", "critical"):
            error = _raised(event.get("exc_info"))
            if not isinstance(error, Storage) and event["event"] not in EXPECTED:
                world.note(What.DEFECT, text=f"{event['event']}: {error!r}")
        raise structlog.DropEvent

    processors = structlog.get_config()["processors"]
    before = list(processors)
    processors[:] = [note]
    try:
        yield
    finally:
        processors[:] = before


def _raised(exc_info: Any) -> BaseException | None:
    return sys.exc_info()[1] if exc_info is True else exc_info
