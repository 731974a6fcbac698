"""Sessions in the memory of one process: the default of tests, and the yardstick of the other backends."""

from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from operator import attrgetter, itemgetter
from types import TracebackType
from typing import Final, Self

from msgspec import Struct
from msgspec.structs import replace

from roomkey.backends.fences import fenced
from roomkey.backends.memory.indexes import Deadlines, SortedIds
from roomkey.backends.taking_in import follows, raised, succeeds
from roomkey.domain.lifecycle import apply, deadline
from roomkey.domain.policy import SessionPolicy, evictions
from roomkey.domain.session import (
    LIVE_STATES,
    PARTITIONS,
    AnyEvent,
    Deleted,
    Evicted,
    Invalidated,
    Session,
    SessionEvent,
    SessionFilter,
    SessionId,
    SessionState,
    UserRevoked,
    partition_of,
    partition_of_id,
)
from roomkey.domain.token_uses import TokenUse, noted
from roomkey.errors import Conflict, InvalidInput, NotFound
from roomkey.ports import (
    CheckpointItem,
    EpochItem,
    EventItem,
    Gone,
    LoggedEvent,
    LogStart,
    NewSession,
    Page,
    PartitionItem,
    Revocation,
    Secret,
    SessionItem,
    SessionPage,
    StorageStatistics,
)
from roomkey.security.tokens import is_session_id

EVENTS_PER_PARTITION: Final = 512
"""The log is a ring: this many events per partition, 131,072 in all, are kept."""

SCAN_LIMIT: Final = 10_000
"""So many sessions are looked at for one page, so that a rare match does not stop the loop."""


class _Record(Struct, gc=False):
    """What is kept of one session. The rare parts of its secret are only there after a rotation."""

    session: Session
    digest: bytes
    epoch: int
    rotation: Secret | None = None


class MemorySessionStorage:
    """
    ``SessionStorage`` in dictionaries. Nothing survives the process.

    Every method checks and writes without awaiting in between, so none needs a lock. The event log keeps the
    last ``events_per_partition`` events of each partition.
    """

    shared = False

    def __init__(self, *, events_per_partition: int = EVENTS_PER_PARTITION) -> None:
        self._records: dict[SessionId, _Record] = {}
        self._live: dict[str, list[SessionId]] = {}
        self._over: dict[str, list[SessionId]] = {}
        self._epochs: dict[str, int] = {}
        self._ended: dict[SessionId, datetime] = {}  # in the order in which they ended
        self._listing = [SortedIds() for _ in range(PARTITIONS)]
        self._deadlines = Deadlines()
        self._logs = [_Log(events_per_partition) for _ in range(PARTITIONS)]
        self._counters = _Counters()
        self._checkpoints: dict[tuple[str, int], int] = {}
        self._fence = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def create(self, new: Sequence[NewSession], policy: SessionPolicy, now: datetime) -> list[Evicted]:
        if len(new) == 1:
            return self._create(new, policy, now)
        per_user: dict[str, list[NewSession]] = {}
        for each in new:
            per_user.setdefault(each.session.user_id, []).append(each)
        return [event for group in per_user.values() for event in self._create(group, policy, now)]

    def _create(self, new: Sequence[NewSession], policy: SessionPolicy, now: datetime) -> list[Evicted]:
        user = new[0].session.user_id
        records = self._records
        for each in new:
            if each.session.id in records:
                raise Conflict("a session with this id exists")
        live = self._live.get(user, ())
        evicted = [] if policy.has_room(len(live), len(new)) else self._make_room(live, len(new), policy, now)
        epoch = self._epochs.get(user, 0)
        log = self._logs[partition_of_id(new[0].session.id)]
        for each in new:
            session = each.session
            records[session.id] = _Record(session, each.secret.current, epoch)
            self._index(session)
            log.append(each.event)
        self._counters.created(new)
        return evicted

    def _index(self, session: Session) -> None:
        mates = self._live.get(session.user_id)
        if mates is None:
            self._live[session.user_id] = [session.id]
        else:
            mates.append(session.id)
        self._listing[partition_of_id(session.id)].add(session.id)
        due = deadline(session)
        if due is not None:
            self._deadlines.add(session.id, due)

    def _make_room(
        self, live: Iterable[SessionId], newcomers: int, policy: SessionPolicy, now: datetime
    ) -> list[Evicted]:
        sessions = [self._records[id].session for id in live]
        events = evictions(sessions, newcomers, policy, now)
        for event in events:
            self._put(apply(self._records[event.session].session, event), event)
        return events

    async def get(self, id: SessionId) -> Session | None:
        record = self._records.get(id)
        if record is None:
            return None
        if not self._epochs:  # the most frequent read of all, while nobody was ever revoked
            return record.session
        return _ended(record.session) if self._is_revoked(record) else record.session

    def _is_revoked(self, record: _Record) -> bool:
        """Whether the user's epoch has passed the session while it lived; no index is asked."""
        if not self._epochs or record.epoch >= self._epochs.get(record.session.user_id, 0):
            return False
        return record.session.state in LIVE_STATES

    async def get_many(self, ids: Sequence[SessionId]) -> list[Session | None]:
        return [await self.get(id) for id in ids]

    async def get_with_secret(self, id: SessionId) -> tuple[Session, Secret] | None:
        record = self._records.get(id)
        if record is None:
            return None
        session = record.session
        if self._epochs and self._is_revoked(record):
            session = _ended(session)
        return session, record.rotation or Secret(current=record.digest)

    async def update(self, session: Session, event: SessionEvent, *, secret: Secret | None = None) -> None:
        record = self._records.get(session.id)
        if record is None:
            raise NotFound("there is no such session")
        if not self._may_become(record, session):
            raise Conflict("the session was changed by someone else")
        self._put(session, event)
        if secret is not None:
            record.digest = secret.current
            record.rotation = secret

    async def update_many(self, changes: Sequence[tuple[Session, SessionEvent]]) -> list[bool]:
        outcomes: list[bool] = []
        for session, event in changes:
            record = self._records.get(session.id)
            fits = record is not None and self._may_become(record, session)
            if fits:
                self._put(session, event)
            outcomes.append(fits)
        return outcomes

    def _may_become(self, record: _Record, session: Session) -> bool:
        return record.session.version == session.version - 1 and not self._is_revoked(record)

    def _put(self, session: Session, event: SessionEvent) -> None:
        """Make ``session`` current. The caller has checked that it may."""
        record = self._records[session.id]
        before = record.session
        if before.last_seen_at > session.last_seen_at:
            session = replace(session, last_seen_at=before.last_seen_at)
        record.session = session
        self._logs[partition_of_id(session.id)].append(event)
        if session.state is not before.state:
            self._counters.moved(before.state, session.state)
            if session.state not in LIVE_STATES:
                self._retire(before, session, event.at)
        due = deadline(session)
        if due is not None and (was := deadline(before)) is not None and due < was:
            # A later deadline is found when the earlier one comes up.
            self._deadlines.add(session.id, due)

    def _retire(self, before: Session, session: Session, at: datetime) -> None:
        self._ended.pop(session.id, None)  # it may have expired before it was invalidated, and the last event counts
        self._ended[session.id] = at
        if before.state not in LIVE_STATES:
            return
        _discard(self._live, session.user_id, session.id)
        self._over.setdefault(session.user_id, []).append(session.id)
        self._deadlines.forget(self._due)
        self._counters.finished(at - session.created_at)

    async def touch(self, id: SessionId, at: datetime) -> None:
        record = self._records.get(id)
        if record is None or record.session.state not in LIVE_STATES or self._is_revoked(record):
            return
        if record.session.last_seen_at >= at:
            return
        record.session = replace(record.session, last_seen_at=at)

    async def note_use(self, id: SessionId, use: TokenUse, *, generation: int, window: timedelta) -> None:
        record = self._records.get(id)
        if record is None or record.session.state not in LIVE_STATES or self._is_revoked(record):
            return
        secret = record.rotation or Secret(current=record.digest)
        if secret.generation == generation:
            record.rotation = replace(secret, uses=noted(secret.uses, use, window))

    async def delete(self, event: Deleted) -> bool:
        record = self._records.get(event.session)
        if record is None:
            return False
        session = record.session
        if session.version != event.version - 1:
            raise Conflict("the session was changed by someone else")
        del self._records[event.session]
        if session.state in LIVE_STATES:
            _discard(self._live, session.user_id, session.id)
            self._deadlines.forget(self._due)
        else:
            _discard(self._over, session.user_id, session.id)
            del self._ended[session.id]
        partition = partition_of_id(session.id)
        self._listing[partition].remove(self._records)
        self._logs[partition].append(event)
        self._counters.removed(session.state)
        return True

    async def revoke_user(
        self, user_id: str, now: datetime, *, actor: str, reason: str | None, except_session: SessionId | None
    ) -> Revocation:
        epoch = self._epochs.get(user_id, 0) + 1
        kept = self._records.get(except_session) if except_session is not None else None
        if kept is not None and kept.session.user_id == user_id and not self._is_revoked(kept):
            kept.epoch = epoch
        else:
            except_session = None
        self._epochs[user_id] = epoch
        root = UserRevoked(user=user_id, epoch=epoch, at=now, actor=actor, reason=reason, session=except_session)
        self._logs[partition_of(user_id)].append(root)
        events: list[UserRevoked | Invalidated] = [root]
        for id in list(self._live.get(user_id, ())):
            if id == except_session:
                continue
            session = self._records[id].session
            event = Invalidated(
                session=id, user=user_id, version=session.version + 1, at=now, actor=actor, reason=reason or "revoked"
            )
            self._put(apply(session, event), event)
            events.append(event)
        return Revocation(epoch, events)

    async def list(self, filter: SessionFilter, page: Page) -> SessionPage:
        if filter.user_id is not None:
            return self._list_user(filter.user_id, filter, page)
        found: list[Session] = []
        last: SessionId | None = None
        for looked_at, id in enumerate(self._ids_after(page.cursor)):
            if len(found) == page.limit or looked_at == SCAN_LIMIT:
                return SessionPage(found, last)
            last = id
            session = await self.get(id)
            if session is not None and filter.matches(session):
                found.append(session)
        return SessionPage(found)

    def _ids_after(self, cursor: str | None) -> Iterator[SessionId]:
        first = 0
        if cursor is not None:
            if not is_session_id(cursor):
                raise InvalidInput("the cursor is not one of ours")
            first = partition_of_id(SessionId(cursor))
        for partition in range(first, PARTITIONS):
            yield from self._listing[partition].after(cursor if partition == first else None)

    def _list_user(self, user_id: str, filter: SessionFilter, page: Page) -> SessionPage:
        ids = [*self._live.get(user_id, ()), *self._over.get(user_id, ())]
        sessions = sorted((self._seen(id) for id in ids), key=attrgetter("created_at", "id"))
        if page.cursor is not None:
            after = _position(page.cursor)
            sessions = [session for session in sessions if (_micros(session.created_at), session.id) > after]
        found = [session for session in sessions if filter.matches(session)]
        if len(found) <= page.limit:
            return SessionPage(found)
        last = found[page.limit - 1]
        return SessionPage(found[: page.limit], f"{_micros(last.created_at)}.{last.id}")

    def _seen(self, id: SessionId) -> Session:
        record = self._records[id]
        return _ended(record.session) if self._is_revoked(record) else record.session

    async def count(self, filter: SessionFilter) -> int:
        if filter.user_id is not None:
            ids = [*self._live.get(filter.user_id, ()), *self._over.get(filter.user_id, ())]
            return sum(filter.matches(self._seen(id)) for id in ids)
        if filter.created_before is None and filter.created_after is None:
            states = self._counters.states
            return sum(states.values()) if filter.state is None else states[filter.state]
        return sum(filter.matches(self._seen(id)) for id in self._records)

    async def overdue(self, now: datetime, limit: int) -> Sequence[Session]:
        ids = self._deadlines.due(now, limit, self._due)
        sessions = [self._records[id].session for id in ids]
        return sorted(sessions, key=lambda session: deadline(session) or now)

    def _due(self, id: SessionId) -> datetime | None:
        record = self._records.get(id)
        return None if record is None or self._is_revoked(record) else deadline(record.session)

    async def ended_before(self, moment: datetime, limit: int) -> Sequence[Session]:
        ripe: list[Session] = []
        for id, at in self._ended.items():
            if at >= moment or len(ripe) == limit:
                break
            ripe.append(self._records[id].session)
        return ripe

    async def statistics(self, now: datetime) -> StorageStatistics:
        return self._counters.statistics(now)

    async def ping(self) -> None:
        pass

    def degradations(self) -> Mapping[str, str]:
        return {}

    async def events(self, partition: int, after: int = 0, limit: int = 1000) -> Sequence[LoggedEvent]:
        return self._logs[partition].read(after, limit)

    async def heads(self) -> Mapping[int, int]:
        return {number: log.head for number, log in enumerate(self._logs) if log.head}

    async def purge_events(self, before: datetime, limit: int = 10_000, *, fence: int | None = None) -> int:
        self._fence = fenced(self._fence, fence)
        purged = 0
        for log in self._logs:
            purged += log.purge(before, limit - purged)
        return purged

    # --- moving house ---------------------------------------------------------------------------------

    async def export_sessions(self, partition: int) -> AsyncIterator[Sequence[SessionItem]]:
        yield [self._item(id) for id in self._listing[partition].after(None) if id in self._records]

    def _item(self, id: SessionId) -> SessionItem:
        record = self._records[id]
        secret = record.rotation or Secret(current=record.digest)
        return SessionItem(record.session, secret, record.epoch, self._ended.get(id))

    async def export_epochs(self) -> AsyncIterator[Sequence[EpochItem]]:
        yield [EpochItem(user, epoch) for user, epoch in self._epochs.items()]

    async def export_checkpoints(self) -> AsyncIterator[Sequence[CheckpointItem]]:
        yield [CheckpointItem(*place, sequence) for place, sequence in self._checkpoints.items()]

    async def take_in(self, partition: int, items: Sequence[PartitionItem]) -> None:
        log = self._logs[partition]
        for item in items:
            match item:
                case SessionItem():
                    self._take_in_session(item)
                case EpochItem(user, epoch):
                    self._epochs[user] = raised(epoch, self._epochs.get(user, 0))
                case LogStart(after):
                    log.begin_behind(after)
                case EventItem(sequence, event):
                    held = log.read(sequence - 1, 1)
                    if follows(sequence, event, log.head, held[0] if held else None):
                        log.append(event)
                case Gone(id):
                    self._take_out(id)
        self._ended = dict(sorted(self._ended.items(), key=itemgetter(1)))

    def _take_in_session(self, item: SessionItem) -> None:
        session, secret = item.session, item.secret
        if not succeeds(item, self._item(session.id) if session.id in self._records else None):
            return
        self._take_out(session.id)
        is_rotated = secret != Secret(current=secret.current)
        self._records[session.id] = _Record(session, secret.current, item.epoch, secret if is_rotated else None)
        self._counters.states[session.state] += 1
        if item.ended_at is None:
            self._index(session)
        else:
            self._listing[partition_of_id(session.id)].add(session.id)
            self._over.setdefault(session.user_id, []).append(session.id)
            self._ended[session.id] = item.ended_at

    def _take_out(self, id: SessionId) -> None:
        record = self._records.pop(id, None)
        if record is None:
            return
        session = record.session
        _discard(self._live if session.state in LIVE_STATES else self._over, session.user_id, id)
        self._ended.pop(id, None)
        self._listing[partition_of_id(id)].discard(id)
        self._counters.removed(session.state)

    async def take_in_checkpoints(self, items: Sequence[CheckpointItem]) -> None:
        self._checkpoints.update({(item.consumer, item.partition): item.sequence for item in items})


class _Log:
    """The ring of one partition's events. The last one has the sequence number ``head``."""

    __slots__ = ("_ring", "head")

    def __init__(self, size: int) -> None:
        self._ring: deque[AnyEvent] = deque(maxlen=size)
        self.head = 0

    def append(self, event: AnyEvent) -> None:
        self.head += 1
        self._ring.append(event)

    def read(self, after: int, limit: int) -> list[LoggedEvent]:
        gone = self.head - len(self._ring)
        start = max(after - gone, 0)
        chosen = islice(self._ring, start, start + limit)
        return [LoggedEvent(gone + start + number, event) for number, event in enumerate(chosen, 1)]

    def purge(self, before: datetime, limit: int) -> int:
        purged = 0
        while self._ring and purged < limit and self._ring[0].at < before:
            self._ring.popleft()
            purged += 1
        return purged

    def begin_behind(self, after: int) -> None:
        """Forget everything up to ``after``, whether or not it was ever here."""
        while self._ring and self.head - len(self._ring) < after:
            self._ring.popleft()
        self.head = max(self.head, after)


class _Counters:
    """The figures of ``StorageStatistics``, kept current."""

    def __init__(self) -> None:
        self.states = dict.fromkeys(SessionState, 0)
        self._day = date.min
        self._created_today = 0
        self._ended = 0
        self._ended_duration = timedelta()

    def created(self, new: Sequence[NewSession]) -> None:
        self.states[SessionState.PENDING] += len(new)
        day = new[0].event.at.date()
        if day != self._day:
            self._day, self._created_today = day, 0
        self._created_today += len(new)

    def moved(self, before: SessionState, after: SessionState) -> None:
        self.states[before] -= 1
        self.states[after] += 1

    def removed(self, state: SessionState) -> None:
        self.states[state] -= 1

    def finished(self, age: timedelta) -> None:
        self._ended += 1
        self._ended_duration += age

    def statistics(self, now: datetime) -> StorageStatistics:
        return StorageStatistics(
            states=dict(self.states),
            created_today=self._created_today if now.date() == self._day else 0,
            ended=self._ended,
            ended_duration=self._ended_duration,
        )


def _discard(index: dict[str, list[SessionId]], user: str, id: SessionId) -> None:
    ids = index.get(user)
    if ids is not None and id in ids:
        ids.remove(id)
        if not ids:
            del index[user]


def _ended(session: Session) -> Session:
    """How a session is read whose user's epoch has passed it."""
    if session.state in LIVE_STATES:
        return replace(session, state=SessionState.INVALIDATED, reason=None)
    return session


def _position(cursor: str) -> tuple[int, str]:
    created, _, id = cursor.partition(".")
    if not (is_session_id(id) and created.isdecimal() and len(created) <= 20):
        raise InvalidInput("the cursor is not one of ours")
    return int(created), id


def _micros(moment: datetime) -> int:
    return (moment - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)
