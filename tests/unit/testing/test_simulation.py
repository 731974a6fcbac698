import os
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext

import pytest

from roomkey.testing.simulation import Act, Plan, Settings, plan_of, shortest, simulate, violations
from roomkey.testing.simulation.command_line import main
from roomkey.testing.simulation.plan import Kind, Person, Step
from tests.support import mutants

SEEDS = 150
SEEDS_OF_MUTANT = 120

WRITE = """
import sys
from roomkey.testing.simulation import plan_of, simulate
for seed in range(1, 6):
    sys.stdout.buffer.write(simulate(plan_of(seed)).to_bytes() + b"\\n")
"""


def written(hash_seed: int) -> bytes:
    environment = os.environ | {"PYTHONHASHSEED": str(hash_seed)}
    return subprocess.run([sys.executable, "-c", WRITE], env=environment, check=True, stdout=subprocess.PIPE).stdout


def broken(plan: Plan, settings: Settings | None = None) -> set[str]:
    return {found.partition(":")[0] for found in violations(simulate(plan, settings))}


def first_broken(settings: Settings | None, first: int) -> set[str]:
    histories = (broken(plan_of(seed), settings) for seed in range(first, first + SEEDS_OF_MUTANT))
    return next((laws for laws in histories if laws), set[str]())


def test_a_seed_is_one_history_byte_for_byte() -> None:
    once, again = simulate(plan_of(7)), simulate(plan_of(7))

    assert once.to_bytes() == again.to_bytes()
    assert once.to_bytes() != simulate(plan_of(8)).to_bytes()


def test_a_seed_is_the_same_history_in_every_process() -> None:
    assert written(hash_seed=1) == written(hash_seed=2)


def test_no_law_is_broken() -> None:
    found = {seed: laws for seed in range(1, SEEDS) if (laws := broken(plan_of(seed)))}

    assert found == {}


def test_the_command_says_how_many_histories_it_has_seen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "3", "--processes", "1"]) == 0

    assert capsys.readouterr().out.startswith("3 histories in ")


@pytest.mark.parametrize(
    ("defect", "settings", "first", "law"),
    [
        (mutants.publishing_before_appending, None, 1, "nothing is shown on another node that is not stored"),
        (mutants.hints_without_log, None, 60, "nothing of a session is accepted after the bound of its revoke"),
        (mutants.cache_without_guard, None, 1, "no request is served after the bound of a revoke"),
        (
            nullcontext,
            mutants.IGNORES_FENCES,
            1,
            "nothing is written under a lease that another node has written under",
        ),
        (mutants.catching_up_without_lineage, None, 1, "replicas are equal at rest"),
        (nullcontext, mutants.KEEPS_EPOCH, 1, "a subscriber is given everything once and in order"),
    ],
)
def test_a_defect_breaks_a_law_within_few_seeds(
    defect: type[AbstractContextManager[None]], settings: Settings | None, first: int, law: str
) -> None:
    with defect():
        found = first_broken(settings, first)

    assert law in found


def test_the_shortest_history_still_breaks_the_law_and_has_little_in_it() -> None:
    settings = mutants.KEEPS_EPOCH
    plan = next(plan for plan in map(plan_of, range(1, SEEDS)) if broken(plan, settings))
    law = broken(plan, settings)

    short = shortest(plan, lambda candidate: bool(law & broken(candidate, settings)))

    assert law & broken(short, settings)
    assert len(short.steps) <= 6 < len(plan.steps)
    assert Act.BROKER_LOST in {step.act for step in short.steps}


FOUNDING_LOST = Plan(
    seed=239,
    offsets=(0.0, 0.0),
    people=(Person(2, Kind.YJS, "carol", "plan", 1),),
    steps=(
        Step(2.23, Act.EDIT, 2),
        Step(2.27, Act.DELETE, 2),
        Step(2.44, Act.STORE_FAILS_OVER, seconds=0.3),
    ),
    may_lose_writes=True,
)
"""A document is deleted and made anew, and a failover brings the deleted one back."""

REVOKED_TWICE = Plan(
    seed=352,
    offsets=(0.0, 0.0, 0.0),
    people=(
        Person(1, Kind.YJS, "bob", "plan", 1),
        Person(2, Kind.JSON, "carol", "plan", 0),
        Person(3, Kind.JSON, "alice", "notes", 0),
    ),
    steps=(
        Step(1.64, Act.SLOW, 0, 3.0),
        Step(1.64, Act.SLOW, 2, 3.0),
        Step(2.14, Act.REVOKE, 2),
        Step(3.14, Act.REVOKE, 2),
    ),
    is_calm=True,
)
"""Who revokes what another node has revoked a moment ago returns before that one could hint at it."""

BACK_FROM_THE_DEAD = Plan(
    seed=1812,
    offsets=(0.0, 0.0),
    people=(
        Person(1, Kind.YJS, "bob", "plan", 0),
        Person(2, Kind.HOCUSPOCUS, "carol", "plan", 0),
    ),
    steps=(
        Step(1.89, Act.EDIT, 2),
        Step(2.75, Act.EDIT, 1),
        Step(3.17, Act.CUT_STORE, 0, 2.2),
        Step(3.17, Act.CUT_BROKER, 0, 2.2),
        Step(3.39, Act.SLOW, 0, 6.0),
        Step(3.54, Act.DELETE, 2),
        Step(4.08, Act.CUT, 2),
        Step(8.57, Act.DRAIN, 0, 0.4),
    ),
    is_calm=True,
)
"""A client that cannot state a lineage comes to a node that never heard of the deletion."""

TAKEN_FOR_DEAD = Plan(
    seed=3240,
    offsets=(0.0, 0.0),
    people=(
        Person(1, Kind.YJS, "bob", "plan", 0),
        Person(3, Kind.HOCUSPOCUS, "alice", "plan", 1),
    ),
    steps=(Step(2.29, Act.CUT_BROKER, 0, 6.5),),
)
"""A node cannot say that it lives for so long that others remove its clients, and then it can again."""


@pytest.mark.parametrize("plan", [FOUNDING_LOST, REVOKED_TWICE, BACK_FROM_THE_DEAD, TAKEN_FOR_DEAD])
def test_the_worst_histories_that_were_ever_found_break_no_law(plan: Plan) -> None:
    assert violations(simulate(plan)) == []
