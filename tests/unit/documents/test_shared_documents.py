"""Documents that other processes write to as well, and compaction: nothing is lost, and nothing comes back."""

import asyncio
from collections.abc import Sequence
from typing import Any

from roomkey.documents.following import Follower
from roomkey.documents.maintenance import Maintenance
from roomkey.documents.open_documents import OpenDocuments
from roomkey.errors import Storage
from roomkey.ports import DocumentRecord, DocumentTail, StoredDocument
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.realtime.transport import Accepted
from roomkey.testing.clock import ManualClock
from tests.support.loops import in_no_time
from tests.support.open_documents import ALICE, FaultyStore, House, Writer, outside, stored, text
from tests.support.sockets import NOON, READ_ONLY, FakeSocket


@in_no_time
async def test_what_another_process_has_stored_is_learned_with_the_next_write() -> None:
    async with House() as house:
        await stored(house.store, "hello")
        document = await house.document()
        listener, theirs = house.attend(document), Writer().type("theirs")
        await outside(house.store, theirs)

        document.take_update(Writer().type("ours"), ALICE, NOON)
        await house.settle()

        assert sorted(text(document)) == sorted("hello" + "theirs" + "ours")
        assert yjs.Update(theirs) in listener.heard
        assert document.sequence == 3


@in_no_time
async def test_what_another_process_has_stored_is_learned_by_those_who_only_read() -> None:
    async with House(FaultyStore(shared=True)) as house:
        await stored(house.store, "hello")
        document = await house.document()
        listener, theirs = house.attend(document), Writer().type("theirs")
        await outside(house.store, theirs)

        await Follower(house.open_documents).look()
        await house.settle()

        assert listener.heard == [yjs.Update(theirs)]


@in_no_time
async def test_what_could_not_be_learned_when_it_was_noticed_is_learned_later() -> None:
    async with House(FaultyStore(shared=True)) as house:
        await stored(house.store, "hello")
        document = await house.document()
        listener, theirs = house.attend(document), Writer().type("theirs")
        await outside(house.store, theirs)
        load = FailingOnce(house.store)

        document.take_update(Writer().type("ours"), ALICE, NOON)
        await house.settle()
        await Follower(house.open_documents).look()
        await house.settle()

        assert load.failed
        assert yjs.Update(theirs) in listener.heard


class FailingOnce:
    """Lets the next look at what others have stored fail."""

    def __init__(self, store: FaultyStore) -> None:
        self.failed = False
        self._updates = store.updates
        store.updates = self  # type: ignore[method-assign]

    async def __call__(self, name: str, lineage: str, after: int, limit: int = 1000) -> Any:
        if not self.failed:
            self.failed = True
            raise Storage("the store is away")
        return await self._updates(name, lineage, after, limit)


@in_no_time
async def test_what_was_not_learned_yet_is_not_compacted_away() -> None:
    async with House(FaultyStore(shared=True)) as house:
        await stored(house.store, "hello")
        document = await house.document()
        await outside(house.store, Writer().type("theirs"))
        load = FailingOnce(house.store)
        document.take_update(Writer().type("ours"), ALICE, NOON)
        await house.settle()

        record = await house.store.find("d")
        assert record is not None
        await Maintenance(house.open_documents).compact(record)

        assert load.failed
        assert sorted(await house.store.text("d")) == sorted("hello" + "theirs" + "ours")


class LateStore(FaultyStore):
    """One whose answers to ``load`` are late by as long as ``delays`` say, and may be outdated then."""

    def __init__(self) -> None:
        super().__init__(shared=True)
        self.delays: list[float] = []

    async def load(self, name: str) -> StoredDocument | None:
        found = await super().load(name)
        if self.delays:
            await asyncio.sleep(self.delays.pop(0))
        return found


@in_no_time
async def test_what_was_learned_late_does_not_stand_for_what_came_meanwhile() -> None:
    store = LateStore()
    async with House(store) as house:
        await stored(store, "hello")
        document = await house.document()
        store.delays = [1, 10]
        for words in ("first", "second"):
            await outside(store, Writer().type(words))
            document.take_update(Writer().type("ours"), ALICE, NOON)
            await house.settle()
        await asyncio.sleep(2)  # the first answer is here, the second one is not

        record = await store.find("d")
        assert record is not None
        await Maintenance(house.open_documents).compact(record)

        assert sorted(await store.text("d")) == sorted("hello" + "first" + "second" + "ours" * 2)


@in_no_time
async def test_compacting_what_waits_does_not_hide_what_another_process_has_stored() -> None:
    async with House(FaultyStore(shared=True)) as house:
        await stored(house.store, "hello")
        document = await house.document()
        writer = Writer()
        writer.type("never seen")
        document.take_update(writer.type("waits"), ALICE, NOON)
        await house.settle()
        listener, theirs = house.attend(document), Writer().type("theirs")
        await outside(house.store, theirs)

        record = await house.store.find("d")
        assert record is not None
        await Maintenance(house.open_documents).compact(record)
        await Follower(house.open_documents).look()
        await house.settle()

        assert listener.heard == [yjs.Update(theirs)]


@in_no_time
async def test_what_waits_survives_compaction_and_a_restart() -> None:
    async with House() as house:
        writer = Writer()
        first, second = writer.type("a"), writer.type("b")
        document = await house.document()
        document.take_update(second, ALICE, NOON)
        await house.settle()
        record = await house.store.find("d")
        assert record is not None
        await Maintenance(house.open_documents).compact(record)
        await house.close()

        async with House(house.store) as again:
            reopened = await again.document()
            reopened.take_update(first, ALICE, NOON)
            await again.settle()

            assert text(reopened) == await again.store.text("d") == "ab"


@in_no_time
async def test_compaction_changes_nothing_that_can_be_read() -> None:
    async with House() as house:
        writer = await stored(house.store, "hello ")
        document = await house.document()
        for word in ("one ", "two ", "three "):
            document.take_update(writer.type(word), ALICE, NOON)
        document.take_update(writer.erase(3), ALICE, NOON)
        await house.settle()
        before = await house.store.text("d")

        record = await house.store.find("d")
        assert record is not None
        done = await Maintenance(house.open_documents).compact(record)
        document.take_update(writer.type("four"), ALICE, NOON)
        await house.settle()

        compacted = await house.store.load("d")
        assert compacted is not None
        assert done
        assert (compacted.upto, len(compacted.updates)) == (5, 1)
        assert await house.store.text("d") == before + "four" == text(document)


@in_no_time
async def test_a_document_with_something_unsaved_is_compacted_without_losing_or_claiming_it() -> None:
    async with House() as house:
        writer = await stored(house.store, "hello ")
        document = await house.document()
        house.store.away = True
        document.take_update(writer.type("unsaved"), ALICE, NOON)
        await house.settle()
        house.store.away = False
        record = await house.store.find("d")
        assert record is not None

        await Maintenance(house.open_documents).compact(record)
        await house.pass_time(60)

        compacted = await house.store.load("d")
        assert compacted is not None
        assert (compacted.upto, [update.data for update in compacted.updates]) == (1, writer.updates[1:])
        assert await house.store.text("d") == "hello unsaved"


@in_no_time
async def test_a_document_that_was_replaced_elsewhere_is_left_and_nothing_of_it_gets_into_the_new_one() -> None:
    async with House(FaultyStore(shared=True)) as house:
        await stored(house.store, "old")
        document = await house.document()
        listener, settled = house.attend(document), list[bool]()
        await house.store.delete("d", document.lineage, NOON)
        await house.store.create("d", "another", NOON)

        document.take_update(Writer().type("too late"), ALICE, NOON, settled=settled.append)
        await house.settle()

        assert (listener.told, settled) == (["deleted"], [False])
        assert await house.store.text("d") == ""
        async with house.open() as fresh:
            assert (fresh.lineage, text(fresh)) == ("another", "")


@in_no_time
async def test_a_document_that_was_replaced_elsewhere_is_left_by_its_readers_too() -> None:
    async with House(FaultyStore(shared=True)) as house:
        await stored(house.store, "old")
        document = await house.document()
        listener = house.attend(document)
        await house.store.delete("d", document.lineage, NOON)

        await Follower(house.open_documents).look()

        assert listener.told == ["deleted"]
        assert house.open_documents.find("d") is None


@in_no_time
async def test_whoever_was_let_in_before_a_document_was_deleted_does_not_stay_in_what_is_gone() -> None:
    async with House() as house:
        await stored(house.store, "old")
        _, token = house.sessions.issue(grants=READ_ONLY)
        answer = await house.knock(token)
        assert isinstance(answer, Accepted)
        document = house.open_documents.find("d")
        assert document is not None
        await house.store.delete("d", document.lineage, NOON)
        house.open_documents.forget(document)

        socket = FakeSocket()
        answer.conversation.opened(socket)
        await house.settle()

        assert socket.closed_with is not None
        assert not document.has_audience


@in_no_time
async def test_only_what_is_new_is_read_of_what_another_process_has_stored() -> None:
    async with House(FaultyStore(shared=True)) as house:
        await stored(house.store, "hello")
        document = await house.document()
        theirs = Writer()
        for word in ("a", "b", "c"):
            await outside(house.store, theirs.type(word))
        loads = house.store.loads

        await house.open_documents.catching_up.catch_up(document)

        assert "abc" in text(document)
        assert (document.sequence, house.store.loads) == (4, loads)


@in_no_time
async def test_what_was_compacted_meanwhile_is_learned_from_the_snapshot() -> None:
    async with House(FaultyStore(shared=True)) as house:
        await stored(house.store, "hello")
        document = await house.document()
        await outside(house.store, Writer().type("theirs"))
        whole = await house.store.content("d")
        await house.store.compact("d", document.lineage, snapshot=whole.snapshot(), upto=2, authorship=b"")

        await house.open_documents.catching_up.catch_up(document)

        assert sorted(text(document)) == sorted("hello" + "theirs")
        assert document.sequence == 2


# --- the version, which is the ETag ---------------------------------------------------------------------


@in_no_time
async def test_two_states_of_a_document_never_have_the_same_version() -> None:
    async with House(FaultyStore(shared=True)) as house:
        await stored(house.store, "hello")
        document = await house.document()
        theirs = Writer().type("theirs")
        await outside(house.store, theirs)
        blind = FailingOnce(house.store)

        document.take_update(Writer().type("ours"), ALICE, NOON)
        await house.settle()
        assert blind.failed
        seen = text(document), document.version
        await house.open_documents.catching_up.catch_up(document)

        assert "theirs" not in seen[0]
        assert "theirs" in text(document)
        assert document.version > seen[1]


@in_no_time
async def test_updates_of_ours_behind_a_gap_count_once_when_the_gap_is_filled() -> None:
    async with House(FaultyStore(shared=True)) as house:
        await stored(house.store, "hello")
        document = await house.document()
        writer = Writer()
        blind = FailingOnce(house.store)
        await outside(house.store, Writer().type("theirs"))
        document.take_update(writer.type("a"), ALICE, NOON)
        await house.settle()

        await outside(house.store, Writer().type("theirs too"))
        document.take_update(writer.type("b"), ALICE, NOON)
        house.store.gate.clear()
        document.take_update(writer.type("c"), ALICE, NOON)
        version = document.version
        house.store.gate.set()
        await house.settle()

        assert blind.failed
        assert version == 4
        assert (document.sequence, document.version, document.has_gap) == (6, 6, False)


class PagedStore(FaultyStore):
    """One that tells what was appended two updates at a time, each time one turn later."""

    async def updates(self, name: str, lineage: str, after: int, limit: int = 2) -> DocumentTail:
        await asyncio.sleep(0)
        return await super().updates(name, lineage, after, min(limit, 2))


@in_no_time
async def test_much_that_another_process_has_stored_is_learned_to_its_end_and_each_state_has_its_own_version() -> None:
    async with House(PagedStore(shared=True)) as house:
        await stored(house.store, "hello")
        document, theirs = await house.document(), Writer()
        for number in range(5):
            await outside(house.store, theirs.type(str(number)))
        seen: dict[int, set[str]] = {}

        with document.pin():
            learning = asyncio.create_task(house.open_documents.catching_up.catch_up(document))
            while not learning.done():
                seen.setdefault(document.version, set()).add(text(document))
                await asyncio.sleep(0)

        assert sorted(text(document)) == sorted("hello01234")
        assert document.sequence == 6
        assert all(len(states) == 1 for states in seen.values())
        assert set(seen) >= {1, 3, 5}


@in_no_time
async def test_a_gap_that_could_not_be_filled_is_filled_later_though_nobody_is_in_the_document() -> None:
    async with House() as house:
        await stored(house.store, "hello")
        document = await house.document()
        await outside(house.store, Writer().type("theirs"))
        load = FailingOnce(house.store)

        document.take_update(Writer().type("ours"), ALICE, NOON)
        await house.settle()
        had_gap = document.has_gap
        await Maintenance(house.open_documents).sweep(NOON)

        assert (load.failed, had_gap, document.has_gap) == (True, True, False)
        assert sorted(text(document)) == sorted("hello" + "theirs" + "ours")


class StoreThatComesBack(FaultyStore):
    """It cannot say at first which logs are long."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.is_back = asyncio.Event()

    async def compactable(self, *, updates: int, size: int, limit: int) -> Sequence[DocumentRecord]:
        self.asked += 1
        if self.asked < 3:
            raise Storage("it is away")
        self.is_back.set()
        return await super().compactable(updates=updates, size=size, limit=limit)


@in_no_time
async def test_maintenance_goes_on_when_the_storage_that_was_away_is_back() -> None:
    store = StoreThatComesBack()
    maintenance = Maintenance(OpenDocuments(store, clock=ManualClock(NOON)))

    running = asyncio.ensure_future(maintenance.run())
    await asyncio.wait([running, asyncio.ensure_future(store.is_back.wait())], return_when=asyncio.FIRST_COMPLETED)

    assert store.is_back.is_set()
    running.cancel()
    await asyncio.wait([running])
