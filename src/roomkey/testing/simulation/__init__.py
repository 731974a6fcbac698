"""
Many nodes in one process, on one loop with virtual time: histories that can be repeated, and the laws that they obey.

``simulate(plan_of(seed))`` is a history, ``violations`` says what in it is against the laws. From a shell:
``python -m roomkey.testing.simulation --seeds 1000``.
"""

from roomkey.testing.simulation.histories import simulate
from roomkey.testing.simulation.history import History, Observation, What
from roomkey.testing.simulation.laws import LAWS, violations
from roomkey.testing.simulation.nodes import Settings
from roomkey.testing.simulation.plan import Act, Plan, Step, plan_of
from roomkey.testing.simulation.shrinking import shortest

__all__ = [
    "LAWS",
    "Act",
    "History",
    "Observation",
    "Plan",
    "Settings",
    "Step",
    "What",
    "plan_of",
    "shortest",
    "simulate",
    "violations",
]
