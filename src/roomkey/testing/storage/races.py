"""A hundred tasks at once: one winner per version, never more than the cap, nothing half done."""
# ruff: noqa: S101, D102  # these are tests, and their names are sentences

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from random import Random

from roomkey.domain.lifecycle import replay
from roomkey.domain.policy import OnCap, SessionPolicy
from roomkey.domain.session import (
    Activated,
    Created,
    Deleted,
    Evicted,
    Extended,
    GrantsChanged,
    Invalidated,
    SessionFilter,
    SessionId,
    SessionState,
    Suspended,
    ViolationRecorded,
)
from roomkey.errors import CapReached, Conflict, InvalidState, NotFound
from roomkey.testing.storage.suite import (
    NOON,
    ROOMY,
    SECOND,
    StorageSuite,
    change,
    details,
    disagreements,
    everything,
    fact,
    found,
    history,
    issue,
    store,
    whole_log,
)

TASKS = 100
ALICE = SessionFilter(user_id="alice")


async def at_once(*actions: Callable[[], Awaitable[object]]) -> int:
    """Run all together; how many were not refused."""

    async def attempt(action: Callable[[], Awaitable[object]]) -> bool:
        try:
            await action()
        except (Conflict, NotFound, InvalidState, CapReached):
            return False
        return True

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(attempt(action)) for action in actions]
    return sum(task.result() for task in tasks)


class RaceConformance(StorageSuite):
    """What holds under any interleaving."""

    async def test_a_version_has_one_winner(self) -> None:
        async with self.open() as storage:
            session = await store(storage, active=True)
            kinds = (Suspended, Invalidated, ViolationRecorded)

            won = await at_once(
                *(
                    lambda number=number: change(storage, session, kinds[number % 3], NOON + number * SECOND)
                    for number in range(TASKS)
                )
            )

            assert won == 1
            assert (await found(storage, session.id)).version == session.version + 1
            assert await disagreements(storage) == []

    async def test_mixed_commands_on_one_session_leave_one_history(self) -> None:
        random = Random(11)  # noqa: S311  # a test wants the same numbers each time

        async with self.open() as storage:
            id = (await store(storage)).id

            async def command(number: int) -> None:
                session = await storage.get(id)
                if session is None:
                    return
                kind = random.choice([Activated, Suspended, Extended, GrantsChanged, ViolationRecorded, Invalidated])
                at = NOON + number * SECOND
                if number % 4 == 0:
                    await storage.touch(id, at)
                elif number % 25 == 24:
                    await storage.revoke_user("alice", at, actor="system", reason=None, except_session=id)
                else:
                    await change(storage, session, kind, at, **details(kind, at))

            await at_once(*(lambda number=number: command(number) for number in range(TASKS)))

            session = await found(storage, id)
            events = await history(storage, id)
            assert [event.version for event in events] == list(range(1, session.version + 1))
            replayed = replay(events)
            assert replayed is not None
            assert replayed.state is session.state
            assert await disagreements(storage) == []

    async def test_a_logout_is_final_whatever_else_happens(self) -> None:
        async with self.open() as storage:
            session = await store(storage, active=True)

            async def logout() -> None:
                while True:
                    now = await found(storage, session.id)
                    try:
                        await change(storage, now, Invalidated, NOON)
                    except Conflict:
                        continue
                    return

            async def disturb() -> None:
                await change(storage, await found(storage, session.id), ViolationRecorded, NOON)

            await at_once(*([disturb] * (TASKS // 2)), logout, *([disturb] * (TASKS // 2)))

            assert (await found(storage, session.id)).state is SessionState.INVALIDATED
            assert (await history(storage, session.id))[-1].tag() == "invalidated"
            assert await disagreements(storage) == []

    async def test_deleting_has_one_winner_too(self) -> None:
        async with self.open() as storage:
            session = await store(storage)

            async def delete() -> None:
                if not await storage.delete(fact(session, Deleted, NOON)):
                    raise NotFound("someone else did")

            won = await at_once(*[delete] * TASKS)

            assert won == 1
            assert await storage.get(session.id) is None
            assert await disagreements(storage) == []

    async def test_the_cap_holds_when_many_come_at_once(self) -> None:
        policy = SessionPolicy(cap=7)
        new = [issue(at=NOON + number * SECOND) for number in range(TASKS)]

        async with self.open() as storage:
            watching = asyncio.Event()

            async def watch() -> int:
                most = 0
                while not watching.is_set():
                    live = [session for session in await everything(storage, ALICE, limit=500) if session.state.is_live]
                    most = max(most, len(live))
                    await asyncio.sleep(0)
                return most

            async with asyncio.TaskGroup() as group:
                watcher = group.create_task(watch())
                won = await at_once(*(lambda each=each: storage.create([each], policy, NOON) for each in new))
                watching.set()

            live = [session for session in await everything(storage, ALICE, limit=500) if session.state.is_live]
            assert won == TASKS
            assert watcher.result() <= 7
            assert len(live) == 7
            assert await disagreements(storage) == []

    async def test_whoever_makes_room_is_the_oldest_at_that_moment(self) -> None:
        policy = SessionPolicy(cap=7)
        new = [issue(at=NOON + number * SECOND) for number in range(TASKS)]
        Random(5).shuffle(new)  # noqa: S311  # a test wants the same numbers each time

        async with self.open() as storage:
            await at_once(*(lambda each=each: storage.create([each], policy, NOON) for each in new))

            live: dict[SessionId, datetime] = {}
            for event in await whole_log(storage):
                if isinstance(event, Created):
                    live[event.session] = event.at
                    assert len(live) <= 7
                elif isinstance(event, Evicted):
                    assert live.pop(event.session) < min(live.values())
            assert len(live) == 7

    async def test_the_cap_refuses_exactly_the_surplus(self) -> None:
        policy = SessionPolicy(cap=7, on_cap=OnCap.REFUSE)

        async with self.open() as storage:
            won = await at_once(*[lambda: storage.create([issue()], policy, NOON)] * TASKS)

            assert won == 7
            assert await storage.count(SessionFilter()) == 7
            assert await disagreements(storage) == []

    async def test_whoever_signs_in_while_all_is_revoked_is_either_in_or_out(self) -> None:
        async with self.open() as storage:

            async def sign_in(number: int) -> None:
                await store(storage, at=NOON + number * SECOND, active=True)

            async def revoke() -> None:
                await storage.revoke_user("alice", NOON, actor="system", reason=None, except_session=None)

            await at_once(
                *(lambda number=number: sign_in(number) for number in range(TASKS)),
                *[revoke] * 5,
                *(lambda number=number: sign_in(number) for number in range(TASKS)),
            )

            assert await disagreements(storage) == []

    async def test_refused_writes_do_not_disturb_those_beside_them(self) -> None:
        async with self.open() as storage:
            taken = issue("taken")
            await storage.create([taken], ROOMY, NOON)
            stale = await store(storage, "stale")
            await change(storage, stale, Activated, NOON)
            good = [issue(f"user-{number}") for number in range(TASKS)]

            won = await at_once(
                *(lambda each=each: storage.create([each], ROOMY, NOON) for each in good),
                *[lambda: storage.create([taken], ROOMY, NOON)] * 10,
                *[lambda: change(storage, stale, Activated, NOON)] * 10,
                *[lambda: change(storage, issue().session, Activated, NOON)] * 10,
            )

            assert won == TASKS
            assert await storage.get_many([each.session.id for each in good]) == [each.session for each in good]
            assert await disagreements(storage) == []

    async def test_a_caller_that_gives_up_leaves_all_or_nothing(self) -> None:
        async with self.open() as storage:
            batches = [[issue(f"user-{number}") for _ in range(3)] for number in range(30)]
            tasks = [asyncio.ensure_future(storage.create(batch, ROOMY, NOON)) for batch in batches]
            await asyncio.sleep(0)

            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await store(storage, "after")

            for number, batch in enumerate(batches):
                stored = sum(session is not None for session in await storage.get_many([n.session.id for n in batch]))
                assert stored in {0, 3}
                assert stored == 3 or number % 2 == 0
            assert await disagreements(storage) == []

    async def test_touches_from_everywhere_end_at_the_latest(self) -> None:
        async with self.open() as storage:
            session = await store(storage, active=True)

            await at_once(
                *(lambda number=number: storage.touch(session.id, NOON + number * SECOND) for number in range(TASKS)),
                lambda: change(storage, session, ViolationRecorded, NOON),
            )

            now = await found(storage, session.id)
            assert now.last_seen_at == NOON + (TASKS - 1) * SECOND
            assert now.version == session.version + 1
