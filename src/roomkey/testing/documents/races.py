"""A hundred tasks at once: one document, no update lost or doubled, nothing half done."""
# ruff: noqa: S101, D102  # these are tests, and their names are sentences

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise

from roomkey.errors import Conflict, NotFound
from roomkey.testing.documents.suite import (
    NOON,
    DocumentSuite,
    compactable,
    loaded,
    log_of,
    make,
    names_in,
    update,
    updates,
    version,
    versions_of,
)

TASKS = 100


async def at_once(*actions: Callable[[], Awaitable[object]]) -> list[object]:
    """Run all together; what each returned, or the error that refused it."""

    async def attempt(action: Callable[[], Awaitable[object]]) -> object:
        try:
            return await action()
        except (Conflict, NotFound) as error:
            return error

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(attempt(action)) for action in actions]
    return [task.result() for task in tasks]


class DocumentRaceConformance(DocumentSuite):
    """What holds under any interleaving."""

    async def test_all_who_create_get_the_same_document(self) -> None:
        async with self.open() as store:
            records = await at_once(
                *(lambda number=number: store.create("notes", f"of {number}", NOON) for number in range(TASKS))
            )

            assert len({repr(record) for record in records}) == 1
            assert records[0] == (await loaded(store)).record
            assert await names_in(store) == ["notes"]

    async def test_appends_to_one_document_do_not_mix(self) -> None:
        async with self.open() as store:
            await make(store)

            numbers = await at_once(
                *(
                    lambda task=task: store.append("notes", "first", updates(task % 4 + 1, 10 * task))
                    for task in range(TASKS)
                )
            )

            log = await log_of(store)
            assert sorted(numbers, key=str) == sorted(set(numbers), key=str)
            for task, last in enumerate(numbers):
                assert isinstance(last, int)
                count = task % 4 + 1
                assert log[last - count : last] == updates(count, 10 * task)
            assert len(log) == sum(task % 4 + 1 for task in range(TASKS))

    async def test_what_one_task_appends_in_turn_stays_in_turn(self) -> None:
        async with self.open() as store:
            await make(store)

            async def write(task: int) -> None:
                for turn in range(5):
                    await store.append("notes", "first", [update(b"%d" % task, turn)])

            await at_once(*(lambda task=task: write(task) for task in range(TASKS)))

            log = await log_of(store)
            for task in range(TASKS):
                times = [each.at for each in log if each.data == b"%d" % task]
                assert len(times) == 5
                assert all(earlier < later for earlier, later in pairwise(times))

    async def test_a_reader_sees_whole_appends_only(self) -> None:
        async with self.open() as store:
            await make(store)
            done = asyncio.Event()

            async def watch() -> None:
                seen = 0
                while not done.is_set():
                    document = await store.load("notes")
                    assert document is not None
                    assert document.upto % 10 == 0
                    assert len(document.updates) % 10 == 0
                    assert document.record.sequence == document.upto + len(document.updates) >= seen
                    assert (document.snapshot or b"0") == b"%d" % document.upto
                    seen = document.record.sequence
                    await asyncio.sleep(0)

            async def write() -> None:
                for _ in range(20):
                    last = await store.append("notes", "first", updates(10))
                    await store.compact("notes", "first", snapshot=b"%d" % last, upto=last, authorship=b"")

            async with asyncio.TaskGroup() as group:
                group.create_task(watch())
                await at_once(write, write, write)
                done.set()

    async def test_nothing_is_lost_between_appends_and_compactions(self) -> None:
        async with self.open() as store:
            await make(store)

            async def write(task: int) -> None:
                for turn in range(4):
                    await store.append("notes", "first", [update(b"%d/%d " % (task, turn))])

            async def merge() -> None:
                document = await store.load("notes")
                assert document is not None
                snapshot = (document.snapshot or b"") + b"".join(each.data for each in document.updates)
                await store.compact("notes", "first", snapshot=snapshot, upto=document.record.sequence, authorship=b"")

            await at_once(*(lambda task=task: write(task) for task in range(TASKS)), *[merge] * 30)
            await merge()

            words = ((await loaded(store)).snapshot or b"").split()
            assert sorted(words) == sorted(b"%d/%d" % (task, turn) for task in range(TASKS) for turn in range(4))
            assert await compactable(store) == []

    async def test_versions_have_different_numbers(self) -> None:
        async with self.open() as store:
            await make(store)

            kept = await at_once(
                *(
                    lambda task=task: store.keep_version("notes", "first", version(b"%d" % task))
                    for task in range(TASKS)
                )
            )

            assert [each.number for each in await versions_of(store)] == list(range(TASKS, 0, -1))
            assert len({repr(each) for each in kept}) == TASKS

    async def test_deleting_has_one_winner(self) -> None:
        async with self.open() as store:
            await make(store, updates=updates(3))

            outcomes = await at_once(*[lambda: store.delete("notes", "first", NOON)] * TASKS)

            assert sorted(outcomes, key=str) == [False] * (TASKS - 1) + [True]

    async def test_whoever_writes_while_it_is_deleted_and_made_anew_writes_into_one_of_them(self) -> None:
        async with self.open() as store:
            await make(store)

            async def replace() -> None:
                await store.delete("notes", "first", NOON)
                await store.create("notes", "second", NOON)

            outcomes = await at_once(
                *[lambda: store.append("notes", "first", [update(b"old")])] * (TASKS // 2),
                replace,
                *[lambda: store.append("notes", "first", [update(b"old")])] * (TASKS // 2),
                *[lambda: store.append("notes", "second", [update(b"new")])] * (TASKS // 2),
            )

            new = outcomes[TASKS + 1 :]
            log = await log_of(store)
            assert {each.data for each in log} <= {b"new"}
            assert len(log) == sum(isinstance(outcome, int) for outcome in new)

    async def test_refused_writes_do_not_disturb_those_beside_them(self) -> None:
        async with self.open() as store:
            await make(store)
            for number in range(TASKS):
                await make(store, f"document {number}")

            outcomes = await at_once(
                *(
                    lambda number=number: store.append(f"document {number}", "first", updates(2, number))
                    for number in range(TASKS)
                ),
                *[lambda: store.append("notes", "other", updates(2))] * 20,
                *[lambda: store.append("nowhere", "first", updates(2))] * 20,
            )

            assert outcomes[:TASKS] == [2] * TASKS
            assert [type(outcome) for outcome in outcomes[TASKS : TASKS + 20]] == [Conflict] * 20
            for number in range(TASKS):
                assert await log_of(store, f"document {number}") == updates(2, number)
            assert await log_of(store) == []

    async def test_a_caller_that_gives_up_leaves_all_or_nothing(self) -> None:
        async with self.open() as store:
            await make(store)
            tasks = [asyncio.ensure_future(store.append("notes", "first", updates(3, 10 * task))) for task in range(30)]
            await asyncio.sleep(0)

            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await store.append("notes", "first", updates(1))

            log = await log_of(store)
            assert log[-1:] == updates(1)
            whole = [log[start : start + 3] for start in range(0, len(log) - 1, 3)]
            written = [updates(3, 10 * task) for task in range(30)]
            assert all(each in written for each in whole)
            assert all(each in whole for each in written[1::2])
