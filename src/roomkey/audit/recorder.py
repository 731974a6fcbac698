"""Writing to the audit log: never waited for, nothing dropped, and said when it falls behind."""

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Protocol

import structlog
from msgspec import Struct
from msgspec.structs import replace

from roomkey.audit.records import AuditRecord
from roomkey.audit.repetitions import Repetitions
from roomkey.audit.sealing import SEALED_AT_ONCE, Sealer
from roomkey.errors import RoomkeyError
from roomkey.ports import Clock
from roomkey.security.events import SecurityEvent

_log = structlog.get_logger("roomkey.audit")

LINGER_SECONDS = 0.02
"""Time for which a record waits for others, because a batch costs what one costs."""

MAX_BATCH = 1_000
MAX_PORTION_BYTES = 4 * 1024 * 1024
"""What is given to the log at once."""

LONGEST_PAUSE_SECONDS = 5.0
"""Longest time between two tries while the store is away."""

ROUND_SECONDS = 1.0
"""How often it is looked for repetitions whose window is over."""


class Appending(Protocol):
    """The log, as far as it is written to."""

    async def append(self, entries: Sequence[bytes]) -> int:
        """
        Record ``entries``, one after the other; the index of the first. They are durable when this returns.

        Raises:
            RoomkeyError: If the store is away or full. The entries may be recorded all the same.
        """
        ...


def portion(entries: Sequence[bytes]) -> Sequence[bytes]:
    """The first of ``entries``, as many as one ``append`` takes."""
    size = 0
    for place, entry in enumerate(entries):
        size += len(entry)
        if place and size > MAX_PORTION_BYTES:
            return entries[:place]
    return entries


class RecorderStatistics(Struct, frozen=True, kw_only=True):
    """What a recorder has done since it was made, and what is waiting."""

    queued: int
    recorded: int
    repetitions: int
    """Sources of refusals that are being counted."""
    failing_since: datetime | None


class _Queued(Struct):
    record: AuditRecord
    at: datetime
    entry: bytes | None = None
    """As it was sealed first: what is tried again is the same, so that a repetition can be told."""
    waiting: asyncio.Future[int] | None = None


class Recorder:
    """
    A queue in front of the log.

    ``record`` is a few appends to a list. ``run`` seals what is queued and appends it, in batches, and tries for as
    long as it takes. Beyond ``bound`` records, or when the oldest has waited for ``patience``, it ``is_behind``:
    whoever would make more of them must ask before. Repeated refusals are counted meanwhile.
    """

    def __init__(
        self, sealer: Sealer, log: Appending, clock: Clock, *, node: str, bound: int, patience: timedelta
    ) -> None:
        self._sealer = sealer
        self._log = log
        self._clock = clock
        self._node = node
        self._bound = bound
        self._patience = patience
        self._queue: deque[_Queued] = deque()
        self._repetitions = Repetitions()
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._failing_since: datetime | None = None
        self._recorded = 0

    # --- on the caller's side -------------------------------------------------------------------------

    def record(self, record: AuditRecord) -> None:
        """Have this recorded, by this node."""
        self._queue.append(_Queued(record, self._clock.now()))
        self._wake.set()

    def note(self, event: SecurityEvent) -> None:
        """Have a security event recorded, or counted with those like it."""
        record = self._repetitions.note(event, hold=self.is_behind)
        if record is not None:
            self.record(record)

    async def recorded(self, record: AuditRecord) -> int:
        """Have this recorded at once, and return its index when it is durable."""
        waiting = asyncio.get_running_loop().create_future()
        self._queue.append(_Queued(record, self._clock.now(), waiting=waiting))
        self._wake.set()
        self._hurry.set()
        return await waiting

    @property
    def is_behind(self) -> bool:
        """Whether nothing should be done that has to be recorded."""
        queue = self._queue
        return bool(queue) and (len(queue) >= self._bound or self._clock.now() - queue[0].at >= self._patience)

    def statistics(self) -> RecorderStatistics:
        """What was recorded, and what waits."""
        return RecorderStatistics(
            queued=len(self._queue),
            recorded=self._recorded,
            repetitions=len(self._repetitions),
            failing_since=self._failing_since,
        )

    # --- behind it ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            if not self._queue:
                await _wait(self._wake, ROUND_SECONDS)
            if not self.is_behind:
                self._enqueue(self._repetitions.over(self._clock.now()))
            await self._persist()
            await _wait(self._hurry, LINGER_SECONDS)

    async def close(self, within: timedelta) -> bool:
        """Record everything that is known, counts included; ``False`` if that was not possible in time."""
        self._enqueue(self._repetitions.all())
        try:
            async with asyncio.timeout(within.total_seconds()):
                await self._persist()
        except TimeoutError:
            _log.error("audit_records_lost", records=len(self._queue), reason="the audit log did not answer in time")
            return False
        return True

    async def _persist(self) -> None:
        pause = LINGER_SECONDS
        while not await self.flush():
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def flush(self) -> bool:
        """Record what is queued; ``False`` if the store failed, which is reported once. Not twice at a time."""
        self._wake.clear()
        self._hurry.clear()
        try:
            while self._queue:
                await self._write([*islice(self._queue, MAX_BATCH)])
        except Exception as error:  # noqa: BLE001  # whatever it is, the records are kept, and tried again
            self._failed(error)
            return False
        self._failing_since = None
        return True

    async def _write(self, batch: Sequence[_Queued]) -> None:
        await self._seal([each for each in batch if each.entry is None])
        entries = portion([each.entry for each in batch if each.entry is not None])
        first = await self._log.append(entries)
        for index in range(first, first + len(entries)):
            waiting = self._queue.popleft().waiting
            if waiting is not None and not waiting.done():
                waiting.set_result(index)
        self._recorded += len(entries)

    async def _seal(self, batch: Sequence[_Queued]) -> None:
        for start in range(0, len(batch), SEALED_AT_ONCE):
            part = batch[start : start + SEALED_AT_ONCE]
            entries = await self._sealer.seal([replace(each.record, node=self._node) for each in part])
            for each, entry in zip(part, entries, strict=True):
                each.entry = entry
            await asyncio.sleep(0)  # frames have their turn

    def _enqueue(self, records: Sequence[AuditRecord]) -> None:
        now = self._clock.now()
        self._queue.extend(_Queued(record, now) for record in records)

    def _failed(self, error: Exception) -> None:
        if self._failing_since is not None:
            return
        self._failing_since = self._clock.now()
        if isinstance(error, RoomkeyError):
            _log.error("audit_not_recorded", queued=len(self._queue), code=error.code, reason=str(error))
        else:
            _log.error("audit_not_recorded", queued=len(self._queue), exc_info=error)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
