"""Events of sessions in the audit log: taken from the event log, so that none is lost however a node ends."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final, Protocol

import msgspec
import structlog
from msgspec import Struct

from roomkey.audit.facts import of_event, of_gap
from roomkey.audit.index import Entries
from roomkey.audit.recorder import Appending, portion
from roomkey.audit.records import AuditRecord
from roomkey.audit.sealing import SEALED_AT_ONCE, Sealer, line_of
from roomkey.errors import Conflict, LeaseLost, NotRetained, RoomkeyError
from roomkey.leasing import Chore
from roomkey.ports import Clock, EventLog, LoggedEvent, ObjectStore
from roomkey.ports.objects import ABSENT
from roomkey.sessions.event_follower import EventFollower

_log = structlog.get_logger("roomkey.audit")

SPACE: Final = "audit-trail"
POSITIONS: Final = "positions"
"""The object that says how far the event log is recorded."""

MAX_PENDING: Final = 2_000
"""Events that are read before they are recorded."""

READ_AT_ONCE: Final = 1_000
"""Entries that are read at a time when it is looked what was recorded last."""

UNNOTED: Final = timedelta(minutes=1)
"""How old a note may be: so long ago at most begins what the next node reads, to see which events are recorded."""

_INTERVAL: Final = 0.25
"""Seconds between two looks at the event log."""

_LOOK: Final = 1.0
"""Seconds between two looks how far it is recorded."""

_OTHERS: Final = 2.0
"""Seconds after which a node asks again whether it is its turn."""


class ReadableLog(Appending, Entries, Protocol):
    """The log, as far as it is read by whoever writes to it."""


class Positions(Struct, frozen=True):
    """How far the event log is recorded: the last sequence by partition, when the audit log had ``size`` entries."""

    size: int = 0
    sequences: dict[int, int] = msgspec.field(default_factory=dict[int, int])


async def load_positions(objects: ObjectStore) -> tuple[int, Positions]:
    """The revision and the value of what is noted; ``ABSENT`` if nothing is."""
    stored = await objects.get(SPACE, POSITIONS)
    return (ABSENT, Positions()) if stored is None else (stored.revision, _decode(stored.value))


_decode: Final = msgspec.msgpack.Decoder(Positions).decode
_encode: Final = msgspec.msgpack.Encoder().encode


class EventsRecorded:
    """
    The consumer of the event log that records it, with its checkpoints.

    Events are recorded first and noted afterwards, so that after a crash some are recorded that are not noted. Whoever
    goes on reads what was recorded since, and leaves those out: an event is recorded once. Twice it can only be if
    a node went on that had lost its turn without knowing; both entries have the same ``event`` then.
    """

    def __init__(self, sealer: Sealer, log: ReadableLog, objects: ObjectStore, clock: Clock) -> None:
        self._sealer = sealer
        self._log = log
        self._objects = objects
        self._clock = clock
        self._pending: list[AuditRecord] = []
        self._entries: list[bytes] = []
        """Those of ``pending`` that are sealed: what is tried again is the same."""
        self._sequences: dict[int, int] = {}
        self._size = 0
        """Entries that there are, as far as is known here."""
        self._noted = Positions()
        self._noted_at = clock.now()
        self._revision = ABSENT

    # --- as a consumer, and as its checkpoints --------------------------------------------------------

    async def load(self, consumer: str) -> Mapping[int, int]:  # noqa: ARG002  # there is one
        """How far the event log is recorded, by what is noted and what was recorded since."""
        self._pending, self._entries = [], []
        self._revision, self._noted = await load_positions(self._objects)
        self._sequences = dict(self._noted.sequences)
        self._size = self._noted.size
        await self._catch_up()
        return dict(self._sequences)

    async def _catch_up(self) -> None:
        """Read what others, or whoever had this turn before, have recorded."""
        while entries := await self._recorded_since():
            for partition, sequence in filter(None, (line_of(entry).event for entry in entries)):
                self._sequences[partition] = max(sequence, self._sequences.get(partition, 0))
            self._size += len(entries)

    async def _recorded_since(self) -> Sequence[bytes]:
        try:
            return await self._log.entries(self._size, READ_AT_ONCE)
        except NotRetained as error:
            # What it missed was published long ago, and noted by whoever recorded it.
            _log.warning("audit_entries_not_read", first=self._size, last=error.first - 1, reason=str(error))
            self._size = error.first
            return await self._log.entries(self._size, READ_AT_ONCE)

    async def consume(self, partition: int, events: Sequence[LoggedEvent]) -> None:
        """Keep the next events of a partition until ``flush``, which is called here if they are many."""
        if len(self._pending) >= MAX_PENDING:
            await self.flush()
        self._pending += [of_event(partition, event) for event in events]

    async def gap(self, partition: int, first_missing: int, last_missing: int) -> None:
        """These events are lost, which is recorded."""
        self._pending.append(of_gap(partition, first_missing, last_missing, self._clock.now()))

    async def save(self, consumer: str, partition: int, sequence: int) -> None:  # noqa: ARG002
        """Note it when everything up to there is recorded."""
        self._sequences[partition] = sequence

    async def flush(self) -> None:
        """
        Record what is kept, and note how far the event log is recorded.

        Raises:
            Conflict: If another node has noted something: it is its turn.
            Storage: If the store is away or full; call it again.
        """
        now = self._clock.now()
        if self._pending:
            await self._record()
        elif now - self._noted_at >= UNNOTED:
            await self._catch_up()
        noted = Positions(self._size, dict(self._sequences))
        if noted == self._noted:
            return
        await self._objects.commit(SPACE, {POSITIONS: _encode(noted)}, expected={POSITIONS: self._revision})
        self._revision, self._noted = await load_positions(self._objects)
        self._noted_at = now

    async def _record(self) -> None:
        while (sealed := len(self._entries)) < len(self._pending):
            self._entries += await self._sealer.seal(self._pending[sealed : sealed + SEALED_AT_ONCE])
            await asyncio.sleep(0)  # frames have their turn
        while self._entries:
            some = portion(self._entries)
            count = len(some)
            self._size = await self._log.append(some) + count
            del self._entries[:count], self._pending[:count]


class Progress:
    """Whether the event log is being recorded, by whichever node; pure."""

    def __init__(self, now: datetime) -> None:
        self._moved_at = now
        self._seen = Positions()
        self.outstanding = 0
        """Events that are not recorded yet."""

    def look(self, now: datetime, heads: Mapping[int, int], noted: Positions) -> None:
        """This is how far the event log goes, and how far it is recorded."""
        positions = noted.sequences
        self.outstanding = sum(max(0, head - positions.get(partition, 0)) for partition, head in heads.items())
        if not self.outstanding or noted != self._seen:
            self._moved_at = now
        self._seen = noted

    def standstill(self, now: datetime) -> timedelta:
        """For how long nothing was recorded of events that there are, or that could not be looked for."""
        return now - self._moved_at


class EventTrail:
    """
    Has the events of all nodes recorded, by one node at a time, and watches on every node that it is done.

    ``run`` and ``watch`` work until they are cancelled.
    """

    def __init__(
        self,
        events: EventLog,
        recorded: EventsRecorded,
        objects: ObjectStore,
        clock: Clock,
        *,
        chore: Chore,
        after_round: Callable[[], Awaitable[object]],
    ) -> None:
        """``after_round`` is called when something was recorded or not: what only one node has to do, too."""
        self._after_round = after_round
        self._events = events
        self._recorded = recorded
        self._objects = objects
        self._clock = clock
        self._chore = chore
        self._progress: Progress | None = None
        """``None`` while nobody watches."""
        self._failing = False

    @property
    def outstanding(self) -> int:
        """Events of all nodes that are not recorded yet, as was seen last."""
        return 0 if self._progress is None else self._progress.outstanding

    @property
    def standstill(self) -> timedelta:
        """See ``Progress.standstill``; none while nobody watches."""
        return timedelta() if self._progress is None else self._progress.standstill(self._clock.now())

    async def run(self) -> None:
        """Record events whenever no other node does."""
        while True:
            try:
                await self._chore.attempt(self._follow)
            except RoomkeyError as error:
                self._failed(error)
            await asyncio.sleep(_OTHERS)

    async def _follow(self, _token: int) -> None:
        follower = EventFollower(self._events, self._recorded, name="audit", checkpoints=self._recorded)
        await follower.start()
        while True:
            try:
                await self.round(follower)
            except (Conflict, LeaseLost):
                raise
            except RoomkeyError as error:
                self._failed(error)
            else:
                self._failing = False
            await asyncio.sleep(_INTERVAL)

    async def round(self, follower: EventFollower) -> None:
        """Record everything that is new."""
        await follower.follow()
        await self._recorded.flush()
        await self._after_round()

    async def watch(self) -> None:
        """Look how far it is."""
        progress = self._progress = Progress(self._clock.now())
        try:
            while True:
                with suppress(RoomkeyError):  # that it stands still is noticed, and said by whoever is asked
                    await self.look(progress)
                await asyncio.sleep(_LOOK)
        finally:
            self._progress = None

    async def look(self, progress: Progress) -> None:
        """Look once. Raises ``Storage``."""
        _, noted = await load_positions(self._objects)
        progress.look(self._clock.now(), await self._events.heads(), noted)

    def _failed(self, error: RoomkeyError) -> None:
        if not self._failing:
            self._failing = True
            _log.error("audit_events_not_recorded", code=error.code, reason=str(error))
