"""The way of changes to storage: one write at a time, everything once and in order, and nothing acknowledged early."""

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Any

from roomkey.backends.memory.documents import MemoryDocumentStore
from roomkey.documents import writer
from roomkey.documents.writer import Computed, DocumentWriter, Draft, GroupCommit, Landing
from roomkey.errors import Conflict, DocumentNotFound, Storage
from roomkey.ports import DocumentUpdate
from tests.support.loops import in_no_time
from tests.support.open_documents import ALICE, BOB, TURNS, FaultyStore, outside
from tests.support.sockets import NOON


def update(text: str, *, seconds: float = 0) -> DocumentUpdate:
    return DocumentUpdate(text.encode(), ALICE, NOON + timedelta(seconds=seconds))


class WriterAtWork:
    """A saver of a new document, and what it says; ``told`` are the changes that were settled, and how."""

    def __init__(self, store: FaultyStore) -> None:
        self.store = store
        self.tasks: list[asyncio.Task[None]] = []  # or they would be collected
        self.told: list[tuple[str, bool]] = []
        self.news = asyncio.Event()
        self.times_lost = 0
        self.times_overtaken = 0
        self.times_receded = 0
        self.away = False
        self.group: GroupCommit
        self.writer: DocumentWriter

    @classmethod
    async def open(
        cls, *, lineage: str = "l", interval: timedelta = timedelta(), store: FaultyStore | None = None
    ) -> "WriterAtWork":
        work = cls(store or FaultyStore())
        await work.store.create("d", "l", NOON)
        work.group = GroupCommit(work.store, interval=interval, spawn=work._spawn)
        work.writer = DocumentWriter(
            work.group,
            "d",
            lineage=lineage,
            sequence=0,
            keeper=work,
        )
        return work

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.create_task(self._safely(work)))

    async def _safely(self, work: Coroutine[Any, Any, None]) -> None:
        with contextlib.suppress(RuntimeError):
            await work

    def lost(self) -> None:
        self.times_lost += 1

    def overtaken(self) -> None:
        self.times_overtaken += 1

    def receded(self) -> None:
        self.times_receded += 1

    async def catch_up(self) -> None:
        if self.away:
            raise Storage("the store is away")
        tail = await self.store.updates("d", "l", self.writer.sequence)
        self.writer.learned(tail.head, tail.updates or ())

    async def compute(self, drafts: Sequence[Draft]) -> list[Computed]:
        known = str(self.writer.sequence + self.writer.beyond)
        return [Computed(draft, update(f"draft on {known}")) for draft in drafts if not draft.outcome.done()]

    def land(self, computed: Computed, version: int) -> None:
        computed.draft.land(version, changed=True)

    def draft(self) -> Draft:
        draft = Draft(lambda _: None, ALICE, NOON, check=lambda _: None)
        self.writer.add_draft(draft)
        return draft

    def add(self, *texts: str) -> None:
        for text in texts:
            self.writer.add(update(text), partial(self._tell, text))

    def _tell(self, text: str, stored: bool) -> None:  # noqa: FBT001  # as writers call it
        self.told.append((text, stored))
        self.news.set()

    async def other(self, name: str) -> DocumentWriter:
        """The writer of another new document in the same store."""
        await self.store.create(name, "l", NOON)
        return DocumentWriter(self.group, name, lineage="l", sequence=0, keeper=self)

    async def until_told(self, count: int) -> None:
        """Until so many changes were settled, without hurrying anybody."""
        while len(self.told) < count:
            self.news.clear()
            await self.news.wait()

    async def settle(self) -> None:
        """Let everything happen that waits for nobody."""
        for _ in range(TURNS):
            await asyncio.sleep(0)

    async def stored(self) -> list[bytes]:
        found = await self.store.load("d")
        assert found is not None
        return [each.data for each in found.updates]


@in_no_time
async def test_what_is_added_is_stored_and_then_told() -> None:
    work = await WriterAtWork.open()

    work.add("a")
    before = list(work.told)
    await work.writer.settle()

    assert before == []
    assert work.told == [("a", True)]
    assert await work.stored() == [b"a"]
    assert (work.writer.sequence, work.writer.is_idle, work.writer.unsaved) == (1, True, 0)


@in_no_time
async def test_one_write_is_under_way_and_everything_else_waits_for_the_next_one() -> None:
    work = await WriterAtWork.open()
    work.store.gate.clear()

    work.add("0")
    await work.settle()
    for number in range(1, 50):
        work.add(str(number))
        await asyncio.sleep(0)
    told = list(work.told)
    work.store.gate.set()
    await work.writer.settle()

    assert told == []
    assert work.store.at_once == 1
    assert [len(batch) for batch in work.store.appended] == [1, 49]
    assert await work.stored() == [str(number).encode() for number in range(50)]
    assert work.told == [(str(number), True) for number in range(50)]


@in_no_time
async def test_between_two_commits_there_is_a_rest_in_which_the_next_one_collects() -> None:
    work = await WriterAtWork.open(interval=timedelta(milliseconds=25))
    clock = asyncio.get_running_loop().time
    work.add("first")
    await work.until_told(1)
    first_at = clock()

    work.add("second")
    await asyncio.sleep(0.02)
    work.add("third")
    early = list(work.store.appended)
    await work.until_told(3)
    second_at = clock()
    await asyncio.sleep(1)
    work.add("long after")
    await work.settle()

    assert early == [[b"first"]]
    assert second_at - first_at >= 0.025
    assert work.store.appended == [[b"first"], [b"second", b"third"], [b"long after"]]


@in_no_time
async def test_whoever_is_in_a_hurry_does_not_wait_for_the_rest_to_end() -> None:
    work = await WriterAtWork.open(interval=timedelta(hours=1))
    work.add("first")
    await work.until_told(1)

    work.add("second")
    await work.settle()
    before = list(work.store.appended)
    work.group.hurry()
    await work.settle()

    assert before == [[b"first"]]
    assert work.store.appended == [[b"first"], [b"second"]]


@in_no_time
async def test_whoever_is_in_a_hurry_during_a_commit_goes_into_the_next_one_at_once() -> None:
    work = await WriterAtWork.open(interval=timedelta(hours=1))
    work.store.gate.clear()
    work.add("first")
    await work.settle()

    work.add("second")
    work.group.hurry()
    work.store.gate.set()
    await work.settle()

    assert work.store.appended == [[b"first"], [b"second"]]


@in_no_time
async def test_documents_that_are_written_at_the_same_time_share_a_commit() -> None:
    work = await WriterAtWork.open(interval=timedelta(milliseconds=25))
    others = [await work.other(name) for name in ("e", "f")]
    work.add("first")
    await work.until_told(1)

    work.add("second")
    for other in others:
        other.add(update("theirs"))
    await work.until_told(2)

    assert [sorted(names) for names in work.store.commits] == [["d"], ["d", "e", "f"]]
    assert all(other.is_idle for other in others)


@in_no_time
async def test_a_document_that_cannot_be_stored_keeps_no_other_from_it() -> None:
    work = await WriterAtWork.open()
    other = await work.other("e")
    work.store.broken = {"d"}

    work.add("a")
    other.add(update("theirs"))
    await work.settle()
    other.add(update("more"))
    await work.settle()
    waiting = work.writer.trouble, work.writer.unsaved, other.trouble, other.is_idle
    work.store.broken = set()
    await work.until_told(1)

    assert waiting == ("this document cannot be stored", 1, None, True)
    assert await work.stored() == [b"a"]


@in_no_time
async def test_whoever_cannot_be_told_keeps_no_other_document_from_being_told_and_saved() -> None:
    work = await WriterAtWork.open()
    other = await work.other("e")

    def fail(stored: bool) -> None:  # noqa: FBT001  # as writers call it
        raise RuntimeError(f"a fault in whoever waits: {stored}")

    other.add(update("theirs"), fail)
    work.add("a")
    await work.until_told(1)
    other.add(update("more"))
    await other.settle()

    assert work.told == [("a", True)]
    assert other.is_idle
    assert [names for names in work.store.commits if "e" in names] == [["e", "d"], ["e"]]


@in_no_time
async def test_what_documents_store_together_is_bounded_too() -> None:
    work = await WriterAtWork.open()
    other = await work.other("e")

    work.add(*(str(number) for number in range(writer.MAX_BATCH_UPDATES)))
    other.add(update("theirs"))
    await work.writer.settle()
    await other.settle()

    assert work.store.commits == [["d"], ["e"]]


@in_no_time
async def test_nothing_is_told_before_storage_has_answered() -> None:
    work = await WriterAtWork.open()
    work.store.gate.clear()

    work.add("a")
    await work.settle()
    waiting = (list(work.told), work.writer.is_idle, work.writer.unsaved, work.writer.unsaved_bytes)
    work.store.gate.set()
    await work.writer.settle()

    assert waiting == ([], False, 1, 1)
    assert work.told == [("a", True)]


@in_no_time
async def test_what_comes_while_a_change_is_told_of_is_stored_too() -> None:
    work = await WriterAtWork.open()

    work.writer.add(update("a"), lambda _: work.add("b"))
    await work.writer.settle()

    assert await work.stored() == [b"a", b"b"]


@in_no_time
async def test_a_failing_write_is_tried_again_until_storage_answers_and_all_is_stored_once_and_in_order() -> None:
    work = await WriterAtWork.open()
    work.store.away = True

    for number in range(20):
        work.add(str(number))
        await asyncio.sleep(1)
    told, trouble = list(work.told), work.writer.trouble
    work.store.away = False
    await work.writer.settle()

    assert (told, trouble) == ([], "the store is away")
    assert await work.stored() == [str(number).encode() for number in range(20)]
    assert [text for text, stored in work.told if stored] == [str(number) for number in range(20)]
    assert work.writer.trouble is None


@in_no_time
async def test_the_pauses_between_tries_grow_up_to_some_seconds() -> None:
    work = await WriterAtWork.open()
    work.store.away = True

    work.add("a")
    await asyncio.sleep(60)
    tried = work.store.tried_at

    pauses = [later - sooner for sooner, later in pairwise(tried)]
    longest = writer.LONGEST_PAUSE_SECONDS
    assert writer.FIRST_PAUSE_SECONDS / 2 <= pauses[0] <= writer.FIRST_PAUSE_SECONDS
    assert all(longest / 2 <= pause <= longest for pause in pauses[7:])
    assert 12 <= len(pauses) <= 32
    work.store.away = False
    await work.writer.settle()


@in_no_time
async def test_a_write_that_was_stored_though_storage_said_no_loses_nothing_and_is_noticed() -> None:
    work = await WriterAtWork.open()
    work.store.away = True
    work.add("a")
    await work.settle()

    await MemoryDocumentStore.append(work.store, "d", "l", [update("a")])
    work.store.away = False
    await work.writer.settle()

    assert set(await work.stored()) == {b"a"}
    assert work.told == [("a", True)]
    assert work.times_overtaken == 1


@in_no_time
async def test_a_long_queue_is_written_in_batches_of_bounded_number() -> None:
    work = await WriterAtWork.open()

    work.add(*(str(number) for number in range(2 * writer.MAX_BATCH_UPDATES + 1)))
    await work.writer.settle()

    assert [len(batch) for batch in work.store.appended] == [writer.MAX_BATCH_UPDATES, writer.MAX_BATCH_UPDATES, 1]
    assert len(work.told) == 2 * writer.MAX_BATCH_UPDATES + 1


@in_no_time
async def test_large_changes_are_written_in_batches_of_bounded_size() -> None:
    work = await WriterAtWork.open()
    third = "x" * (writer.MAX_BATCH_BYTES // 3 + 1)

    work.add(*[third] * 5, "y" * writer.MAX_BATCH_BYTES * 2)
    await work.writer.settle()

    assert [len(batch) for batch in work.store.appended] == [3, 3]


@in_no_time
async def test_what_waits_is_counted_in_updates_bytes_and_time() -> None:
    work = await WriterAtWork.open()
    work.store.gate.clear()
    work.writer.add(update("aa", seconds=1))
    await work.settle()
    work.writer.add(update("bbb", seconds=2))

    waiting = (work.writer.unsaved, work.writer.unsaved_bytes, work.writer.unsaved_since)
    data = [each.data for each in work.writer.unsaved_updates()]
    work.store.gate.set()
    await work.writer.settle()

    assert waiting == (2, 5, NOON + timedelta(seconds=1))
    assert data == [b"aa", b"bbb"]
    assert (work.writer.unsaved, work.writer.unsaved_bytes, work.writer.unsaved_since) == (0, 0, None)
    assert work.writer.unsaved_updates() == []


@in_no_time
async def test_when_the_document_is_gone_everyone_is_told_that_nothing_was_stored() -> None:
    work = await WriterAtWork.open()
    work.store.gate.clear()
    work.add("a")
    await work.settle()
    work.add("b")
    await work.store.delete("d", "l", NOON)

    work.store.gate.set()
    await work.writer.settle()

    assert work.told == [("a", False), ("b", False)]
    assert work.times_lost == 1
    assert (work.writer.is_idle, work.writer.unsaved, work.writer.unsaved_bytes) == (True, 0, 0)


@in_no_time
async def test_a_document_of_another_lineage_is_not_written_to() -> None:
    work = await WriterAtWork.open(lineage="another")

    work.add("a")
    await work.writer.settle()

    assert work.told == [("a", False)]
    assert work.times_lost == 1
    assert await work.stored() == []


@in_no_time
async def test_whoever_is_told_hears_it_after_the_document_is_known_to_be_lost() -> None:
    work = await WriterAtWork.open(lineage="another")
    lost_when_told: list[int] = []

    work.writer.add(update("a"), lambda _: lost_when_told.append(work.times_lost))
    await work.writer.settle()

    assert lost_when_told == [1]


@in_no_time
async def test_appends_of_others_are_noticed_and_counted() -> None:
    work = await WriterAtWork.open()
    await work.store.append("d", "l", [DocumentUpdate(b"theirs", BOB, NOON)])

    work.add("a")
    await work.writer.settle()
    overtaken = work.times_overtaken
    work.add("b")
    await work.writer.settle()

    before = work.writer.sequence, work.writer.beyond, work.writer.has_gap
    work.writer.learned(1, [])

    assert (overtaken, work.times_overtaken) == (1, 1)
    assert before == (0, 2, True)
    assert (work.writer.sequence, work.writer.beyond, work.writer.has_gap) == (3, 0, False)


@in_no_time
async def test_a_write_that_fails_as_none_should_takes_nothing_with_it() -> None:
    work = await WriterAtWork.open()
    work.store.fault = RuntimeError("a fault in a store")
    work.add("a", "b")
    await work.settle()

    still_waiting, is_idle = work.writer.unsaved_updates(), work.writer.is_idle
    work.store.fault = None
    work.add("c")
    await work.writer.settle()

    assert [each.data for each in still_waiting] == [b"a", b"b"]
    assert not is_idle
    assert await work.stored() == [b"a", b"b", b"c"]


@in_no_time
async def test_nobody_who_waits_for_everything_to_be_stored_is_left_waiting_when_nothing_can_be() -> None:
    work = await WriterAtWork.open()
    await work.store.delete("d", "l", NOON)
    work.add("a")

    await work.writer.settle()

    assert work.writer.is_idle


# --- drafts: what is computed from the end of the log ---------------------------------------------------


@in_no_time
async def test_a_draft_is_stored_with_everything_that_it_may_build_on() -> None:
    work = await WriterAtWork.open()

    work.add("a", "b")
    draft = work.draft()
    await work.writer.settle()

    assert await work.stored() == [b"a", b"b", b"draft on 2"]
    assert work.store.appended == [[b"a", b"b", b"draft on 2"]]
    assert draft.outcome.result() == Landing(3, changed=True)
    assert work.told == [("a", True), ("b", True)]


@in_no_time
async def test_a_draft_that_others_have_overtaken_is_computed_anew() -> None:
    work = await WriterAtWork.open()
    work.store.gate.clear()
    draft = work.draft()
    await work.settle()

    await outside(work.store, b"theirs")
    work.store.gate.set()
    await work.writer.settle()

    assert await work.stored() == [b"theirs", b"draft on 1"]
    assert draft.outcome.result() == Landing(2, changed=True)


@in_no_time
async def test_what_is_typed_while_a_draft_is_computed_anew_is_stored_before_it() -> None:
    work = await WriterAtWork.open()
    work.store.gate.clear()
    work.draft()
    await work.settle()

    work.add("typed")
    await outside(work.store, b"theirs")
    work.store.gate.set()
    await work.writer.settle()

    assert await work.stored() == [b"theirs", b"typed", b"draft on 2"]
    assert work.told == [("typed", True)]


class CrowdedStore(FaultyStore):
    """Somebody else is always faster."""

    async def append(
        self, name: str, lineage: str, updates: Sequence[DocumentUpdate], *, after: int | None = None
    ) -> int:
        await outside(self, b"theirs")
        return await super().append(name, lineage, updates, after=after)


@in_no_time
async def test_a_draft_that_is_overtaken_again_and_again_is_given_up_and_nothing_else_waits_for_it() -> None:
    work = await WriterAtWork.open(store=CrowdedStore())

    work.add("a")
    draft = work.draft()
    await work.writer.settle()

    assert isinstance(draft.outcome.exception(), Conflict)
    assert work.told == [("a", True)]
    assert await work.stored() == [b"theirs"] * (writer.MAX_OVERTAKEN + 1) + [b"a"]


@in_no_time
async def test_a_draft_fails_if_the_end_of_the_log_cannot_be_read_and_nothing_else_waits_for_it() -> None:
    work = await WriterAtWork.open()
    work.away = True

    work.add("a")
    draft = work.draft()
    await work.writer.settle()

    assert isinstance(draft.outcome.exception(), Storage)
    assert await work.stored() == [b"a"]


@in_no_time
async def test_a_draft_fails_with_the_document() -> None:
    work = await WriterAtWork.open(lineage="another")

    draft = work.draft()
    await work.writer.settle()

    assert isinstance(draft.outcome.exception(), DocumentNotFound)


@in_no_time
async def test_a_draft_whose_author_has_gone_is_not_stored() -> None:
    work = await WriterAtWork.open()

    work.draft().outcome.cancel()
    await work.writer.settle()

    assert await work.stored() == []


@in_no_time
async def test_what_is_found_in_the_log_before_its_write_has_returned_counts_once() -> None:
    work = await WriterAtWork.open()
    work.store.slow = True
    work.add("a")
    await work.settle()

    await work.catch_up()
    learned = work.writer.sequence, work.writer.beyond
    work.add("b")
    more = work.writer.sequence, work.writer.beyond
    work.store.late.set()
    await work.writer.settle()

    assert (learned, more) == ((1, 0), (1, 1))
    assert (work.writer.sequence, work.writer.beyond, work.writer.has_gap, work.times_overtaken) == (2, 0, False, 0)
