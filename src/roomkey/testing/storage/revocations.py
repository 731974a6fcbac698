"""Revoking a user ends every session that was issued before, whether or not any index lists it."""
# ruff: noqa: S101, D102  # these are tests, and their names are sentences

import pytest
from msgspec.structs import replace

from roomkey.domain.session import (
    Activated,
    Expired,
    Invalidated,
    Session,
    SessionFilter,
    SessionId,
    SessionState,
    Suspended,
    UserRevoked,
    partition_of,
)
from roomkey.errors import Conflict
from roomkey.ports import Revocation, SessionStorage
from roomkey.testing.requirements import needs
from roomkey.testing.storage.suite import (
    MINUTE,
    NOON,
    SECOND,
    StorageSuite,
    change,
    disagreements,
    everything,
    found,
    issue,
    partition_log,
    store,
)

LATER = NOON + MINUTE


async def revoke(
    storage: SessionStorage, user_id: str = "alice", *, keep: SessionId | None = None, reason: str | None = "theft"
) -> Revocation:
    """Revoke a user a minute after noon."""
    return await storage.revoke_user(user_id, LATER, actor="key:backend", reason=reason, except_session=keep)


class RevocationConformance(StorageSuite):
    """The epoch, and what it does."""

    async def test_a_session_that_had_ended_before_may_still_be_invalidated_for_the_record(self) -> None:
        async with self.open() as storage:
            expired = await change(storage, await store(storage, active=True), Expired, NOON)
            await revoke(storage)

            invalidated = await change(storage, expired, Invalidated, LATER)

            assert await found(storage, expired.id) == invalidated
            assert await disagreements(storage) == []

    async def test_every_live_session_of_the_user_is_ended(self) -> None:
        async with self.open() as storage:
            pending = await store(storage)
            active = await store(storage, active=True)
            suspended = await change(storage, await store(storage, active=True), Suspended, NOON)
            other = await store(storage, "alic", active=True)

            done = await revoke(storage)

            assert done.epoch == 1
            assert [type(event) for event in done.events] == [UserRevoked, Invalidated, Invalidated, Invalidated]
            for before in (pending, active, suspended):
                now = await found(storage, before.id)
                assert (now.state, now.version) == (SessionState.INVALIDATED, before.version + 1)
            assert await storage.get(other.id) == other
            assert await disagreements(storage) == []

    async def test_the_log_has_what_the_revocation_says(self) -> None:
        async with self.open() as storage:
            session = await store(storage, active=True)
            before = await partition_log(storage, partition_of("alice"))

            done = await revoke(storage)

            assert (await partition_log(storage, partition_of("alice")))[len(before) :] == done.events
            root, ended = done.events
            assert root == UserRevoked(user="alice", epoch=1, at=LATER, actor="key:backend", reason="theft")
            assert ended == Invalidated(
                session=session.id, user="alice", version=3, at=LATER, actor="key:backend", reason="theft"
            )

    async def test_the_epoch_rises_each_time_even_without_sessions(self) -> None:
        async with self.open() as storage:
            epochs = [(await revoke(storage)).epoch for _ in range(3)]

            assert epochs == [1, 2, 3]
            assert (await revoke(storage, "bob")).epoch == 1
            assert len(await partition_log(storage, partition_of("alice"))) == 3

    async def test_what_is_issued_afterwards_lives(self) -> None:
        async with self.open() as storage:
            await store(storage)
            await revoke(storage)

            session = await store(storage, at=LATER, active=True)

            assert await storage.get(session.id) == session
            assert await disagreements(storage) == []

    async def test_one_session_can_be_kept(self) -> None:
        async with self.open() as storage:
            mine = await store(storage, active=True)
            other = await store(storage, active=True)

            done = await revoke(storage, keep=mine.id)
            again = await revoke(storage, keep=mine.id)

            assert isinstance(done.events[0], UserRevoked)
            assert done.events[0].session == mine.id
            assert len(done.events) == 2
            assert len(again.events) == 1
            assert await storage.get(mine.id) == mine
            assert (await found(storage, other.id)).state is SessionState.INVALIDATED
            after = await change(storage, mine, Suspended, LATER)
            assert await storage.get(mine.id) == after
            assert await disagreements(storage) == []

    async def test_a_kept_session_is_ended_by_the_next_revocation(self) -> None:
        async with self.open() as storage:
            mine = await store(storage, active=True)
            await revoke(storage, keep=mine.id)

            await revoke(storage)

            assert (await found(storage, mine.id)).state is SessionState.INVALIDATED

    async def test_nobody_elses_session_can_be_kept(self) -> None:
        async with self.open() as storage:
            mine = await store(storage, "alice", active=True)
            bobs = await store(storage, "bob", active=True)

            for stranger in (bobs.id, issue().session.id, SessionId("no such id")):
                done = await revoke(storage, keep=stranger)
                assert isinstance(done.events[0], UserRevoked)
                assert done.events[0].session is None

            assert (await found(storage, mine.id)).state is SessionState.INVALIDATED
            assert await storage.get(bobs.id) == bobs

    async def test_a_change_in_flight_does_not_undo_it(self) -> None:
        async with self.open() as storage:
            session = await store(storage)
            await revoke(storage)

            with pytest.raises(Conflict):
                await change(storage, session, Activated, LATER)
            await storage.touch(session.id, LATER + SECOND)

            assert (await found(storage, session.id)).state is SessionState.INVALIDATED
            assert await disagreements(storage) == []

    @needs("lose_index")
    async def test_what_no_index_lists_is_dead_too(self) -> None:
        async with self.open() as storage:
            session = await self._forgotten(storage)

            done = await revoke(storage)

            dead = replace(session, state=SessionState.INVALIDATED)
            assert len(done.events) == 1
            assert await storage.get(session.id) == dead
            assert await storage.get_many([session.id]) == [dead]
            secret = await storage.get_with_secret(session.id)
            assert secret is not None
            assert secret[0] == dead
            assert await everything(storage) == [dead]

    @needs("lose_index")
    async def test_what_no_index_lists_cannot_be_changed_back(self) -> None:
        async with self.open() as storage:
            session = await self._forgotten(storage)
            await revoke(storage)

            with pytest.raises(Conflict):
                await change(storage, session, Suspended, LATER)
            event = Suspended(session=session.id, user="alice", version=session.version + 1, at=LATER)
            outcomes = await storage.update_many(
                [(replace(session, state=SessionState.SUSPENDED, version=session.version + 1), event)]
            )
            await storage.touch(session.id, LATER + SECOND)

            assert outcomes == [False]
            assert (await found(storage, session.id)).state is SessionState.INVALIDATED

    @needs("lose_index")
    async def test_the_dead_cannot_be_kept_by_a_later_revocation(self) -> None:
        async with self.open() as storage:
            session = await self._forgotten(storage)
            await revoke(storage)

            await revoke(storage, keep=session.id)

            assert (await found(storage, session.id)).state is SessionState.INVALIDATED

    @needs("lose_index")
    async def test_the_dead_that_no_index_lists_do_not_keep_the_janitor_busy(self) -> None:
        async with self.open() as storage:
            session = await self._forgotten(storage)
            await revoke(storage)
            late = session.expires_at + MINUTE

            overdue = await storage.overdue(late, 10)

            assert overdue == []

    async def test_ended_sessions_stay_as_they_ended(self) -> None:
        async with self.open() as storage:
            over = await change(storage, await store(storage), Expired, NOON)

            done = await revoke(storage)

            assert len(done.events) == 1
            assert await storage.get(over.id) == over
            assert await storage.count(SessionFilter(state=SessionState.EXPIRED)) == 1
            assert await disagreements(storage) == []

    async def _forgotten(self, storage: SessionStorage) -> Session:
        session = await store(storage, active=True)
        if not await self.lose_index(storage, "alice"):
            pytest.skip("this storage cannot be made to lose its index")
        assert await everything(storage, SessionFilter(user_id="alice")) == []
        return session
