"""A damaged record is reported, shows nothing of what it contains, and harms no other session."""
# ruff: noqa: S101, D102  # these are tests, and their names are sentences

import pytest

from roomkey.domain.lifecycle import apply
from roomkey.domain.policy import OnCap, SessionPolicy
from roomkey.domain.session import (
    Deleted,
    Invalidated,
    Resumed,
    Session,
    SessionFilter,
    SessionId,
    SessionState,
    Suspended,
    partition_of,
)
from roomkey.errors import CapReached, Serialization
from roomkey.ports import SessionStorage
from roomkey.testing.requirements import needs
from roomkey.testing.storage.suite import (
    MINUTE,
    NOON,
    SECOND,
    StorageSuite,
    change,
    everything,
    fact,
    found,
    store,
)


class DamageConformance(StorageSuite):
    """What ``corrupt`` brings about."""

    @needs("corrupt")
    async def test_a_damaged_record_is_reported_and_not_replaced(self) -> None:
        async with self.open() as storage:
            broken, _ = await self._damaged(storage)

            with pytest.raises(Serialization) as caught:
                await storage.get(broken.id)
            with pytest.raises(Serialization):
                await storage.get_with_secret(broken.id)
            with pytest.raises(Serialization):
                await change(storage, broken, Suspended, NOON)
            with pytest.raises(Serialization):
                await storage.delete(fact(broken, Deleted, NOON))

            assert "alice" not in str(caught.value)
            assert caught.value.__cause__ is None

    @needs("corrupt")
    async def test_the_others_go_on(self) -> None:
        async with self.open() as storage:
            broken, sound = await self._damaged(storage)

            after = await change(storage, sound, Suspended, NOON)
            created = await store(storage, "carol")
            await storage.touch(sound.id, NOON + SECOND)

            assert (await found(storage, sound.id)).state is after.state
            assert await storage.get(created.id) == created
            assert await storage.count(SessionFilter()) == 3
            assert broken.id != sound.id

    @needs("corrupt")
    async def test_lists_go_on_without_it(self) -> None:
        async with self.open() as storage:
            _, sound = await self._damaged(storage)
            other = await store(storage, "alice", NOON + SECOND)

            assert {session.id for session in await everything(storage, limit=1)} == {sound.id, other.id}
            assert await everything(storage, SessionFilter(user_id="alice"), limit=1) == [other]
            # Whoever counts without reading the records cannot know that one is damaged.
            assert await storage.count(SessionFilter(user_id="alice")) in {1, 2}
            assert await storage.count(SessionFilter(created_before=NOON + MINUTE)) in {2, 3}

    @needs("corrupt")
    async def test_of_many_only_that_one_is_missing(self) -> None:
        async with self.open() as storage:
            broken, sound = await self._damaged(storage)
            event = fact(sound, Suspended, NOON)
            changes = [(broken, fact(broken, Suspended, NOON)), (apply(sound, event), event)]

            found = await storage.get_many([broken.id, sound.id])
            done = await storage.update_many(changes)

            assert found == [None, sound]
            assert done == [False, True]

    @needs("corrupt")
    async def test_it_takes_no_place_under_the_cap(self) -> None:
        async with self.open() as storage:
            broken, _ = await self._damaged(storage)
            policy = SessionPolicy(cap=1, on_cap=OnCap.REFUSE)

            created = await store(storage, broken.user_id, policy=policy)

            assert await storage.get(created.id) == created
            with pytest.raises(CapReached):
                await store(storage, broken.user_id, policy=policy)

    @needs("corrupt")
    async def test_touching_it_harms_no_other(self) -> None:
        async with self.open() as storage:
            broken, sound = await self._damaged(storage)

            with pytest.raises(Serialization):
                await storage.touch(broken.id, NOON + SECOND)
            await storage.touch(sound.id, NOON + SECOND)

            assert (await found(storage, sound.id)).last_seen_at == NOON + SECOND

    @needs("corrupt")
    async def test_the_user_can_still_be_revoked(self) -> None:
        async with self.open() as storage:
            await self._damaged(storage)
            other = await store(storage, "alice", active=True)

            done = await storage.revoke_user("alice", NOON, actor="system", reason=None, except_session=None)

            assert done.epoch == 1
            assert (await found(storage, other.id)).state is SessionState.INVALIDATED

    @needs("corrupt")
    async def test_the_janitor_is_not_stopped(self) -> None:
        async with self.open() as storage:
            _, sound = await self._damaged(storage)

            overdue = await storage.overdue(sound.expires_at + MINUTE, 10)

            assert list(overdue) == [sound]

    @needs("corrupt")
    async def test_ended_sessions_are_found_around_it(self) -> None:
        async with self.open() as storage:
            broken = await change(storage, await store(storage, "alice", active=True), Invalidated, NOON)
            sound = await change(storage, await store(storage, "bob", active=True), Invalidated, NOON + SECOND)
            await self._corrupt(storage, broken.id)

            assert list(await storage.ended_before(NOON + MINUTE, 10)) == [sound]

    @needs("corrupt")
    async def test_operators_are_told(self) -> None:
        async with self.open() as storage:
            broken, _ = await self._damaged(storage)
            assert storage.degradations() == {}

            await everything(storage)

            assert len(storage.degradations()) == 1
            assert broken.user_id not in str(storage.degradations())

    @needs("corrupt_event")
    async def test_an_event_that_cannot_be_read_is_a_gap_in_front_of_the_next_answer(self) -> None:
        async with self.open() as storage:
            session = await store(storage, active=True)
            for second, kind in enumerate((Suspended, Resumed, Suspended)):
                session = await change(storage, session, kind, NOON + second * SECOND)
            partition = partition_of(session.user_id)
            if not await self.corrupt_event(storage, partition, 3):
                pytest.skip("events of this storage cannot be damaged")

            before = await storage.events(partition)
            behind = await storage.events(partition, 2)

            assert [each.sequence for each in before] == [1, 2]
            assert [each.sequence for each in behind] == [4, 5]

    @needs("corrupt_event")
    async def test_events_are_purged_around_one_that_cannot_be_read(self) -> None:
        async with self.open() as storage:
            session = await store(storage, active=True)
            session = await change(storage, session, Suspended, NOON + MINUTE)
            session = await change(storage, session, Resumed, NOON + 9 * MINUTE)
            partition = partition_of(session.user_id)
            await self.corrupt_event(storage, partition, 2)

            purged = await storage.purge_events(NOON + 2 * MINUTE)

            assert purged == 3
            assert [each.sequence for each in await storage.events(partition)] == [4]

    async def _damaged(self, storage: SessionStorage) -> tuple[Session, Session]:
        """A session of alice whose record is damaged, and one of bob whose record is not."""
        broken = await store(storage, "alice", active=True)
        sound = await store(storage, "bob", active=True)
        await self._corrupt(storage, broken.id)
        return broken, sound

    async def _corrupt(self, storage: SessionStorage, id: SessionId) -> None:
        if not await self.corrupt(storage, id):
            pytest.skip("records of this storage cannot be damaged")
