"""Copying sessions: partition by partition, the records first, then the events that made them."""

from collections.abc import AsyncIterator, Sequence
from typing import Final

from roomkey.backends.moving import digests
from roomkey.backends.moving.copying import Foreign, Progress, Report
from roomkey.backends.moving.digests import Fingerprint
from roomkey.domain.session import PARTITIONS, SessionId, partition_of
from roomkey.errors import Serialization
from roomkey.ports import (
    CheckpointItem,
    EpochItem,
    EventItem,
    EventLog,
    Gone,
    LoggedEvent,
    LogStart,
    MovableSessions,
    PartitionItem,
    SessionItem,
    Unreadable,
)

BATCH: Final = 500
"""How many items are written at once."""


class SessionsCopy:
    """Copies a storage of sessions. ``bring`` and then ``compare``; ``check`` before both."""

    def __init__(self, source: MovableSessions, target: MovableSessions, report: Report, progress: Progress) -> None:
        self._source = source
        self._target = target
        self._report = report
        self._progress = progress
        self._copied: list[Fingerprint] = []

    async def check(self) -> None:
        """
        Return if the target has nothing but what may come from the source.

        That is so if its logs are where those of the source once were: whoever works on a storage writes events.

        Raises:
            Foreign: If it has anything else.
        """
        heads = await self._source.heads()
        for partition, head in (await self._target.heads()).items():
            if head > heads.get(partition, 0) or not await self._agree(partition, head):
                raise Foreign(
                    "the target is neither empty nor a copy of this source that was begun: it has sessions of its own"
                )

    async def _agree(self, partition: int, sequence: int) -> bool:
        mine = await self._source.events(partition, sequence - 1, 1)
        theirs = await self._target.events(partition, sequence - 1, 1)
        if not mine or not theirs or mine[0].sequence != sequence or theirs[0].sequence != sequence:
            return True  # it is so old that it was forgotten
        return mine[0] == theirs[0]

    # --- bring ----------------------------------------------------------------------------------------

    async def bring(self) -> None:
        """Write what the target lacks, and take out what is not in the source any more."""
        self._copied = []
        heads = await self._target.heads()  # nobody else writes there
        for partition in range(PARTITIONS):
            self._progress("copying sessions", partition, PARTITIONS)
            self._copied.append(await self._bring_sessions(partition))
            await self._bring_events(partition, heads.get(partition, 0))
        # After the sessions: a revocation in between is in both, or in none of them.
        await self._bring_epochs()
        await self._bring_checkpoints()
        self._progress("copying sessions", PARTITIONS, PARTITIONS)

    async def _bring_sessions(self, partition: int) -> Fingerprint:
        held = await self._digests(self._target, partition)
        copied = Fingerprint()
        missing: list[PartitionItem] = []
        async for batch in self._source.export_sessions(partition):
            for item in batch:
                if isinstance(item, Unreadable):
                    self._report.cannot_be_read(item.key)
                    held.pop(item.key, None)
                    continue
                digest = digests.of_session(item)
                copied.add(digest)
                if held.pop(_named(item), None) != digest:
                    missing.append(item)
            missing = await self._write("sessions", partition, missing, at_least=BATCH)
        missing += [Gone(SessionId(name.removeprefix(_SESSION))) for name in held]
        await self._write("sessions", partition, missing)
        return copied

    async def _bring_events(self, partition: int, head: int) -> None:
        last = await self._begin_log(partition, head)
        try:
            async for batch in _log_after(self._source, partition, last):
                last = _end_of(batch, last)
                await self._write("events", partition, [EventItem(each.sequence, each.event) for each in batch])
        except Serialization as error:
            # Nothing can stand in the place of an event, so what lies behind it is not copied either.
            self._report.cannot_be_read(f"the log of partition {partition} behind number {last}: {error}")

    async def _begin_log(self, partition: int, head: int) -> int:
        """Let the log of the target begin where that of the source does; returns where to go on."""
        start = await _start_of(self._source, partition)
        if start and start > await _start_of(self._target, partition):
            await self._target.take_in(partition, [LogStart(start)])
        return max(start, head)

    async def _bring_epochs(self) -> None:
        held = {item.user: item.epoch for item in await _epochs(self._target) if isinstance(item, EpochItem)}
        waiting: dict[int, list[PartitionItem]] = {}
        async for batch in self._source.export_epochs():
            for item in batch:
                if isinstance(item, Unreadable):
                    self._report.cannot_be_read(item.key)
                elif held.get(item.user) != item.epoch:
                    waiting.setdefault(partition_of(item.user), []).append(item)
        for partition, items in waiting.items():
            await self._write("epochs", partition, items)

    async def _bring_checkpoints(self) -> None:
        held = {item async for batch in self._target.export_checkpoints() for item in batch}
        missing = [item async for batch in self._source.export_checkpoints() for item in batch if item not in held]
        await self._target.take_in_checkpoints(missing)
        self._report.section("checkpoints").written += len(missing)

    async def _write(
        self, section: str, partition: int, items: list[PartitionItem], *, at_least: int = 1
    ) -> list[PartitionItem]:
        """Write the items if there are ``at_least`` so many; returns those that are left."""
        if len(items) < at_least:
            return items
        for start in range(0, len(items), BATCH):
            await self._target.take_in(partition, items[start : start + BATCH])
        self._report.section(section).written += len(items)
        return []

    # --- compare --------------------------------------------------------------------------------------

    async def compare(self) -> None:
        """Read both sides and report every difference."""
        for partition in range(PARTITIONS):
            self._progress("comparing sessions", partition, PARTITIONS)
            mine = await self._digests(self._source, partition)
            self._report.compare("sessions", mine, await self._digests(self._target, partition))
            if self._copied and _print_of(mine) != self._copied[partition]:
                self._report.changed = True
            await self._compare_logs(partition)
        for name, export in (("epochs", _epoch_digests), ("checkpoints", _checkpoint_digests)):
            self._report.compare(name, await export(self._source), await export(self._target))
        self._progress("comparing sessions", PARTITIONS, PARTITIONS)

    async def _compare_logs(self, partition: int) -> None:
        start, last = await _bounds_of(self._source, partition)
        theirs = await _bounds_of(self._target, partition)
        if (start, last) != theirs:
            self._report.differs(
                f"the log of partition {partition} has the numbers {theirs[0] + 1} to {theirs[1]}, "
                f"in the source {start + 1} to {last}"
            )
            self._report.changed = self._report.changed or last > theirs[1] or start > theirs[0]
        until = min(last, theirs[1])
        for after in range(max(start, theirs[0]), until, BATCH):
            try:
                mine = await _events(self._source, partition, after, until)
            except Serialization as error:
                self._report.cannot_be_read(f"the log of partition {partition} behind number {after}: {error}")
                return
            self._report.compare("events", mine, await _events(self._target, partition, after, until))

    async def _digests(self, storage: MovableSessions, partition: int) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        async for batch in storage.export_sessions(partition):
            for item in batch:
                if isinstance(item, SessionItem):
                    found[_named(item)] = digests.of_session(item)
                elif storage is self._source:
                    self._report.cannot_be_read(item.key)
                else:
                    self._report.differs(f"{item.key} cannot be read in the target")
        return found


_SESSION: Final = "session "


def _named(item: SessionItem) -> str:
    return _SESSION + item.session.id


def _print_of(records: dict[str, bytes]) -> Fingerprint:
    found = Fingerprint()
    for digest in records.values():
        found.add(digest)
    return found


async def _start_of(log: EventLog, partition: int) -> int:
    """The number behind which the log of a partition begins."""
    first = await log.events(partition, 0, 1)
    return first[0].sequence - 1 if first else (await log.heads()).get(partition, 0)


async def _bounds_of(log: EventLog, partition: int) -> tuple[int, int]:
    """As ``_start_of``, and the number of the last event."""
    head = (await log.heads()).get(partition, 0)
    first = await log.events(partition, 0, 1)
    return first[0].sequence - 1 if first else head, head


async def _log_after(log: EventLog, partition: int, after: int) -> AsyncIterator[Sequence[LoggedEvent]]:
    while batch := await log.events(partition, after, BATCH):
        yield batch
        after = batch[-1].sequence


def _end_of(batch: Sequence[LoggedEvent], last: int) -> int:
    """The last number of a batch, which goes on behind ``last``."""
    if batch[-1].sequence != last + len(batch):
        raise Serialization("events are missing")
    return batch[-1].sequence


async def _events(log: EventLog, partition: int, after: int, until: int) -> dict[str, bytes]:
    """The digests of the next events, those with numbers up to ``after + BATCH``."""
    until = min(until, after + BATCH)
    return {
        f"event {each.sequence} of partition {partition}": digests.of_event(partition, each)
        for each in await log.events(partition, after, BATCH)
        if each.sequence <= until
    }


async def _epochs(storage: MovableSessions) -> list[EpochItem | Unreadable]:
    return [item async for batch in storage.export_epochs() for item in batch]


async def _epoch_digests(storage: MovableSessions) -> dict[str, bytes]:
    return {
        f"the epoch of user {item.user!r}": digests.of_epoch(item)
        for item in await _epochs(storage)
        if isinstance(item, EpochItem)
    }


async def _checkpoint_digests(storage: MovableSessions) -> dict[str, bytes]:
    items: list[CheckpointItem] = [item async for batch in storage.export_checkpoints() for item in batch]
    return {
        f"the checkpoint of {item.consumer!r} in partition {item.partition}": digests.of_checkpoint(item)
        for item in items
    }
