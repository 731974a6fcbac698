"""Opening documents and putting them away: once, whole or not at all, and never with something unsaved."""

import asyncio
import gc
import weakref
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from roomkey.documents import open_documents
from roomkey.documents.document import Document
from roomkey.documents.open_documents import OpenDocuments
from roomkey.errors import RoomkeyError, Serialization, Storage
from roomkey.ports import DocumentUpdate
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.realtime.transport import Accepted
from roomkey.testing.clock import ManualClock
from tests.support.loops import in_no_time
from tests.support.open_documents import ALICE, FaultyStore, House, Writer, outside, stored, text
from tests.support.sockets import NOON

# --- opening --------------------------------------------------------------------------------------------


@in_no_time
async def test_a_document_is_what_was_stored_of_it() -> None:
    async with House() as house:
        writer = await stored(house.store, "hello")
        await outside(house.store, writer.type(" world"))

        async with house.open() as document:
            assert text(document) == "hello world"
            assert (document.lineage, document.sequence) == ("lineage of d", 2)


@in_no_time
async def test_a_hundred_who_open_a_document_at_the_same_time_share_one_that_is_loaded_once() -> None:
    async with House() as house:
        await stored(house.store, "hello")
        house.store.gate.clear()

        async def open_it() -> Document:
            async with house.open() as document:
                return document

        openers = [asyncio.create_task(open_it()) for _ in range(100)]
        await house.settle()
        house.store.gate.set()
        documents = await asyncio.gather(*openers)

        assert len(set(map(id, documents))) == 1
        assert house.store.loads == 1
        assert house.open_documents.statistics().loads == 1


@in_no_time
async def test_a_hundred_who_open_a_new_document_at_the_same_time_found_it_once() -> None:
    async with House() as house:
        documents = await asyncio.gather(*(house.document() for _ in range(100)))

        record = await house.store.find("d")
        assert record is not None
        assert {document.lineage for document in documents} == {record.lineage}


@in_no_time
async def test_a_load_that_fails_fails_for_everyone_who_waits_and_nothing_is_stored() -> None:
    async with House() as house:
        await stored(house.store, "hello")
        house.store.gate.clear()
        openers = [asyncio.create_task(house.document()) for _ in range(10)]
        await house.settle()

        house.store.away = True
        house.store.gate.set()
        outcomes = await asyncio.gather(*openers, return_exceptions=True)
        house.store.away = False

        assert all(isinstance(outcome, Storage) for outcome in outcomes)
        assert len(house.open_documents) == 0
        assert house.store.appended == []
        assert await house.store.text("d") == "hello"


@in_no_time
async def test_after_a_load_that_failed_the_next_one_tries_again() -> None:
    async with House() as house:
        await stored(house.store, "hello")
        house.store.away = True
        with pytest.raises(Storage):
            await house.document()

        house.store.away = False
        document = await house.document()

        assert text(document) == "hello"


class _Damaged(FaultyStore):
    async def load(self, name: str) -> Any:
        found = await super().load(name)
        assert found is not None
        return type(found)(
            record=found.record,
            snapshot=found.snapshot,
            upto=found.upto,
            authorship=found.authorship,
            updates=[*found.updates, DocumentUpdate(b"\x05no update", ALICE, NOON)],
        )


@in_no_time
async def test_what_cannot_be_read_is_not_taken_for_an_empty_document() -> None:
    async with House(_Damaged()) as house:
        await stored(house.store, "hello")

        with pytest.raises(Serialization):
            await house.document()

        assert len(house.open_documents) == 0
        assert house.store.appended == []


@in_no_time
async def test_a_load_that_fails_as_none_should_fails_for_everyone_who_waits() -> None:
    async with House() as house:
        house.store.fault = RuntimeError("a fault in a store")
        outcomes = await asyncio.gather(*(house.document() for _ in range(3)), return_exceptions=True)

        assert all(isinstance(outcome, Storage) for outcome in outcomes)
        house.store.fault = None
        assert (await house.document()).lineage


@in_no_time
async def test_whoever_waits_too_long_is_told_and_the_load_goes_on_for_the_next_one() -> None:
    async with House(load_timeout=timedelta(seconds=20)) as house:
        await stored(house.store, "hello")
        house.store.gate.clear()

        with pytest.raises(Storage, match="in time"):
            await house.document()
        house.store.gate.set()
        document = await house.document()

        assert text(document) == "hello"
        assert house.store.loads == 1


@in_no_time
async def test_who_gives_up_waiting_takes_nobody_with_them() -> None:
    async with House() as house:
        await stored(house.store, "hello")
        house.store.gate.clear()
        first, second = (asyncio.create_task(house.document()) for _ in range(2))
        await house.settle()

        first.cancel()
        await house.settle()
        house.store.gate.set()

        assert text(await second) == "hello"
        assert house.store.loads == 1


@in_no_time
async def test_a_reader_of_what_is_not_there_makes_nothing() -> None:
    async with House() as house:
        async with house.open(create=False) as document:
            assert (document.lineage, text(document)) == ("", "")

        assert await house.store.find("d") is None


@in_no_time
async def test_a_document_that_was_only_read_is_stored_when_a_writer_comes() -> None:
    async with House() as house, house.open(create=False) as read:
        async with house.open(create=True) as written:
            written.take_update(Writer().type("hello"), ALICE, NOON)
            await house.settle()

        assert read is written
        assert await house.store.text("d") == "hello"


@in_no_time
async def test_a_document_that_was_made_elsewhere_since_a_reader_opened_it_is_learned_by_everyone_in_it() -> None:
    async with House() as house, house.open(create=False) as document:
        listener = house.attend(document)
        writer = await stored(house.store, "made elsewhere")

        await house.document()

        assert listener.heard == [yjs.Update(writer.updates[0])]
        assert document.lineage == "lineage of d"


@in_no_time
async def test_whoever_comes_to_write_is_not_let_into_a_document_that_was_replaced_at_this_moment() -> None:
    async with House() as house, house.open(create=False) as document:
        house.store.gate.clear()
        writer = asyncio.create_task(house.document())
        await house.settle()

        house.open_documents.forget(document)
        house.store.gate.set()

        with pytest.raises(Storage):
            await writer


@in_no_time
async def test_nobody_opens_anything_when_the_library_is_not_at_work() -> None:
    closed = OpenDocuments(FaultyStore(), clock=ManualClock(NOON))

    with pytest.raises(Storage):
        async with closed.using("d", create=True):
            pass


@in_no_time
async def test_no_more_documents_are_open_than_may_be() -> None:
    async with House(max_open_documents=2) as house, house.open("a"), house.open("b"):
        await house.settle()
        with pytest.raises(Storage):
            await house.document("c")


@in_no_time
async def test_the_longest_idle_document_makes_room_for_another() -> None:
    async with House(max_open_documents=2) as house:
        for name in ("a", "b", "a", "c"):
            await house.document(name)
            house.clock.advance(seconds=1)

        assert {document.name for document in house.open_documents} == {"a", "c"}


# --- seeds ----------------------------------------------------------------------------------------------


class Seed:
    """What new documents begin with; ``asked`` for which."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, name: str) -> Mapping[str, Any] | None:
        self.asked.append(name)
        return {"content": "seed"} if name == "d" else None


@in_no_time
async def test_a_new_document_begins_with_what_the_server_says_once() -> None:
    seed = Seed()
    async with House(seed=seed) as house:
        documents = await asyncio.gather(*(house.document() for _ in range(10)))
        await house.close()
        again = House(house.store, seed=seed)
        async with again:
            reopened = await again.document()

            assert {text(document) for document in documents} == {"seed"}
            assert text(reopened) == "seed"
            assert seed.asked == ["d"]
            assert await again.store.text("d") == "seed"


@in_no_time
async def test_a_document_without_a_seed_begins_empty() -> None:
    async with House(seed=Seed()) as house:
        document = await house.document("another")

        assert (text(document), house.store.appended) == ("", [])


@in_no_time
async def test_what_is_stored_already_is_not_seeded() -> None:
    async with House(seed=Seed()) as house:
        await stored(house.store, "hello")

        assert text(await house.document()) == "hello"


@in_no_time
async def test_what_was_made_elsewhere_since_a_reader_opened_it_is_not_seeded_either() -> None:
    async with House(seed=Seed()) as house, house.open(create=False) as document:
        await stored(house.store, "hello")

        await house.document()

        assert text(document) == await house.store.text("d") == "hello"


@in_no_time
async def test_two_processes_that_make_a_document_at_the_same_time_seed_it_once() -> None:
    store = FaultyStore(shared=True)
    async with House(store, seed=Seed()) as one, House(store, seed=Seed()) as other:
        await asyncio.gather(one.document(), other.document())
        await one.settle()
        await other.settle()

        assert await store.text("d") == "seed"


@in_no_time
async def test_a_document_whose_maker_crashed_before_the_seed_was_stored_is_seeded_by_the_next_one() -> None:
    store = FaultyStore()
    async with House(store, seed=Seed()) as house:
        store.away = True  # for loads and appends; it was made
        await store.create("d", "l", NOON)
        await house.crash()
    store.away = False

    async with House(store, seed=Seed()) as house:
        assert text(await house.document()) == "seed"


@in_no_time
async def test_a_seed_that_cannot_be_had_leaves_no_unseeded_document_behind() -> None:
    failing = True

    def seed(name: str) -> Mapping[str, Any]:
        if failing:
            raise RuntimeError(name)
        return {"content": "seed"}

    async with House(seed=seed) as house:
        with pytest.raises(RoomkeyError):
            await house.document()

        failing = False
        await house.pass_time(1)
        house.open_documents.evict(house.clock.advance(hours=1))

        assert text(await house.document()) == "seed"


# --- putting away ---------------------------------------------------------------------------------------


@in_no_time
async def test_a_document_that_nobody_has_used_for_long_is_put_away_and_opened_anew() -> None:
    async with House(idle_timeout=timedelta(minutes=5)) as house:
        document = await house.document()

        house.open_documents.evict(house.clock.advance(minutes=4, seconds=59))
        kept = house.open_documents.find("d")
        house.open_documents.evict(house.clock.advance(seconds=1))

        assert kept is document
        assert house.open_documents.find("d") is None
        assert await house.document() is not document
        assert house.open_documents.statistics().evictions == 1


@in_no_time
async def test_whoever_opens_a_document_again_in_time_keeps_it_open() -> None:
    async with House(idle_timeout=timedelta(minutes=5)) as house:
        document = await house.document()
        house.clock.advance(minutes=4)
        await house.document()

        house.open_documents.evict(house.clock.advance(minutes=4))

        assert house.open_documents.find("d") is document


@pytest.mark.parametrize("use", ["attendee", "pin", "unsaved"])
@in_no_time
async def test_what_is_used_or_not_saved_is_never_put_away(use: str) -> None:
    async with House(max_idle_bytes=1) as house:
        document = await house.document()
        document.take_update(Writer().type("hello"), ALICE, NOON)
        await house.settle()
        if use == "attendee":
            house.attend(document)
        elif use == "pin":
            document.pin()
        else:
            house.store.gate.clear()
            document.take_update(Writer().type("unsaved"), ALICE, NOON)

        house.open_documents.evict(house.clock.advance(hours=1))

        assert house.open_documents.find("d") is document
        house.store.gate.set()


@in_no_time
async def test_what_was_unsaved_may_be_put_away_once_it_is_saved() -> None:
    async with House(max_idle_bytes=1) as house:
        document = await house.document()
        document.take_update(Writer().type("hello"), ALICE, NOON)
        await house.settle()

        house.open_documents.evict(NOON)

        assert house.open_documents.find("d") is None


@in_no_time
async def test_beyond_the_budget_the_longest_idle_documents_go_first_and_only_as_many_as_must() -> None:
    async with House(max_idle_bytes=250) as house:
        for name in ("a", "b", "c", "d"):
            document = await house.document(name)
            document.take_update(Writer().type("x" * 100), ALICE, NOON)
            await house.settle()
            house.clock.advance(seconds=1)
        await house.document("a")
        house.clock.advance(seconds=1)

        house.open_documents.evict(house.clock.now())

        assert {document.name for document in house.open_documents} == {"a"} | {"d"}


@in_no_time
async def test_a_document_that_is_put_away_is_gone_without_the_collector_of_cycles() -> None:
    async with House() as house:
        document = weakref.ref(await house.document())
        house.clock.advance(hours=1)
        gc.collect()
        gc.disable()

        try:
            house.open_documents.evict(house.clock.now())
            await house.settle()
            is_there = document() is not None
        finally:
            gc.enable()

        assert not is_there


@in_no_time
async def test_documents_of_which_there_is_nothing_are_put_away_at_once() -> None:
    async with House() as house:
        await house.document("kept")
        house.clock.advance(seconds=1)
        for number in range(10):
            async with house.open(f"nothing {number}", create=False):
                house.clock.advance(seconds=1)

        house.open_documents.evict(house.clock.now())

        assert [document.name for document in house.open_documents] == ["kept"]


@in_no_time
async def test_whoever_joins_while_the_last_one_leaves_is_in_the_same_document() -> None:
    async with House(max_idle_bytes=1) as house:
        document = await house.document()
        document.take_update(Writer().type("hello"), ALICE, NOON)
        listener = house.attend(document)
        await house.settle()

        async with house.open() as joined:
            listener.leave()
            house.open_documents.evict(house.clock.advance(hours=1))
            house.attend(joined)
        house.open_documents.evict(house.clock.advance(hours=1))

        assert house.open_documents.find("d") is joined is document


@in_no_time
async def test_a_handshake_that_is_not_answered_yet_keeps_its_document_open_until_it_is_over() -> None:
    async with House(max_idle_bytes=1) as house:
        await stored(house.store, "hello")
        _, token = house.sessions.issue()
        answer = await house.knock(token)
        assert isinstance(answer, Accepted)

        house.open_documents.evict(house.clock.advance(hours=1))
        kept = house.open_documents.find("d")
        answer.conversation.closed(1006)
        house.open_documents.evict(house.clock.advance(hours=1))

        assert kept is not None
        assert house.open_documents.find("d") is None


# --- the end --------------------------------------------------------------------------------------------


@in_no_time
async def test_a_node_that_stops_stores_what_is_not_stored_yet() -> None:
    async with House() as house:
        document = await house.document()
        house.store.away = True
        document.take_update(Writer().type("hello"), ALICE, NOON)
        await house.settle()

        closing = asyncio.create_task(house.close())
        await asyncio.sleep(open_documents.FLUSH_SECONDS / 2)
        house.store.away = False
        await closing

        assert await house.store.text("d") == "hello"


@in_no_time
async def test_a_node_whose_storage_does_not_answer_stops_nevertheless() -> None:
    async with House() as house:
        document = await house.document()
        house.store.away = True
        document.take_update(Writer().type("hello"), ALICE, NOON)
        begun = asyncio.get_running_loop().time()

        await house.close()

        assert asyncio.get_running_loop().time() - begun == pytest.approx(open_documents.FLUSH_SECONDS)
        assert len(house.open_documents) == 0


@in_no_time
async def test_what_waits_for_storage_is_counted_and_after_some_seconds_something_is_wrong() -> None:
    async with House() as house:
        document = await house.document()
        house.store.away = True
        document.take_update(Writer().type("hello"), ALICE, NOON)
        soon = house.open_documents.degradations()

        await house.pass_time(7)
        statistics, degradations = house.open_documents.statistics(), house.open_documents.degradations()
        house.store.away = False
        await house.pass_time(10)

        assert soon == {}
        assert (statistics.dirty, statistics.unsaved_updates, statistics.lag_seconds) == (1, 1, 7)
        assert statistics.unsaved_bytes == document.size
        assert degradations == {"documents": "1 changes of 1 documents are not saved, the oldest for 7 s"}
        assert house.open_documents.degradations() == {}


@in_no_time
async def test_a_document_is_put_away_when_nobody_has_been_in_it_for_as_long_as_it_may_be_idle() -> None:
    async with House(idle_timeout=timedelta(minutes=1)) as house:
        editor = await house.editor()
        opened = house.clock.now()

        await house.pass_time(50)
        editor.cut()
        await house.pass_time(50)
        house.open_documents.evict(house.clock.now())
        after_100_seconds = len(house.open_documents)
        await house.pass_time(11)
        house.open_documents.evict(house.clock.now())

        assert house.clock.now() - opened == timedelta(seconds=111)
        assert (after_100_seconds, len(house.open_documents)) == (1, 0)
        assert len(house.audiences) == 0
