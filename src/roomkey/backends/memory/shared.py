"""What a node shares with itself alone."""

from roomkey.backends.memory.one_time import MemoryOneTime
from roomkey.ports import Clock, OneTimeLimits


class MemoryShared:
    """``ports.SharedState`` for one node."""

    is_complete = True

    def __init__(self, *, tickets: OneTimeLimits, answers: OneTimeLimits, clock: Clock) -> None:
        self.tickets = MemoryOneTime(clock, tickets)
        self.answers = MemoryOneTime(clock, answers)

    async def join(self, node: str) -> None:
        pass

    async def leave(self) -> None:
        pass

    def others(self) -> list[str]:
        return []
