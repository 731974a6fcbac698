"""A hundred tasks at once: one document, no update lost or doubled, nothing half done."""
# ruff: noqa: S101, D102  # these are tests, and their names are sentences

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise

from roomkey.errors import Conflict, NotFound
from roomkey.ports import DocumentStore, StoredDocument
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


async def merge(store: DocumentStore, name: str = "notes") -> None:
    """Compact the document, whose updates are words with a space behind them."""
    document = await store.load(name)
    if document is not None:
        record = document.record
        snapshot = (document.snapshot or b"") + b"".join(each.data for each in document.updates)
        await store.compact(name, record.lineage, snapshot=snapshot, upto=record.sequence, authorship=b"")


def words_of(document: StoredDocument) -> list[bytes]:
    """What it says, in order."""
    return ((document.snapshot or b"") + b"".join(each.data for each in document.updates)).split()


class Replica:
    """What another node knows of a document of words that begin with its lineage."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lineage = ""
        self.words: list[bytes] = []

    async def catch_up(self, store: DocumentStore) -> None:
        """Read what is missing, or the whole document if it must be."""
        try:
            tail = await store.updates(self.name, self.lineage, len(self.words), 7)
        except (Conflict, NotFound):
            await self._load(store)
            return
        assert tail.head >= len(self.words)
        if tail.updates is None:
            await self._load(store)
        else:
            self.words += [each.data.strip() for each in tail.updates]
            assert len(self.words) <= tail.head
        assert all(word.startswith(self.lineage.encode() + b"/") for word in self.words)

    async def _load(self, store: DocumentStore) -> None:
        document = await store.load(self.name)
        self.lineage = "" if document is None else document.record.lineage
        self.words = [] if document is None else words_of(document)


async def following(
    store: DocumentStore, replicas: Sequence[Replica], *actions: Callable[[], Awaitable[object]]
) -> None:
    """Run the actions together while the replicas follow, and let these come to the end."""
    done = asyncio.Event()

    async def follow(replica: Replica) -> None:
        while not done.is_set():
            await replica.catch_up(store)
            await asyncio.sleep(0)
        for _ in range(4 * TASKS):
            await replica.catch_up(store)

    async with asyncio.TaskGroup() as group:
        for replica in replicas:
            group.create_task(follow(replica))
        await at_once(*actions)
        done.set()


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

            await at_once(*(lambda task=task: write(task) for task in range(TASKS)), *[lambda: merge(store)] * 30)
            await merge(store)

            written = sorted(b"%d/%d" % (task, turn) for task in range(TASKS) for turn in range(4))
            assert sorted(words_of(await loaded(store))) == written
            assert await compactable(store) == []

    async def test_whoever_follows_misses_nothing_and_meets_nothing_twice(self) -> None:
        async with self.open() as store:
            await make(store)
            replica = Replica("notes")

            async def write(task: int) -> None:
                for turn in range(4):
                    await store.append("notes", "first", [update(b"first/%d/%d " % (task, turn))])

            writing = [lambda task=task: write(task) for task in range(TASKS)]
            await following(store, [replica], *writing, *[lambda: merge(store)] * 30)

            assert len(replica.words) == len(set(replica.words)) == 4 * TASKS
            assert replica.words == words_of(await loaded(store))

    async def test_whoever_follows_is_not_led_from_one_document_into_the_next_of_its_name(self) -> None:
        async with self.open() as store:
            await make(store)
            replicas = [Replica("notes") for _ in range(3)]

            async def write(task: int) -> None:
                for turn in range(4):
                    record = await store.find("notes")
                    if record is not None:
                        word = b"%s/%d/%d " % (record.lineage.encode(), task, turn)
                        await store.append("notes", record.lineage, [update(word)])

            async def replace(number: int) -> None:
                record = await store.find("notes")
                if record is not None:
                    await store.delete("notes", record.lineage, NOON)
                await store.create("notes", f"lineage-{number}", NOON)

            await following(
                store,
                replicas,
                *(lambda task=task: write(task) for task in range(TASKS // 2)),
                *(lambda number=number: replace(number) for number in range(5)),
                *[lambda: merge(store)] * 20,
                *(lambda task=task: write(task) for task in range(TASKS // 2, TASKS)),
            )

            for replica in replicas:
                assert replica.words == words_of(await loaded(store))

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
