"""The audit trail of a node: what other parts of it record, ask and read."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final, NamedTuple, Protocol

from msgspec import Struct

from roomkey.audit.following import EventsRecorded, EventTrail, ReadableLog
from roomkey.audit.index import SearchIndex
from roomkey.audit.recorder import Recorder, RecorderStatistics
from roomkey.audit.records import AuditRecord
from roomkey.audit.sealing import Naming, PersonKeys, Sealer
from roomkey.audit.search import Search
from roomkey.audit.settings import AuditSettings
from roomkey.errors import AuditBehind, NotPublished, Storage
from roomkey.leasing import Chore
from roomkey.ports import Clock, EventLog, Leases, ObjectStore
from roomkey.security.events import SecurityEvents

LEASE: Final = "audit trail"
"""Who records events of sessions."""

LIFETIME: Final = timedelta(seconds=5)
"""How long others wait for a node that died while it recorded events."""

Work = Callable[[], Awaitable[None]]


class ProvingLog(ReadableLog, Protocol):
    """The log, as far as a trail needs it."""

    async def receipt(self, index: int, *, within: timedelta) -> object:
        """
        The proof that the entry is in the log, as text, when it is published.

        Raises:
            NotPublished: If it is not ``within`` this time.
        """


class Recorded(NamedTuple):
    """Where a record is, and the proof of it; ``None`` for what was not there in time."""

    number: int | None
    receipt: str | None


class TrailStatistics(Struct, frozen=True, kw_only=True):
    """What the trail of a node is doing."""

    recorder: RecorderStatistics
    events_outstanding: int
    """Events of sessions, of all nodes, that are not recorded yet."""
    behind: bool


class AuditTrail:
    """
    Everything of the audit log but the log itself.

    Within ``at_work`` it records what it is given; ``works`` are what a running node does besides, for events of
    sessions. ``check`` is asked before anything is done that has to be recorded.
    """

    def __init__(  # noqa: PLR0913  # each is a part of the node
        self,
        log: ProvingLog,
        objects: ObjectStore,
        keys: PersonKeys,
        *,
        naming: Naming,
        settings: AuditSettings,
        events: EventLog,
        leases: Leases,
        clock: Clock,
        node: str,
    ) -> None:
        """``events`` is the event log of sessions. ``leases`` must hold for all processes that write to it."""
        self.settings = settings
        self._log = log
        self._keys = keys
        self._naming = naming
        sealer = Sealer(keys, naming)
        self._recorder = Recorder(
            sealer, log, clock, node=node, bound=settings.queue_records, patience=settings.patience
        )
        recorded = EventsRecorded(sealer, log, objects, clock)
        self._index = SearchIndex(log, objects, naming)
        chore = Chore(leases, LEASE, node, lifetime=LIFETIME)
        self.events = EventTrail(events, recorded, objects, clock, chore=chore, after_round=self._index.build)
        self.search = Search(log, self._index, sealer)

    # --- recording ------------------------------------------------------------------------------------

    def record(self, record: AuditRecord) -> None:
        """Have this recorded; see ``Recorder.record``."""
        self._recorder.record(record)

    async def proven(self, record: AuditRecord) -> Recorded:
        """
        Have this recorded at once, and wait for its receipt, for ``receipt_timeout`` at most.

        It is recorded in any case.
        """
        number = None
        until = asyncio.get_running_loop().time() + self.settings.receipt_timeout.total_seconds()
        try:
            async with asyncio.timeout_at(until):
                number = await self._recorder.recorded(record)
                return Recorded(number, str(await self._log.receipt(number, within=self.settings.receipt_timeout)))
        except (TimeoutError, NotPublished, Storage):
            return Recorded(number, None)

    async def forget(self, user: str) -> None:
        """
        Destroy the key of a person: what the log says of it is not shown any more, by any node after some seconds.

        Raises:
            Storage: If it cannot be told whether that is done.
        """
        await self._keys.destroy(self._naming(user))

    @property
    def is_behind(self) -> bool:
        """Whether nothing may be done that has to be recorded, because it could not be for too long."""
        return self._recorder.is_behind or self.events.standstill >= self.settings.patience

    def check(self) -> None:
        """
        Raise if nothing may be done that has to be recorded.

        Raises:
            AuditBehind: If so.
        """
        if self.is_behind:
            raise AuditBehind("the audit log does not keep up, and what cannot be recorded is not done")

    # --- how it is ------------------------------------------------------------------------------------

    def degradations(self) -> Mapping[str, str]:
        """What is wrong with it, what follows, and what to do."""
        statistics = self.statistics()
        failing = statistics.recorder.failing_since
        if statistics.behind:
            waiting = f"{statistics.recorder.queued} records and {statistics.events_outstanding} events wait"
            return {
                "audit": f"cannot be written: {waiting}; new sessions and privileged commands are refused; {_ADVICE}"
            }
        if failing is not None:
            return {"audit": f"cannot be written since {failing:%H:%M:%S}Z; {_ADVICE}"}
        return {}

    def statistics(self) -> TrailStatistics:
        """What waits, and what was recorded by this node."""
        return TrailStatistics(
            recorder=self._recorder.statistics(),
            events_outstanding=self.events.outstanding,
            behind=self.is_behind,
        )

    # --- at work --------------------------------------------------------------------------------------

    @asynccontextmanager
    async def at_work(self, events: SecurityEvents) -> AsyncGenerator[None]:
        """Record until this is left; what waits then is recorded within ``flush_timeout``."""
        unsubscribe = events.listen(self._recorder.note)
        try:
            async with asyncio.TaskGroup() as group:
                recording = group.create_task(self._recorder.run())
                try:
                    yield
                finally:
                    recording.cancel()
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None  # recording raises nothing, so this is what the block raised
        finally:
            unsubscribe()
            await self._recorder.close(self.settings.flush_timeout)

    @property
    def works(self) -> Mapping[str, Work]:
        """What is to be done in the background, by name."""
        return {
            "audit events": self.events.run,
            "audit watch": self.events.watch,
        }


_ADVICE: Final = "check the storage of the audit log, and that its disk is not full"
