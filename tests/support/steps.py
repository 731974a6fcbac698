"""Long random histories: a world, what can happen in it, and what must hold after each step."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")


class Pick:
    """Choices out of one number, so that a history is a plain list that Hypothesis can shrink."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __call__(self, options: Sequence[T]) -> T:
        self._number, index = divmod(self._number, len(options))
        return options[index]


class World(Protocol):
    """Has a method for each step, which is given a ``Pick``."""

    def check(self) -> None:
        """What must hold after each step."""
        ...


History = list[tuple[str, int]]


def histories(*steps: str, max_size: int = 80) -> st.SearchStrategy[History]:
    """Histories of these steps; a step that is named twice is twice as frequent."""
    # Not a RuleBasedStateMachine: its histories are short and leave out most rules, and what breaks here
    # takes a dozen steps of different kinds.
    step = st.tuples(st.sampled_from(steps), st.integers(0, 10**9))
    return st.lists(step, min_size=max_size // 2, max_size=max_size)


def live(world: World, history: History) -> None:
    """Take the steps, and check after each."""
    for name, number in history:
        getattr(world, name)(Pick(number))
        world.check()
