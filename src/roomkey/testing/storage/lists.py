"""Whoever follows the cursors meets every session that existed throughout exactly once."""
# ruff: noqa: S101, D102  # these are tests, and their names are sentences

from datetime import timedelta

import pytest

from roomkey.domain.session import (
    Activated,
    Deleted,
    Invalidated,
    Session,
    SessionFilter,
    SessionState,
)
from roomkey.errors import InvalidInput
from roomkey.ports import Page
from roomkey.testing.storage.suite import (
    MINUTE,
    NOON,
    ROOMY,
    SECOND,
    StorageSuite,
    change,
    everything,
    fact,
    issue,
    store,
)

ALICE = SessionFilter(user_id="alice")


class ListConformance(StorageSuite):
    """Lists, pages and counts."""

    async def test_a_users_sessions_come_oldest_first(self) -> None:
        async with self.open() as storage:
            times = [NOON + number * SECOND for number in (3, 1, 4, 0, 2)]
            sessions = [await store(storage, at=at) for at in times]
            ended = await change(storage, sessions[1], Invalidated, NOON + MINUTE)

            listed = await everything(storage, ALICE, limit=2)

            assert [session.created_at for session in listed] == sorted(times)
            assert ended in listed

    async def test_sessions_of_one_moment_are_all_listed(self) -> None:
        async with self.open() as storage:
            stored = {(await store(storage)).id for _ in range(20)}

            listed = [session.id for session in await everything(storage, ALICE, limit=1)]

            assert len(listed) == 20
            assert set(listed) == stored

    async def test_everybodys_sessions_are_listed_once(self) -> None:
        async with self.open() as storage:
            stored = {(await store(storage, f"user-{number % 40}")).id for number in range(100)}

            listed = [session.id for session in await everything(storage)]
            again = [session.id for session in await everything(storage, limit=33)]

            assert listed == again
            assert len(listed) == 100
            assert set(listed) == stored

    @pytest.mark.parametrize("filter", [SessionFilter(), ALICE])
    async def test_a_list_survives_what_happens_while_it_is_read(self, filter: SessionFilter) -> None:
        async with self.open() as storage:
            staying = [await store(storage, at=NOON + number * MINUTE) for number in range(40)]
            leaving = [await store(storage, at=NOON + number * MINUTE + SECOND) for number in range(40)]
            listed: list[Session] = []
            page = await storage.list(filter, Page(limit=3))

            while page.next_cursor is not None:
                listed.extend(page)
                for _ in range(min(2, len(leaving))):
                    await storage.delete(fact(leaving.pop(), Deleted, NOON))
                    await storage.create([issue(at=NOON + len(leaving) * MINUTE + 2 * SECOND)], ROOMY, NOON)
                    await change(storage, staying[len(leaving)], Activated, NOON)
                page = await storage.list(filter, Page(cursor=page.next_cursor, limit=3))
            listed.extend(page)

            for session in staying:
                assert [each.id for each in listed].count(session.id) == 1
            assert len({session.id for session in listed}) == len(listed)

    async def test_a_list_ends_even_if_its_end_is_deleted(self) -> None:
        async with self.open() as storage:
            sessions = [await store(storage, at=NOON + number * SECOND) for number in range(4)]
            page = await storage.list(ALICE, Page(limit=2))
            for session in sessions[1:]:
                await storage.delete(fact(session, Deleted, NOON))

            rest = await storage.list(ALICE, Page(cursor=page.next_cursor, limit=2))

            assert [session.id for session in page] == [sessions[0].id, sessions[1].id]
            assert rest.sessions == []
            assert rest.next_cursor is None

    async def test_filters_hold_together(self) -> None:
        async with self.open() as storage:
            for number in range(10):
                session = await store(storage, "alice" if number % 2 else "bob", NOON + number * SECOND)
                if number % 3 == 0:
                    await change(storage, session, Activated, NOON + MINUTE)
            filters = [
                SessionFilter(user_id=user, state=state, created_after=after, created_before=before)
                for user in (None, "alice", "carol")
                for state in (None, SessionState.ACTIVE, SessionState.EXPIRED)
                for after in (None, NOON + 2 * SECOND)
                for before in (None, NOON + 7 * SECOND)
            ]
            sessions = await everything(storage)

            for filter in filters:
                expected = {session.id for session in sessions if filter.matches(session)}
                assert {session.id for session in await everything(storage, filter)} == expected
                assert await storage.count(filter) == len(expected)

    async def test_the_bounds_of_time_are_exclusive(self) -> None:
        async with self.open() as storage:
            sessions = [await store(storage, at=NOON + number * timedelta(microseconds=1)) for number in range(3)]
            between = SessionFilter(created_after=sessions[0].created_at, created_before=sessions[2].created_at)

            assert await everything(storage, between) == [sessions[1]]

    async def test_a_list_shows_what_was_touched(self) -> None:
        async with self.open() as storage:
            session = await store(storage, active=True)
            await storage.touch(session.id, NOON + SECOND)

            (listed,) = await everything(storage)

            assert listed.last_seen_at == NOON + SECOND

    @pytest.mark.parametrize(
        "cursor", ["", "x", "\N{ROCKET}", "!" * 20, "a" * 10_000, "3a", "\ud800", "AAAAAAAAAAAA", "dXg"]
    )
    async def test_a_cursor_that_is_not_ours_is_refused(self, cursor: str) -> None:
        async with self.open() as storage:
            await store(storage)

            for filter in (SessionFilter(), ALICE):
                with pytest.raises(InvalidInput):
                    await storage.list(filter, Page(cursor=cursor))

    async def test_nobody_has_no_sessions(self) -> None:
        async with self.open() as storage:
            await store(storage)

            for user in ("", "nobody", "x" * 5000, "\ud800"):
                assert await everything(storage, SessionFilter(user_id=user)) == []
                assert await storage.count(SessionFilter(user_id=user)) == 0
