"""The log has every event once, in order and without holes, and history leads to what is stored."""
# ruff: noqa: S101, D102  # these are tests, and their names are sentences

import asyncio
from datetime import timedelta
from random import Random
from typing import cast

import pytest

from roomkey.domain.access import Access, Grant
from roomkey.domain.lifecycle import NEXT_STATE, apply, replay
from roomkey.domain.session import (
    Activated,
    Evicted,
    GrantsChanged,
    Session,
    SessionEvent,
    Suspended,
    ViolationRecorded,
    partition_of,
)
from roomkey.errors import LeaseLost
from roomkey.ports import SessionStorage
from roomkey.testing.storage.suite import (
    NOON,
    ROOMY,
    SECOND,
    StorageSuite,
    change,
    details,
    disagreements,
    fact,
    found,
    history,
    issue,
    partition_log,
    store,
    whole_log,
)

ALICE = partition_of("alice")


class LogConformance(StorageSuite):
    """``EventLog``."""

    async def test_an_empty_log_is_empty(self) -> None:
        async with self.open() as storage:
            assert dict(await storage.heads()) == {}
            assert list(await storage.events(ALICE)) == []
            assert await storage.purge_events(NOON) == 0

    async def test_events_are_numbered_from_one(self) -> None:
        async with self.open() as storage:
            await store(storage, active=True)

            logged = await storage.events(ALICE)

            assert [each.sequence for each in logged] == [1, 2]
            assert dict(await storage.heads()) == {ALICE: 2}

    async def test_a_follower_continues_where_it_was(self) -> None:
        async with self.open() as storage:
            for number in range(10):
                await store(storage, at=NOON + number * SECOND)
            events = await partition_log(storage, ALICE)

            page = await storage.events(ALICE, after=3, limit=4)

            assert [each.sequence for each in page] == [4, 5, 6, 7]
            assert [each.event for each in page] == events[3:7]
            assert list(await storage.events(ALICE, after=10)) == []
            assert list(await storage.events(ALICE, after=10**12)) == []
            assert list(await storage.events(ALICE, after=0, limit=0)) == []

    async def test_partitions_have_logs_of_their_own(self) -> None:
        users = [f"user-{number}" for number in range(600)]

        async with self.open() as storage:
            await storage.create([issue(user) for user in users], ROOMY, NOON)
            await storage.create([issue(user) for user in users], ROOMY, NOON)

            assert sum((await storage.heads()).values()) == 1200
            for partition in range(256):
                expected = [user for user in users if partition_of(user) == partition] * 2
                assert sorted(event.user for event in await partition_log(storage, partition)) == sorted(expected)
            assert await disagreements(storage) == []

    async def test_many_writers_leave_no_hole(self) -> None:
        async with self.open() as storage:
            async with asyncio.TaskGroup() as group:
                for number in range(100):
                    group.create_task(store(storage, f"user-{number % 5}", active=True))

            assert len(await whole_log(storage)) == 200
            assert await disagreements(storage) == []

    async def test_a_commit_is_in_the_log_when_it_returns(self) -> None:
        async with self.open() as storage:
            for expected in range(1, 20):
                await store(storage)

                assert (await storage.heads())[ALICE] == expected

    async def test_history_leads_to_what_is_stored(self) -> None:
        random = Random(7)  # noqa: S311  # a test wants the same numbers each time

        async with self.open() as storage:
            for _ in range(20):
                session = await self._wander(storage, random)

                events = await history(storage, session.id)
                assert [event.version for event in events] == list(range(1, session.version + 1))
                assert replay(events) == await found(storage, session.id) == session
            assert await disagreements(storage) == []

    async def _wander(self, storage: SessionStorage, random: Random) -> Session:
        """Let anything happen to a session that can."""
        new = issue()
        await storage.create([new], ROOMY, NOON)
        session = new.session
        for step in range(1, random.randrange(12)):
            possible = sorted(NEXT_STATE[session.state], key=lambda kind: kind.tag())
            if not possible:
                break
            kind = cast("type[SessionEvent]", random.choice(possible))
            at = NOON + step * SECOND
            event = fact(session, kind, at, **details(kind, at))
            after = apply(session, event)
            await storage.update(after, event)
            session = after
        return session

    async def test_every_kind_of_fact_can_be_read_again(self) -> None:
        grants = (Grant("\N{ROCKET}/*", Access.READ), Grant("**", Access.ADMIN))

        async with self.open() as storage:
            session = await change(storage, await store(storage), Activated, NOON)
            session = await change(storage, session, GrantsChanged, NOON, grants=grants)
            session = await change(storage, session, ViolationRecorded, NOON, reason="flood")
            session = await change(storage, session, Suspended, NOON, actor="key:\N{ROCKET}")
            await change(storage, session, Evicted, NOON)

            events: list[SessionEvent] = await history(storage, session.id)

            assert [event.tag() for event in events] == [
                "created",
                "activated",
                "grants_changed",
                "violation_recorded",
                "suspended",
                "evicted",
            ]
            stored = await found(storage, session.id)
            assert (stored.violations, stored.grants) == (1, grants)

    async def test_old_events_are_forgotten_from_the_front(self) -> None:
        async with self.open() as storage:
            for number in range(10):
                await store(storage, "alice", NOON + number * SECOND)
                await store(storage, "bob", NOON + number * SECOND)

            purged = await storage.purge_events(NOON + 4 * SECOND)

            assert purged == 8
            for partition in (ALICE, partition_of("bob")):
                assert [each.sequence for each in await storage.events(partition)] == [5, 6, 7, 8, 9, 10]
                assert [each.sequence for each in await storage.events(partition, after=7, limit=2)] == [8, 9]
                assert (await storage.heads())[partition] == 10
            assert await storage.purge_events(NOON + 4 * SECOND) == 0

    async def test_forgetting_keeps_to_its_limit(self) -> None:
        async with self.open() as storage:
            for user in ("alice", "bob"):
                for _ in range(5):
                    await store(storage, user)

            purged = [await storage.purge_events(NOON + SECOND, limit=4) for _ in range(4)]

            assert purged == [4, 4, 2, 0]

    async def test_an_event_out_of_time_shelters_those_behind_it_only(self) -> None:
        async with self.open() as storage:
            await store(storage, "alice", NOON + timedelta(days=1))
            await store(storage, "alice", NOON)
            await store(storage, "bob", NOON)

            purged = await storage.purge_events(NOON + SECOND)

            assert purged == 1
            assert len(await storage.events(ALICE)) == 2
            assert list(await storage.events(partition_of("bob"))) == []

    async def test_numbers_go_on_after_everything_was_forgotten(self) -> None:
        async with self.open() as storage:
            for _ in range(3):
                await store(storage)
            await storage.purge_events(NOON + SECOND)

            await store(storage)

            assert [each.sequence for each in await storage.events(ALICE)] == [4]
            assert dict(await storage.heads()) == {ALICE: 4}

    async def test_a_long_log_is_forgotten_piece_by_piece(self) -> None:
        async with self.open() as storage:
            for round in range(8):
                at = NOON + round * SECOND
                await storage.create([issue(f"user-{number}", at) for number in range(200)], ROOMY, at)

            purged = [await storage.purge_events(NOON + round * SECOND) for round in range(9)]

            assert purged == [0, *[200] * 8]
            assert await whole_log(storage) == []
            await store(storage, "user-7")
            partition = partition_of("user-7")
            assert [each.sequence for each in await storage.events(partition)] == [(await storage.heads())[partition]]

    async def test_who_has_lost_the_lease_purges_nothing(self) -> None:
        async with self.open() as storage:
            await store(storage, "alice")
            await storage.purge_events(NOON, fence=7)

            with pytest.raises(LeaseLost):
                await storage.purge_events(NOON + SECOND, fence=6)

            assert len(await whole_log(storage)) == 1
            assert await storage.purge_events(NOON + SECOND, fence=7) == 1
