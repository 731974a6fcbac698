"""Following the event log: who is told, and how far they are."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from roomkey.ports.stores import LoggedEvent


class EventConsumer(Protocol):
    """
    Who makes something of the events of sessions.

    It is told of every event at least once, and of those of one partition in order. What it raises makes the
    same events come again, later; partition and sequence number tell it which those are. It may take its time:
    nobody else waits for it.
    """

    async def consume(self, partition: int, events: Sequence[LoggedEvent]) -> None:
        """Deal with the next events of a partition. What has been dealt with when this returns does not come again."""
        ...

    async def gap(self, partition: int, first_missing: int, last_missing: int) -> None:
        """These events are lost for this consumer: they went before it could read them. Others follow."""
        ...


class Checkpoints(Protocol):
    """How far the consumers of the event log are, as durable as what they make of its events."""

    async def load(self, consumer: str) -> Mapping[int, int]:
        """For each partition that ``consumer`` has saved, the sequence number that it saved last."""
        ...

    async def save(self, consumer: str, partition: int, sequence: int) -> None:
        """Note that ``consumer`` has dealt with everything in ``partition`` up to ``sequence``."""
        ...
