"""A storage of sessions in which nobody reads whose sessions they are: what passes into it has names for users."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self, TypeVar

from msgspec.structs import replace

from roomkey.domain.policy import SessionPolicy
from roomkey.domain.session import AnyEvent, Deleted, Evicted, Session, SessionEvent, SessionFilter, SessionId
from roomkey.domain.token_uses import TokenUse
from roomkey.encryption.user_ids import UserIds
from roomkey.ports import (
    CheckpointItem,
    EpochItem,
    EventItem,
    LoggedEvent,
    MovableSessions,
    NewSession,
    Page,
    PartitionItem,
    Revocation,
    Secret,
    SessionItem,
    SessionPage,
    SessionStorage,
    StorageStatistics,
    Unreadable,
)

Event = TypeVar("Event", bound=AnyEvent)


class HiddenUsers:
    """
    A ``SessionStorage`` that keeps everything in another one, under the names that ``UserIds`` has for users.

    What passes unchanged is what a storage does not find or file by users. A session or an event whose user cannot be
    shown is damaged like any other, and records are authenticated: nobody makes one without the keys.
    """

    def __init__(self, storage: SessionStorage, user_ids: UserIds) -> None:
        self._storage = storage
        self._ids = user_ids
        self.shared = storage.shared

    async def __aenter__(self) -> Self:
        await self._storage.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._storage.__aexit__(kind, error, trace)

    # --- the log --------------------------------------------------------------------------------------

    async def events(self, partition: int, after: int = 0, limit: int = 1000) -> Sequence[LoggedEvent]:
        found = await self._storage.events(partition, after, limit)
        return [LoggedEvent(each.sequence, self._shown_event(each.event)) for each in found]

    async def heads(self) -> Mapping[int, int]:
        return await self._storage.heads()

    async def purge_events(self, before: datetime, limit: int = 10_000, *, fence: int | None = None) -> int:
        return await self._storage.purge_events(before, limit, fence=fence)

    # --- sessions -------------------------------------------------------------------------------------

    async def create(self, new: Sequence[NewSession], policy: SessionPolicy, now: datetime) -> list[Evicted]:
        """As ``SessionStorage.create``. Raises ``InvalidInput`` for a user whose id is too long to be hidden."""
        for each in new:
            self._ids.check(each.session.user_id)
        hidden = [NewSession(self._hidden_event(each.event), self._hidden(each.session), each.secret) for each in new]
        return [self._shown_event(event) for event in await self._storage.create(hidden, policy, now)]

    async def get(self, id: SessionId) -> Session | None:
        found = await self._storage.get(id)
        return None if found is None else self._shown(found)

    async def get_many(self, ids: Sequence[SessionId]) -> list[Session | None]:
        found = await self._storage.get_many(ids)
        return [None if each is None else self._shown(each) for each in found]

    async def get_with_secret(self, id: SessionId) -> tuple[Session, Secret] | None:
        found = await self._storage.get_with_secret(id)
        return None if found is None else (self._shown(found[0]), found[1])

    async def update(self, session: Session, event: SessionEvent, *, secret: Secret | None = None) -> None:
        await self._storage.update(self._hidden(session), self._hidden_event(event), secret=secret)

    async def update_many(self, changes: Sequence[tuple[Session, SessionEvent]]) -> list[bool]:
        return await self._storage.update_many(
            [(self._hidden(session), self._hidden_event(event)) for session, event in changes]
        )

    async def touch(self, id: SessionId, at: datetime) -> None:
        await self._storage.touch(id, at)

    async def note_use(self, id: SessionId, use: TokenUse, *, generation: int, window: timedelta) -> None:
        await self._storage.note_use(id, use, generation=generation, window=window)

    async def delete(self, event: Deleted) -> bool:
        return await self._storage.delete(self._hidden_event(event))

    async def revoke_user(
        self, user_id: str, now: datetime, *, actor: str, reason: str | None, except_session: SessionId | None
    ) -> Revocation:
        self._ids.check(user_id)
        done = await self._storage.revoke_user(
            self._ids.hide(user_id), now, actor=actor, reason=reason, except_session=except_session
        )
        return Revocation(done.epoch, [self._shown_event(event) for event in done.events])

    async def list(self, filter: SessionFilter, page: Page) -> SessionPage:
        found = await self._storage.list(self._hidden_filter(filter), page)
        return SessionPage([self._shown(session) for session in found.sessions], found.next_cursor)

    async def count(self, filter: SessionFilter) -> int:
        return await self._storage.count(self._hidden_filter(filter))

    async def overdue(self, now: datetime, limit: int) -> Sequence[Session]:
        return [self._shown(session) for session in await self._storage.overdue(now, limit)]

    async def ended_before(self, moment: datetime, limit: int) -> Sequence[Session]:
        return [self._shown(session) for session in await self._storage.ended_before(moment, limit)]

    async def statistics(self, now: datetime) -> StorageStatistics:
        return await self._storage.statistics(now)

    async def ping(self) -> None:
        await self._storage.ping()

    def degradations(self) -> Mapping[str, str]:
        return self._storage.degradations()

    # --- names ----------------------------------------------------------------------------------------

    def _hidden(self, session: Session) -> Session:
        return replace(session, user_id=self._ids.hide(session.user_id)) if self._ids.are_hidden else session

    def _shown(self, session: Session) -> Session:
        return replace(session, user_id=self._ids.show(session.user_id)) if self._ids.are_hidden else session

    def _hidden_event(self, event: Event) -> Event:
        return replace(event, user=self._ids.hide(event.user)) if self._ids.are_hidden else event

    def _shown_event(self, event: Event) -> Event:
        return replace(event, user=self._ids.show(event.user)) if self._ids.are_hidden else event

    def _hidden_filter(self, filter: SessionFilter) -> SessionFilter:
        return filter if filter.user_id is None else replace(filter, user_id=self._ids.hide(filter.user_id))


class MovableHiddenUsers(HiddenUsers):
    """The same around a storage that can be copied: users are shown to whoever copies, and hidden where it is taken."""

    def __init__(self, storage: MovableSessions, user_ids: UserIds) -> None:
        super().__init__(storage, user_ids)
        self._movable = storage

    async def export_sessions(self, partition: int) -> AsyncIterator[Sequence[SessionItem | Unreadable]]:
        async for batch in self._movable.export_sessions(partition):
            yield [
                each if isinstance(each, Unreadable) else replace(each, session=self._shown(each.session))
                for each in batch
            ]

    async def export_epochs(self) -> AsyncIterator[Sequence[EpochItem | Unreadable]]:
        async for batch in self._movable.export_epochs():
            yield [
                each if isinstance(each, Unreadable) else replace(each, user=self._ids.show(each.user))
                for each in batch
            ]

    async def take_in(self, partition: int, items: Sequence[PartitionItem]) -> None:
        """As ``MovableSessions.take_in``. Raises ``InvalidInput`` for a user whose id is too long to be hidden."""
        await self._movable.take_in(partition, [self._hidden_item(item) for item in items])

    def export_checkpoints(self) -> AsyncIterator[Sequence[CheckpointItem]]:
        return self._movable.export_checkpoints()

    async def take_in_checkpoints(self, items: Sequence[CheckpointItem]) -> None:
        await self._movable.take_in_checkpoints(items)

    def _hidden_item(self, item: PartitionItem) -> PartitionItem:
        match item:
            case SessionItem():
                self._ids.check(item.session.user_id)
                return replace(item, session=self._hidden(item.session))
            case EpochItem():
                self._ids.check(item.user)
                return replace(item, user=self._ids.hide(item.user))
            case EventItem():
                return replace(item, event=self._hidden_event(item.event))
            case _:
                return item


def hiding_users(storage: SessionStorage, user_ids: UserIds) -> SessionStorage:
    """``storage`` with its users hidden as soon as ``user_ids`` hides any; it can be copied if ``storage`` can."""
    if isinstance(storage, MovableSessions):
        return MovableHiddenUsers(storage, user_ids)
    return HiddenUsers(storage, user_ids)
