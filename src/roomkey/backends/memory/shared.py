"""What a node shares with itself alone."""

from roomkey.backends.memory.counters import MemoryCounters
from roomkey.backends.memory.leases import MemoryLeases
from roomkey.backends.memory.one_time import MemoryOneTime
from roomkey.ports import Clock, OneTimeLimits
from roomkey.security.possession import PROOF_LIMITS


class MemoryShared:
    """``ports.SharedState`` for one node."""

    is_complete = True
    counts_once = False

    def __init__(
        self,
        *,
        tickets: OneTimeLimits,
        answers: OneTimeLimits,
        proofs: OneTimeLimits = PROOF_LIMITS,
        clock: Clock,
    ) -> None:
        self.tickets = MemoryOneTime(clock, tickets)
        self.answers = MemoryOneTime(clock, answers)
        self.proofs = MemoryOneTime(clock, proofs)
        self.leases = MemoryLeases(clock)
        self.counters = MemoryCounters(clock)

    async def join(self, node: str) -> None:
        pass

    async def leave(self) -> None:
        pass

    def others(self) -> list[str]:
        return []
