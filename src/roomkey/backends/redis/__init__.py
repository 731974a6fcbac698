"""Sessions in Redis: standalone, Sentinel or Cluster."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self

from msgspec.structs import replace

from roomkey.backends.redis.checkpoints import RedisCheckpoints
from roomkey.backends.redis.layout import Partition, micros, partitions
from roomkey.backends.redis.lists import Lists
from roomkey.backends.redis.moving import Moving
from roomkey.backends.redis.repair import Repair
from roomkey.backends.redis.resealing import Resealing
from roomkey.backends.redis.server import Call, RedisServer
from roomkey.backends.redis.settings import RedisSettings
from roomkey.backends.redis.stored import Found, Translator
from roomkey.backends.redis.times import Times
from roomkey.backends.redis.writes import Writes
from roomkey.domain.policy import SessionPolicy
from roomkey.domain.session import (
    LIVE_STATES,
    Deleted,
    Evicted,
    Session,
    SessionEvent,
    SessionFilter,
    SessionId,
    SessionState,
)
from roomkey.domain.token_uses import TokenUse, noted
from roomkey.errors import LeaseLost
from roomkey.ports import (
    CHECKSUMMED_RECORDS,
    CheckpointItem,
    DamagedRecord,
    EpochItem,
    LoggedEvent,
    NewSession,
    Page,
    PartitionItem,
    RecordCodec,
    Resealed,
    Revocation,
    Secret,
    SessionItem,
    SessionPage,
    StorageStatistics,
    Unreadable,
)

__all__ = ["RedisServer", "RedisSessionStorage", "RedisSettings"]

PURGE_CHUNK: Final = 500
"""Events that are purged in one step, so that nobody waits long."""

_FIGURES: Final = ("s0", "s1", "s2", "s3", "s4", "day", "today", "ended", "age")


class RedisSessionStorage:
    """
    ``SessionStorage`` in Redis.

    Acknowledged is what the server has, as durable as its persistence makes it; a failover may lose the last writes.
    For revocations ``wait_replicas`` makes that unlikely. Each command is one round trip, a change of a session two.
    """

    shared = True

    def __init__(
        self,
        url_or_server: str | RedisServer,
        settings: RedisSettings | None = None,
        *,
        codec: RecordCodec = CHECKSUMMED_RECORDS,
    ) -> None:
        """
        Name the server; ``settings`` are for a URL.

        Raises:
            ConfigurationError: If the URL is none.
        """
        server = url_or_server if isinstance(url_or_server, RedisServer) else RedisServer(url_or_server, settings)
        self._server = server
        self._translator = Translator(codec)
        self._partitions = partitions(server.prefix)
        self._writes = Writes(server, self._partitions, self._translator)
        self._lists = Lists(server, self._partitions, self._translator)
        self._times = Times(server, self._partitions, self._translator, self._writes)
        self._moving = Moving(server, self._partitions, self._translator)
        self._repair = Repair(server, self._partitions, self._translator)
        self._resealing = Resealing(server, self._partitions, codec)
        self._checkpoints = RedisCheckpoints(server)

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.__aexit__(kind, error, trace)

    # --- write ----------------------------------------------------------------------------------------

    async def create(self, new: Sequence[NewSession], policy: SessionPolicy, now: datetime) -> list[Evicted]:
        return await self._writes.create(new, policy, now)

    async def update(self, session: Session, event: SessionEvent, *, secret: Secret | None = None) -> None:
        await self._writes.update(session, event, secret)

    async def update_many(self, changes: Sequence[tuple[Session, SessionEvent]]) -> list[bool]:
        return await self._writes.update_many(changes)

    async def delete(self, event: Deleted) -> bool:
        return await self._writes.delete(event)

    async def revoke_user(
        self, user_id: str, now: datetime, *, actor: str, reason: str | None, except_session: SessionId | None
    ) -> Revocation:
        return await self._writes.revoke_user(user_id, now, actor=actor, reason=reason, except_session=except_session)

    async def touch(self, id: SessionId, at: datetime) -> None:
        await self._writes.touch(id, at)

    async def note_use(self, id: SessionId, use: TokenUse, *, generation: int, window: timedelta) -> None:
        def decide(found: Found) -> Secret | None:
            secret = found.held.secret
            if found.as_read().state not in LIVE_STATES or secret.generation != generation:
                return None
            return replace(secret, uses=noted(secret.uses, use, window))

        await self._writes.replace_secret(id, decide)

    # --- read -----------------------------------------------------------------------------------------

    async def get(self, id: SessionId) -> Session | None:
        value = await self._lists.value(id)
        return None if value is None else self._translator.session(id, value[0], value[1])

    async def get_many(self, ids: Sequence[SessionId]) -> list[Session | None]:
        values = await self._lists.values(ids)
        return [
            None if value is None else self._translator.shown(id, value[0], value[1])
            for id, value in zip(ids, values, strict=True)
        ]

    async def get_with_secret(self, id: SessionId) -> tuple[Session, Secret] | None:
        found = await self._lists.found(id)
        return None if found is None else (found.as_read(), found.held.secret)

    async def list(self, filter: SessionFilter, page: Page) -> SessionPage:
        if filter.user_id is not None:
            return await self._lists.of_user(filter.user_id, filter, page)
        return await self._lists.of_all(filter, page)

    async def count(self, filter: SessionFilter) -> int:
        if filter.user_id is None and filter.created_before is None and filter.created_after is None:
            states = await self._states()
            return sum(states.values()) if filter.state is None else states[filter.state]
        counted = 0
        page = Page(limit=500)
        while True:
            found = await self.list(filter, page)
            counted += len(found)
            if found.next_cursor is None:
                return counted
            page = replace(page, cursor=found.next_cursor)

    async def _states(self) -> Mapping[SessionState, int]:
        return _sum_of_states(await self._figures(_FIGURES[:5]))

    async def overdue(self, now: datetime, limit: int) -> Sequence[Session]:
        return await self._times.overdue(now, limit)

    async def ended_before(self, moment: datetime, limit: int) -> Sequence[Session]:
        return await self._times.ended_before(moment, limit)

    async def statistics(self, now: datetime) -> StorageStatistics:
        figures = await self._figures(_FIGURES)
        today = str(now.toordinal()).encode()
        return StorageStatistics(
            states=_sum_of_states(figures),
            created_today=sum(int(each[6]) for each in figures if each[5] == today),
            ended=sum(int(each[7] or 0) for each in figures),
            ended_duration=timedelta(microseconds=sum(int(each[8] or 0) for each in figures)),
        )

    async def _figures(self, names: Sequence[str]) -> Sequence[Sequence[Any]]:
        """Of every partition that has some, in one write."""
        found = await self._server.ask_many([("HMGET", partition.figures, *names) for partition in self._partitions])
        return [each for each in found if any(value is not None for value in each)]

    async def ping(self) -> None:
        await self._server.ping()

    def degradations(self) -> Mapping[str, str]:
        return {**self._server.degradations(), **self._translator.damage.degradations()}

    # --- log ------------------------------------------------------------------------------------------

    async def events(self, partition: int, after: int = 0, limit: int = 1000) -> Sequence[LoggedEvent]:
        if limit <= 0:
            return []
        log = self._partitions[partition].log
        while True:
            entries = await self._server.ask("XRANGE", log, f"({max(after, 0)}-0", "+", "COUNT", limit)
            found = self._translator.events(partition, entries or ())
            if found or not entries:
                return found
            after = int(entries[-1][0].partition(b"-")[0])  # none of them can be read

    async def heads(self) -> Mapping[int, int]:
        found = await self._server.ask_many([("HGET", partition.figures, "head") for partition in self._partitions])
        return {number: int(head) for number, head in enumerate(found) if head is not None}

    async def purge_events(self, before: datetime, limit: int = 10_000, *, fence: int | None = None) -> int:
        # Repeated or not, what is older than that moment goes; only the number may be too small then.
        calls = [self._purge(partition, before, 0, fence) for partition in self._partitions]
        outcomes = await self._server.run_many(calls, may_repeat=True)
        _check_fence(outcomes)
        purged = 0
        for partition, has_some in zip(self._partitions, outcomes, strict=True):
            if has_some and purged < limit:
                purged += await self._purge_partition(partition, before, limit - purged, fence)
        return purged

    async def _purge_partition(self, partition: Partition, before: datetime, limit: int, fence: int | None) -> int:
        purged = 0
        while purged < limit:
            chunk = min(limit - purged, PURGE_CHUNK)
            (done,) = await self._server.run_many([self._purge(partition, before, chunk, fence)], may_repeat=True)
            _check_fence([done])
            purged += done
            if done < chunk:
                break
        return purged

    @staticmethod
    def _purge(partition: Partition, before: datetime, limit: int, fence: int | None) -> Call:
        arguments = (b"" if fence is None else fence, micros(before), limit)
        return Call(Writes.PURGE, (partition.figures, partition.log), arguments)

    # --- moving house ---------------------------------------------------------------------------------

    def export_sessions(self, partition: int) -> AsyncIterator[Sequence[SessionItem | Unreadable]]:
        return self._moving.sessions(partition)

    def export_epochs(self) -> AsyncIterator[Sequence[EpochItem | Unreadable]]:
        return self._moving.epochs()

    async def export_checkpoints(self) -> AsyncIterator[Sequence[CheckpointItem]]:
        yield await self._checkpoints.all()

    async def take_in(self, partition: int, items: Sequence[PartitionItem]) -> None:
        await self._moving.take_in(partition, items)

    async def take_in_checkpoints(self, items: Sequence[CheckpointItem]) -> None:
        await self._checkpoints.save_many(items)

    # --- repair ---------------------------------------------------------------------------------------

    async def damaged(self) -> Sequence[DamagedRecord]:
        return await self._repair.damaged()

    async def set_aside(self, records: Sequence[DamagedRecord]) -> int:
        return await self._repair.set_aside(records)

    async def has_checksums(self) -> bool:
        return self._translator.has_checksums

    # --- resealing ------------------------------------------------------------------------------------

    async def reseal(self, after: bytes, limit: int, *, only_counts: bool = False) -> Resealed:
        return await self._resealing.reseal(after, limit, only_counts=only_counts)


def _check_fence(outcomes: Sequence[int]) -> None:
    if -1 in outcomes:
        raise LeaseLost("somebody else has the lease by now")


def _sum_of_states(figures: Sequence[Sequence[Any]]) -> dict[SessionState, int]:
    return {state: sum(int(each[number] or 0) for each in figures) for number, state in enumerate(SessionState)}
