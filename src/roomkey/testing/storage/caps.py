"""No user has more live sessions than the policy allows; the oldest makes room, or the new one is refused."""
# ruff: noqa: S101, D102  # these are tests, and their names are sentences

from datetime import timedelta

import pytest

from roomkey.domain.policy import OnCap, SessionPolicy
from roomkey.domain.session import Activated, Evicted, Invalidated, SessionFilter, SessionState, Suspended
from roomkey.errors import CapReached
from roomkey.testing.storage.suite import (
    MINUTE,
    NOON,
    SECOND,
    StorageSuite,
    change,
    disagreements,
    everything,
    found,
    history,
    issue,
    store,
    whole_log,
)

THREE = SessionPolicy(cap=3)
REFUSING = SessionPolicy(cap=3, on_cap=OnCap.REFUSE)


class CapConformance(StorageSuite):
    """The cap. What happens when many come at once is tested with the races."""

    async def test_the_oldest_makes_room(self) -> None:
        async with self.open() as storage:
            # Stored in another order than they were made in.
            middle = await store(storage, at=NOON + SECOND)
            oldest = await store(storage, at=NOON)
            newest = await store(storage, at=NOON + 2 * SECOND, active=True)

            evicted = await storage.create([issue(at=NOON + MINUTE)], THREE, NOON + MINUTE)

            assert [event.session for event in evicted] == [oldest.id]
            assert evicted == (await history(storage, oldest.id))[1:]
            assert (await found(storage, oldest.id)).state is SessionState.INVALIDATED
            assert (await found(storage, middle.id)).state.is_live
            assert (await found(storage, newest.id)).state.is_live
            assert await disagreements(storage) == []

    async def test_of_those_issued_at_the_same_moment_the_smallest_id_goes(self) -> None:
        async with self.open() as storage:
            twins = sorted([(await store(storage)).id for _ in range(3)])

            evicted = await storage.create([issue(at=NOON + SECOND)], THREE, NOON + SECOND)

            assert [event.session for event in evicted] == twins[:1]

    async def test_several_make_room_for_several(self) -> None:
        async with self.open() as storage:
            old = [await store(storage, at=NOON + number * SECOND) for number in range(3)]

            evicted = await storage.create([issue(at=NOON + MINUTE) for _ in range(2)], THREE, NOON + MINUTE)

            assert [event.session for event in evicted] == [old[0].id, old[1].id]
            assert all(type(event) is Evicted for event in evicted)
            assert await disagreements(storage) == []

    async def test_a_batch_beyond_the_cap_is_refused_whole(self) -> None:
        async with self.open() as storage:
            kept = await store(storage)

            with pytest.raises(CapReached):
                await storage.create([issue() for _ in range(4)], THREE, NOON)

            assert [session.id for session in await everything(storage)] == [kept.id]
            assert len(await whole_log(storage)) == 1
            assert await disagreements(storage) == []

    async def test_a_refusal_leaves_no_trace(self) -> None:
        async with self.open() as storage:
            for _ in range(3):
                await store(storage)

            with pytest.raises(CapReached):
                await storage.create([issue()], REFUSING, NOON)

            assert await storage.count(SessionFilter(user_id="alice")) == 3
            assert len(await whole_log(storage)) == 3
            assert (await storage.statistics(NOON)).created_today == 3
            assert await disagreements(storage) == []

    async def test_what_has_ended_does_not_count(self) -> None:
        async with self.open() as storage:
            for _ in range(3):
                await change(storage, await store(storage), Invalidated, NOON)

            await storage.create([issue() for _ in range(3)], REFUSING, NOON)

            assert await storage.count(SessionFilter(user_id="alice", state=SessionState.PENDING)) == 3

    async def test_what_is_overdue_neither_counts_nor_is_evicted(self) -> None:
        async with self.open() as storage:
            late = [await store(storage) for _ in range(3)]
            now = NOON + timedelta(minutes=10)

            evicted = await storage.create([issue(at=now) for _ in range(3)], REFUSING, now)

            assert evicted == []
            assert [await storage.get(session.id) for session in late] == late

    async def test_activity_keeps_a_session_counting(self) -> None:
        async with self.open() as storage:
            idle = [await store(storage, active=True) for _ in range(3)]
            await storage.touch(idle[0].id, NOON + timedelta(minutes=50))
            now = NOON + timedelta(minutes=70)  # two of the three have been idle for an hour

            await storage.create([issue(at=now) for _ in range(2)], REFUSING, now)
            with pytest.raises(CapReached):
                await storage.create([issue(at=now)], REFUSING, now)

            assert await storage.count(SessionFilter(user_id="alice")) == 5

    async def test_users_do_not_evict_one_another(self) -> None:
        async with self.open() as storage:
            for number in range(3):
                await store(storage, "bob", NOON - number * MINUTE)

            evicted = await storage.create([issue("bobby"), issue("bo"), issue("alice")], THREE, NOON)

            assert evicted == []

    async def test_a_suspended_session_counts(self) -> None:
        async with self.open() as storage:
            for _ in range(3):
                session = await store(storage)
                active = await change(storage, session, Activated, NOON)
                await change(storage, active, Suspended, NOON)

            with pytest.raises(CapReached):
                await storage.create([issue()], REFUSING, NOON)

            assert await storage.count(SessionFilter(state=SessionState.SUSPENDED)) == 3
