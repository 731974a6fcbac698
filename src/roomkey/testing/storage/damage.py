"""A damaged record is reported, shows nothing of what it contains, and harms no other session."""
# ruff: noqa: S101, D102  # these are tests, and their names are sentences

import pytest

from roomkey.domain.session import Session, SessionFilter, SessionState, Suspended
from roomkey.errors import Serialization
from roomkey.ports import SessionStorage
from roomkey.testing.requirements import needs
from roomkey.testing.storage.suite import MINUTE, NOON, SECOND, StorageSuite, change, found, store


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
                await storage.get_many([broken.id])
            with pytest.raises(Serialization):
                await change(storage, broken, Suspended, NOON)

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
    async def test_the_user_can_still_be_revoked(self) -> None:
        async with self.open() as storage:
            await self._damaged(storage)
            other = await store(storage, "alice", active=True)

            done = await storage.revoke_user("alice", NOON, actor="system", cause=None, except_session=None)

            assert done.epoch == 1
            assert (await found(storage, other.id)).state is SessionState.INVALIDATED

    @needs("corrupt")
    async def test_the_janitor_is_not_stopped(self) -> None:
        async with self.open() as storage:
            _, sound = await self._damaged(storage)

            overdue = await storage.overdue(sound.expires_at + MINUTE, 10)

            assert list(overdue) == [sound]

    async def _damaged(self, storage: SessionStorage) -> tuple[Session, Session]:
        """A session of alice whose record is damaged, and one of bob whose record is not."""
        broken = await store(storage, "alice", active=True)
        sound = await store(storage, "bob", active=True)
        if not await self.corrupt(storage, broken.id):
            pytest.skip("records of this storage cannot be damaged")
        return broken, sound
