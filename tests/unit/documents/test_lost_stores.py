"""Storage that has lost what it had acknowledged: what nodes hold is stored once more, or kept and not written over."""

import asyncio
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from roomkey.documents.following import Follower
from roomkey.errors import DocumentNotFound, StorageLost
from roomkey.ports import DocumentHead, DocumentUpdate
from tests.support.document_nodes import CountingStore, Nodes, follow
from tests.support.loops import in_no_time
from tests.support.open_documents import ALICE, Writer, text
from tests.support.sockets import NOON


async def look(nodes: Nodes, times: int = 1) -> None:
    """Have every node look for what is new, as it does all the time."""
    for _ in range(times):
        for house in nodes:
            await follow(house)
        await nodes.settle()


# --- the last of it -------------------------------------------------------------------------------------


@in_no_time
async def test_what_storage_has_lost_of_a_log_is_stored_once_more_by_one_node() -> None:
    async with Nodes("a", "b", "c") as nodes:
        documents = await nodes.documents()
        for house, document in zip(nodes, documents, strict=True):
            house.attend(document)
        writer = Writer()
        for letter in "hello":
            documents[0].take_update(writer.type(letter), ALICE, NOON)
            await nodes.settle()
        nodes.store.forget_updates(3)
        assert await nodes.store.text("d") == "he"

        with capture_logs() as logs:
            await look(nodes, 2)

        assert await nodes.store.text("d") == "hello"
        assert [log["log"] for log in logs if log["event"] == "document_log_restored"] == [2]
        record = await nodes.store.find("d")
        assert record is not None
        assert {document.sequence for document in documents} == {record.sequence} == {5}, "numbers say what they said"


@in_no_time
async def test_who_was_not_as_far_gets_what_is_stored_once_more() -> None:
    async with Nodes("a", "b") as nodes:
        here, there = await nodes.documents()
        for house, document in zip(nodes, (here, there), strict=True):
            house.attend(document)
        writer = Writer()
        here.take_update(writer.type("1"), ALICE, NOON)
        await nodes.settle()
        nodes.broker("b").cut = True
        for letter in "23":
            here.take_update(writer.type(letter), ALICE, NOON)
            await nodes.settle()
        nodes.store.forget_updates(2)

        await look(nodes, 2)

        assert (text(there), await nodes.store.text("d")) == ("123", "123")


@in_no_time
async def test_who_was_a_bit_further_than_the_log_gets_it_too() -> None:
    async with Nodes("a", "b") as nodes:
        here, there = await nodes.documents()
        for house, document in zip(nodes, (here, there), strict=True):
            house.attend(document)
        writer = Writer()
        for letter in "12":
            here.take_update(writer.type(letter), ALICE, NOON)
            await nodes.settle()
        nodes.broker("b").cut = True
        here.take_update(writer.type("3"), ALICE, NOON)
        await nodes.settle()
        nodes.store.forget_updates(2)

        await follow(nodes["a"])
        await follow(nodes["b"])

        assert (text(there), there.sequence, await nodes.store.text("d")) == ("123", 3, "123")


@in_no_time
async def test_who_writes_notices_that_numbers_are_given_again() -> None:
    async with Nodes("a") as nodes:
        document = await nodes["a"].document()
        writer = Writer()
        for letter in "abc":
            document.take_update(writer.type(letter), ALICE, NOON)
            await nodes.settle()
        nodes.store.forget_updates(2)

        for letter in "1234":
            document.take_update(Writer().type(letter), ALICE, NOON)
        await nodes.settle()

        assert sorted(await nodes.store.text("d")) == sorted("abc1234")


@in_no_time
async def test_what_was_lost_is_missed_though_the_log_is_as_long_again() -> None:
    async with Nodes("a", "b") as nodes:
        here, there = await nodes.documents()
        writer, other = Writer(), Writer()
        for letter in "abc":
            here.take_update(writer.type(letter), ALICE, NOON)
            await nodes.settle()
        nodes.store.forget_updates(3)

        # Nobody has noticed, and the numbers of what was lost are given to something else.
        there.take_update(other.type("1"), ALICE, NOON)
        there.take_update(other.type("2"), ALICE, NOON)
        there.take_update(other.type("3"), ALICE, NOON)
        there.take_update(other.type("4"), ALICE, NOON)
        await nodes.settle()
        await look(nodes)

        assert sorted(await nodes.store.text("d")) == sorted("abc1234")
        assert text(here) == text(there) == await nodes.store.text("d")


@in_no_time
async def test_a_document_that_nobody_touches_is_looked_at_now_and_then() -> None:
    async with Nodes("a") as nodes:
        document = await nodes["a"].document()
        document.take_update(Writer().type("x"), ALICE, NOON)
        await nodes.settle()
        follower = Follower(nodes["a"].open_documents)
        await follower.look()
        nodes.store.forget_updates(1, in_silence=True)

        for _ in range(39):
            await follower.look()

        assert await nodes.store.text("d") == "x"


@in_no_time
async def test_what_is_not_stored_yet_is_not_stored_twice_when_something_was_lost() -> None:
    async with Nodes("a") as nodes:
        document = await nodes["a"].document()
        nodes["a"].attend(document)
        writer = Writer()
        for letter in "ab":
            document.take_update(writer.type(letter), ALICE, NOON)
            await nodes.settle()
        nodes.store.forget_updates(1)
        nodes.store.broken.add("d")  # for what waits
        document.take_update(Writer().type("c"), ALICE, NOON)
        await nodes.settle()

        await look(nodes)
        assert await nodes.store.text("d") == "ab"

        nodes.store.broken.clear()
        await nodes["a"].pass_time(1)
        assert sorted(await nodes.store.text("d")) == sorted("abc")


@in_no_time
async def test_nothing_is_stored_once_more_of_what_is_there() -> None:
    async with Nodes("a", "b") as nodes:
        here, there = await nodes.documents()
        for letter in "abc":
            here.take_update(Writer().type(letter), ALICE, NOON)
            await nodes.settle()

        await nodes["b"].open_documents.catching_up.recover(there)

        record = await nodes.store.find("d")
        assert record is not None
        assert record.sequence == 3


class SlowToSay(CountingStore):
    """One that is slow to say how far logs have come."""

    async def heads(self, names: Sequence[str]) -> Sequence[DocumentHead | None]:
        heads = await super().heads(names)
        await self.late.wait()
        return heads


@in_no_time
async def test_what_is_stored_while_somebody_looks_is_not_taken_for_lost() -> None:
    store = SlowToSay()
    store.late.set()
    async with Nodes("a", store=store) as nodes:
        document = await nodes["a"].document()
        nodes["a"].attend(document)
        store.late.clear()
        loads = store.loads
        looking = asyncio.create_task(follow(nodes["a"]))
        await nodes.settle()
        document.take_update(Writer().type("x"), ALICE, NOON)
        await nodes.settle()

        store.late.set()
        await looking

        assert (document.sequence, store.loads, store.tails) == (1, loads, 0)


# --- all of it ------------------------------------------------------------------------------------------


@in_no_time
async def test_a_document_that_storage_has_lost_is_not_written_over_the_emptiness() -> None:
    async with Nodes("a", "b") as nodes:
        documents = await nodes.documents()
        listeners = [house.attend(document) for house, document in zip(nodes, documents, strict=True)]
        documents[0].take_update(Writer().type("kept"), ALICE, NOON)
        await nodes.settle()
        nodes.store.forget_documents()

        await look(nodes)

        assert [listener.told for listener in listeners] == [["storage lost"]] * 2
        assert await nodes.store.find("d") is None
        for name in ("a", "b"):
            with pytest.raises(StorageLost):
                await nodes.service(name).read("d")
            assert "1 open documents are not in the storage" in str(nodes[name].open_documents.degradations())
        assert [text(document) for document in documents] == ["kept"] * 2


@in_no_time
async def test_a_change_finds_that_storage_has_lost_the_document_and_the_client_is_told() -> None:
    async with Nodes("a") as nodes:
        editor = await nodes["a"].editor()
        editor.text += "kept"
        await nodes["a"].converse(editor)
        nodes.store.forget_documents()

        editor.text += "!"
        await nodes["a"].converse(editor)

        assert editor.socket.closed_with == (1013, "storage_lost")
        assert await nodes.store.find("d") is None


@in_no_time
async def test_a_lost_document_stays_in_memory_though_nobody_is_in_it() -> None:
    async with Nodes("a") as nodes:
        document = await nodes["a"].document()
        document.take_update(Writer().type("kept"), ALICE, NOON)
        await nodes.settle()
        nodes.store.forget_documents()
        with pytest.raises(StorageLost):
            await nodes.service("a").read("d")

        nodes["a"].open_documents.evict(nodes.clock.advance(days=1))

        assert nodes["a"].open_documents.find("d") is document


@in_no_time
async def test_another_document_in_the_place_of_a_lost_one_is_left_alone() -> None:
    async with Nodes("a") as nodes:
        document = await nodes["a"].document()
        document.take_update(Writer().type("old"), ALICE, NOON)
        await nodes.settle()
        nodes.store.forget_documents()
        await nodes.store.create("d", "another", NOON)

        with pytest.raises(StorageLost):
            await nodes.service("a").read("d")

        stored = await nodes.store.load("d")
        assert stored is not None
        assert (stored.record.lineage, stored.updates) == ("another", ())


@in_no_time
async def test_a_document_that_is_restored_goes_on_with_what_nodes_have_beyond_the_backup() -> None:
    async with Nodes("a") as nodes:
        document = await nodes["a"].document()
        writer = Writer()
        for letter in "abc":
            document.take_update(writer.type(letter), ALICE, NOON)
            await nodes.settle()
        nodes.store.forget_documents()
        with pytest.raises(StorageLost):
            await nodes.service("a").read("d")

        await nodes.store.create("d", document.lineage, NOON)  # as an operator has it from yesterday
        await nodes.store.append("d", document.lineage, [DocumentUpdate(writer.updates[0], ALICE, NOON)])
        reading = await nodes.service("a").read("d")

        assert await nodes.store.text("d") == "abc"
        assert reading.revision.version == 3
        assert nodes["a"].open_documents.degradations() == {}
        document.take_update(writer.type("d"), ALICE, NOON)
        await nodes.settle()
        assert await nodes.store.text("d") == "abcd"


@in_no_time
async def test_a_document_that_was_deleted_is_not_taken_for_lost() -> None:
    async with Nodes("a", "b") as nodes:
        _, there = await nodes.documents()
        listener = nodes["b"].attend(there)
        nodes.broker("b").cut = True
        await nodes.service("a").delete("d")

        await look(nodes)

        assert listener.told == ["deleted"]
        with pytest.raises(DocumentNotFound):
            await nodes.service("b").read("d")


@in_no_time
async def test_a_document_that_is_made_while_somebody_looks_is_not_taken_for_lost() -> None:
    async with Nodes("a") as nodes:
        document = await nodes["a"].document()

        await nodes["a"].open_documents.catching_up.reach(document, None, 0)  # a look from before it was made

        assert not document.is_withheld
        assert not document.is_gone
