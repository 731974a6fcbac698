"""Budgets in the memory of one process. No method suspends."""

from collections import OrderedDict

from roomkey.ports import Clock, Rate
from roomkey.security.ratelimit import spend


class MemoryCounters:
    """
    ``ports.Counters`` for one node.

    Beyond ``capacity`` the key that was heard of least recently is forgotten, which fills its budget.
    """

    def __init__(self, clock: Clock, *, capacity: int = 10_000) -> None:
        self._clock = clock
        self._capacity = capacity
        # Ordered: to find the first key of a dict takes the longer the more were removed before it.
        self._until: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    async def take(self, key: str, rate: Rate, cost: float = 1.0) -> float:
        until, wait = spend(rate, self._until.get(key, 0.0), cost, self._clock.now().timestamp())
        self._until[key] = until
        self._until.move_to_end(key)
        if len(self._until) > self._capacity:
            self._until.popitem(last=False)
        return wait
