"""What is overdue is found, the most overdue first, however its deadline moved; what ended long ago too."""
# ruff: noqa: S101, D102  # these are tests, and their names are sentences

from datetime import timedelta

import pytest
from msgspec.structs import replace

from roomkey.domain.lifecycle import deadline
from roomkey.domain.session import (
    Deleted,
    Expired,
    Extended,
    Invalidated,
    Resumed,
    SessionState,
    Suspended,
)
from roomkey.testing.storage.suite import (
    MINUTE,
    NOON,
    ROOMY,
    SECOND,
    StorageSuite,
    change,
    disagreements,
    fact,
    found,
    issue,
    store,
)

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class DeadlineConformance(StorageSuite):
    """The work of the janitor."""

    async def test_the_most_overdue_come_first(self) -> None:
        async with self.open() as storage:
            sessions = [
                await store(storage, f"user-{number}", NOON + (number * 7 % 10) * MINUTE) for number in range(10)
            ]
            late = NOON + HOUR

            overdue = await storage.overdue(late, 100)

            assert list(overdue) == sorted(sessions, key=lambda session: session.created_at)
            assert list(await storage.overdue(late, 3)) == list(overdue)[:3]

    async def test_a_deadline_is_the_first_moment_of_being_overdue(self) -> None:
        async with self.open() as storage:
            session = await store(storage)
            due = deadline(session)
            assert due is not None

            before = await storage.overdue(due - timedelta(microseconds=1), 10)
            at = await storage.overdue(due, 10)

            assert list(before) == []
            assert list(at) == [session]

    async def test_an_activated_session_has_the_deadline_of_an_active_one(self) -> None:
        async with self.open() as storage:
            session = await store(storage, active=True)

            assert list(await storage.overdue(NOON + 59 * MINUTE, 10)) == []
            assert list(await storage.overdue(NOON + HOUR, 10)) == [session]

    async def test_an_idle_limit_shorter_than_the_one_before_is_found(self) -> None:
        policy = replace(ROOMY, idle_timeout=MINUTE)

        async with self.open() as storage:
            session = await store(storage, policy=policy, active=True)

            assert list(await storage.overdue(NOON + MINUTE, 10)) == [session]

    async def test_a_touched_session_is_not_overdue_and_later_is(self) -> None:
        async with self.open() as storage:
            session = await store(storage, active=True)
            await storage.touch(session.id, NOON + 30 * MINUTE)

            assert list(await storage.overdue(NOON + 80 * MINUTE, 10)) == []
            assert [each.id for each in await storage.overdue(NOON + 90 * MINUTE, 10)] == [session.id]

    async def test_the_order_is_that_of_true_deadlines(self) -> None:
        async with self.open() as storage:
            early = await store(storage, "early", NOON, active=True)
            late = await store(storage, "late", NOON + MINUTE, active=True)
            await storage.touch(early.id, NOON + 2 * MINUTE)

            overdue = await storage.overdue(NOON + DAY, 10)
            again = await storage.overdue(NOON + DAY, 10)

            assert [session.id for session in overdue] == [late.id, early.id]
            assert [session.id for session in again] == [late.id, early.id]

    async def test_a_suspended_session_waits_for_its_absolute_deadline(self) -> None:
        async with self.open() as storage:
            session = await change(storage, await store(storage, active=True), Suspended, NOON)

            assert list(await storage.overdue(NOON + DAY - SECOND, 10)) == []
            assert list(await storage.overdue(NOON + DAY, 10)) == [session]

    async def test_a_resumed_session_has_an_earlier_deadline_again(self) -> None:
        async with self.open() as storage:
            suspended = await change(storage, await store(storage, active=True), Suspended, NOON)
            assert list(await storage.overdue(NOON + 2 * HOUR, 10)) == []

            resumed = await change(storage, suspended, Resumed, NOON + 2 * HOUR)

            assert list(await storage.overdue(NOON + 3 * HOUR, 10)) == [resumed]

    @pytest.mark.parametrize("by", [timedelta(minutes=5), timedelta(days=14), timedelta(days=3653)])
    async def test_an_absolute_deadline_may_move_both_ways(self, by: timedelta) -> None:
        async with self.open() as storage:
            session = await change(storage, await store(storage, active=True), Suspended, NOON)

            moved = await change(storage, session, Extended, NOON, expires_at=NOON + by)

            assert list(await storage.overdue(NOON + by - SECOND, 10)) == []
            assert list(await storage.overdue(NOON + by, 10)) == [moved]
            assert await disagreements(storage) == []

    async def test_what_has_ended_or_gone_is_not_overdue(self) -> None:
        async with self.open() as storage:
            await change(storage, await store(storage), Expired, NOON)
            await change(storage, await store(storage), Invalidated, NOON)
            gone = await store(storage)
            await storage.delete(fact(gone, Deleted, NOON))

            assert list(await storage.overdue(NOON + 10 * DAY, 10)) == []

    async def test_a_backlog_is_worked_off_in_order(self) -> None:
        async with self.open() as storage:
            new = [issue(f"user-{number}", NOON + number * SECOND) for number in range(120)]
            await storage.create(new, ROOMY, NOON)
            late = NOON + DAY
            expired: list[str] = []

            while batch := await storage.overdue(late, 50):
                for session in batch:
                    expired.append(session.id)
                    await change(storage, session, Expired, late)

            assert expired == [each.session.id for each in new]
            assert await disagreements(storage) == []

    async def test_many_early_entries_hide_nobody(self) -> None:
        async with self.open() as storage:
            lively = [await store(storage, f"user-{number}", active=True) for number in range(60)]
            for session in lively:
                await storage.touch(session.id, NOON + 59 * MINUTE)
            quiet = await store(storage, "quiet", NOON + 30 * MINUTE, active=True)

            assert list(await storage.overdue(NOON + 100 * MINUTE, 5)) == [quiet]

    async def test_what_ended_before_a_moment_is_found(self) -> None:
        async with self.open() as storage:
            first = await change(storage, await store(storage), Invalidated, NOON + SECOND)
            second = await change(storage, await store(storage, "bob"), Expired, NOON + 2 * SECOND)
            await store(storage, "live")

            assert list(await storage.ended_before(NOON + SECOND, 10)) == []
            assert list(await storage.ended_before(NOON + 2 * SECOND, 10)) == [first]
            assert list(await storage.ended_before(NOON + DAY, 10)) == [first, second]
            assert list(await storage.ended_before(NOON + DAY, 1)) == [first]

    async def test_the_last_event_counts_for_having_ended(self) -> None:
        async with self.open() as storage:
            expired = await change(storage, await store(storage), Expired, NOON)
            revoked = await change(storage, expired, Invalidated, NOON + DAY)

            assert list(await storage.ended_before(NOON + DAY, 10)) == []
            assert list(await storage.ended_before(NOON + 2 * DAY, 10)) == [revoked]
            assert (await storage.statistics(NOON)).ended == 1

    async def test_what_is_purged_is_gone_from_every_index(self) -> None:
        async with self.open() as storage:
            over = await change(storage, await store(storage), Expired, NOON)

            await storage.delete(fact(over, Deleted, NOON + DAY))

            assert list(await storage.ended_before(NOON + 9 * DAY, 10)) == []
            assert await disagreements(storage) == []

    async def test_an_evicted_session_can_be_purged(self) -> None:
        policy = replace(ROOMY, cap=1)

        async with self.open() as storage:
            victim = await store(storage, policy=policy)
            await store(storage, at=NOON + SECOND, policy=policy)

            (over,) = await storage.ended_before(NOON + DAY, 10)

            assert over == await found(storage, victim.id)
            assert over.state is SessionState.INVALIDATED
