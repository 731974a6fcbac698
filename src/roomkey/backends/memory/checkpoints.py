"""Checkpoints in the memory of one process, for logs that do not outlive it either. No method suspends."""

from collections import defaultdict
from collections.abc import Mapping


class MemoryCheckpoints:
    """``ports.Checkpoints`` for one process."""

    def __init__(self) -> None:
        self._positions: defaultdict[str, dict[int, int]] = defaultdict(dict)

    async def load(self, consumer: str) -> Mapping[int, int]:
        return dict(self._positions[consumer])

    async def save(self, consumer: str, partition: int, sequence: int) -> None:
        self._positions[consumer][partition] = sequence
