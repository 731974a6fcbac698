"""Several nodes: what one has stored the others show, without reading it, and nothing is shown that is not stored."""

import asyncio
from datetime import timedelta

import pytest

from roomkey.documents.content import roots
from roomkey.documents.following import SLICES, Follower
from roomkey.documents.node_messages import Appended, Grown
from roomkey.errors import DocumentNotFound, Storage
from roomkey.ports import Publication
from roomkey.realtime.protocol import yjs_messages as yjs
from tests.support.document_nodes import CountingStore, Nodes, follow
from tests.support.loops import in_no_time
from tests.support.open_documents import ALICE, BOB, House, Writer, text
from tests.support.sockets import NOON

# --- what is stored -------------------------------------------------------------------------------------


@in_no_time
async def test_what_one_node_stores_is_shown_on_the_others_without_reading_the_log() -> None:
    async with Nodes("a", "b", "c") as nodes:
        here, *there = await nodes.documents()
        listeners = [house.attend(document) for house, document in zip([nodes["b"], nodes["c"]], there, strict=True)]
        writer, loads, nodes.store.tails = Writer(), nodes.store.loads, 0

        for letter in "hello":
            here.take_update(writer.type(letter), ALICE, NOON)
            await nodes.settle()

        assert [text(document) for document in there] == ["hello"] * 2
        assert [listener.heard for listener in listeners] == [[yjs.Update(update) for update in writer.updates]] * 2
        assert {document.sequence for document in [here, *there]} == {5}
        assert (nodes.store.loads, nodes.store.tails) == (loads, 0)

        await follow(nodes["b"])
        assert nodes.store.tails == 0


@in_no_time
async def test_nothing_is_shown_on_another_node_before_it_is_stored() -> None:
    async with Nodes("a", "b") as nodes:
        here, there = await nodes.documents()
        nodes.store.gate.clear()

        here.take_update(Writer().type("x"), ALICE, NOON)
        await nodes.settle()
        assert (text(here), text(there)) == ("x", "")

        nodes.store.gate.set()
        await nodes.settle()
        assert text(there) == "x"


@in_no_time
async def test_what_a_node_has_stored_and_not_told_is_found_part_by_part() -> None:
    async with Nodes("a", "b") as nodes:
        names = [f"d{number}" for number in range(20)]
        here = [await nodes["a"].document(name) for name in names]
        there = [await nodes["b"].document(name) for name in names]
        for document in there:
            nodes["b"].attend(document)
        follower = Follower(nodes["b"].open_documents)
        await looks(follower, SLICES)
        nodes.broker("b").cut = True

        for document in here:
            document.take_update(Writer().type("x"), ALICE, NOON)
        await nodes.settle()
        await looks(follower, 1)
        first = sum(text(document) == "x" for document in there)
        await looks(follower, SLICES - 1)

        assert 0 <= first < len(names)
        assert all(text(document) == "x" for document in there)


@in_no_time
async def test_where_nothing_can_be_told_all_documents_are_looked_at_at_once() -> None:
    async with Nodes("a", "b") as nodes:
        names = [f"d{number}" for number in range(20)]
        here = [await nodes["a"].document(name) for name in names]
        there = [await nodes["b"].document(name) for name in names]
        for document in there:
            nodes["b"].attend(document)
        nodes.broker("a").away = nodes.broker("b").away = True
        for document in there:
            document.take_update(Writer().type("y"), BOB, NOON)
        await nodes.settle()

        for document in here:
            document.take_update(Writer().type("x"), ALICE, NOON)
        await nodes.settle()
        await looks(Follower(nodes["b"].open_documents), 1)

        assert all(set(text(document)) == set("xy") for document in there)


async def looks(follower: Follower, number: int) -> None:
    for _ in range(number):
        await follower.look()


@in_no_time
async def test_what_could_not_be_stored_for_long_is_stored_and_told_once() -> None:
    async with Nodes("a", "b") as nodes:
        here, there = await nodes.documents()
        writer, nodes.store.away = Writer(), True
        for letter in "abc":
            here.take_update(writer.type(letter), ALICE, NOON)
        await nodes["a"].pass_time(2)
        assert (text(here), text(there)) == ("abc", "")

        nodes.store.away = False
        await nodes["a"].pass_time(10)
        await nodes.settle()

        assert text(there) == "abc"
        assert nodes.store.appended == [writer.updates]
        assert len(nodes.told(Appended)) == 1


@in_no_time
async def test_who_and_when_arrive_with_what_was_stored() -> None:
    async with Nodes("a", "b") as nodes:
        here, there = await nodes.documents()
        writer = Writer()

        for letter in "ab":
            here.take_update(writer.type(letter), ALICE, NOON)
            await nodes.settle()

        bound = there.replica.identities.owner(writer.doc.client_id)
        assert bound is not None
        assert (bound.user, bound.firm) == ("alice", True)


@in_no_time
async def test_two_nodes_that_write_at_once_come_to_the_same_numbers_and_read_nothing() -> None:
    async with Nodes("a", "b") as nodes:
        documents = await nodes.documents()
        writers, nodes.store.tails = [Writer(), Writer()], 0

        for round_ in range(20):
            for document, writer in zip(documents, writers, strict=True):
                document.take_update(writer.type(str(round_ % 10)), ALICE, NOON)
                if round_ % 3:
                    await asyncio.sleep(0)
        await nodes.settle()

        assert len({text(document) for document in documents}) == 1
        assert len(text(documents[0])) == 40
        assert {(document.sequence, document.version, document.has_gap) for document in documents} == {(40, 40, False)}
        assert nodes.store.tails == 0


@in_no_time
async def test_what_arrives_before_what_it_follows_is_shown_and_counts_when_the_rest_is_there() -> None:
    async with Nodes("a", "b", "c") as nodes:
        one, other, there = await nodes.documents()
        nodes.broker("c").held = True
        one.take_update(Writer().type("1"), ALICE, NOON)
        await nodes.settle()
        other.take_update(Writer().type("2"), BOB, NOON)
        await nodes.settle()
        first, second = nodes.broker("c").waiting
        nodes.store.tails = 0

        nodes.broker("c").waiting.clear()
        nodes.broker("c").hand(*second)
        nodes.broker("c").deliver()
        assert (text(there), there.sequence, there.version, there.has_gap) == ("2", 0, 1, True)

        nodes.broker("c").hand(*first)
        nodes.broker("c").hand(*second)
        nodes.broker("c").deliver()
        assert (sorted(text(there)), there.sequence, there.version) == (["1", "2"], 2, 2)
        assert nodes.store.tails == 0


@in_no_time
async def test_what_follows_in_the_log_and_was_here_before_is_there_once() -> None:
    async with Nodes("a", "b") as nodes:
        here, there = await nodes.documents()
        writer = Writer()
        both = [writer.type("x"), writer.type("y")]
        nodes.store.gate.clear()

        for update in both:  # a client that lost its connection brings to one node what it has sent to the other
            here.take_update(update, ALICE, NOON)
            there.take_update(update, ALICE, NOON)
        nodes.store.gate.set()
        await nodes.settle()

        assert (text(here), text(there)) == ("xy", "xy")
        assert here.sequence == there.sequence == sum(map(len, nodes.store.appended))
        assert nodes.store.tails == 0


@in_no_time
async def test_a_gap_that_stays_is_read_and_nothing_else() -> None:
    async with Nodes("a", "b") as nodes:
        here, there = await nodes.documents()
        writer, loads = Writer(), nodes.store.loads
        nodes.broker("b").cut = True
        here.take_update(writer.type("lost"), ALICE, NOON)
        await nodes.settle()
        nodes.broker("b").cut = False

        here.take_update(writer.type("!"), ALICE, NOON)
        await nodes.settle()
        await nodes["b"].pass_time(0.1)

        assert (text(there), there.sequence, there.has_gap) == ("lost!", 2, False)
        assert (nodes.store.loads, nodes.store.tails) == (loads, 1)


@in_no_time
async def test_after_a_gap_every_document_is_looked_at_and_only_what_is_missing_is_read() -> None:
    async with Nodes("a", "b") as nodes:
        names = [f"d{number}" for number in range(40)]
        pairs = [await nodes.documents(name) for name in names]
        loads, nodes.store.tails = nodes.store.loads, 0
        nodes.broker("b").cut = True
        for here, _ in pairs[::2]:
            here.take_update(Writer().type("x"), ALICE, NOON)
        await nodes.settle()

        nodes.broker("b").mend()
        await nodes.settle()

        assert [text(there) for _, there in pairs] == ["x", ""] * 20
        assert (nodes.store.loads, nodes.store.tails) == (loads, 20)


@in_no_time
async def test_what_is_large_is_announced_and_read() -> None:
    async with Nodes("a", "b") as nodes:
        here, there = await nodes.documents()

        here.take_update(Writer().type("x" * 300_000), ALICE, NOON)
        await nodes.settle()

        assert len(text(there)) == 300_000
        assert len(nodes.told(Grown)) == 2, "one says that the document was made"
        assert not nodes.told(Appended)


@in_no_time
async def test_what_is_told_while_a_document_is_loaded_is_in_it() -> None:
    async with Nodes("a", "b") as nodes:
        here = await nodes["a"].document()
        await nodes.settle()
        nodes.store.gate.clear()
        here.take_update(Writer().type("x"), ALICE, NOON)
        opening = asyncio.create_task(nodes["b"].document())
        await nodes.settle()

        nodes.store.gate.set()
        there = await opening
        await nodes.settle()

        assert (text(there), there.sequence) == ("x", 1)


@in_no_time
async def test_a_change_over_rest_is_shown_on_every_node() -> None:
    async with Nodes("a", "b") as nodes:
        _, there = await nodes.documents()
        nodes.store.tails = 0

        await nodes.service("a").edit("d", lambda doc: roots.replace(doc, {"content": "new"}), ALICE)
        await nodes.settle()

        assert (text(there), nodes.store.tails) == ("new", 0)


@in_no_time
async def test_a_node_hears_of_the_documents_that_it_has_open_and_of_no_others() -> None:
    async with Nodes("a", "b", idle_timeout=timedelta(seconds=1)) as nodes:
        await nodes.documents("d")
        await nodes["a"].document("e")
        assert {name[2:] for name in nodes.broker("b").receivers} == {"", "d"}

        nodes.clock.advance(seconds=10)
        nodes["b"].open_documents.evict(nodes.clock.now())
        await nodes.settle()
        assert {name[2:] for name in nodes.broker("b").receivers} == {""}

        await nodes["b"].document("d")
        assert {name[2:] for name in nodes.broker("b").receivers} == {"", "d"}


@in_no_time
async def test_a_document_that_cannot_be_heard_of_is_not_opened() -> None:
    async with Nodes("a") as nodes:
        nodes.broker("a").away = True

        with pytest.raises(Storage):
            await nodes["a"].document()

        nodes.broker("a").away = False
        assert await nodes["a"].document()


@in_no_time
async def test_what_another_version_of_roomkey_says_is_passed_over() -> None:
    async with Nodes("a", "b") as nodes:
        here, there = await nodes.documents()
        for message in (b"\x02later", b"\x01\xff", b"{}"):
            for room in tuple(nodes.broker("b").receivers):
                nodes.broker("b").hand(room, Publication(message, "c", None))

        here.take_update(Writer().type("x"), ALICE, NOON)
        await nodes.settle()

        assert text(there) == "x"


# --- made, deleted, made anew ---------------------------------------------------------------------------


@in_no_time
async def test_a_document_that_is_made_on_one_node_is_there_for_who_only_reads_on_another() -> None:
    async with Nodes("a", "b") as nodes, nodes["b"].open(create=False) as there:
        listener = nodes["b"].attend(there)
        here = await nodes["a"].document()
        here.take_update(Writer().type("x"), ALICE, NOON)
        await nodes.settle()

        assert (there.lineage, text(there)) == (here.lineage, "x")
        assert len(listener.heard) == 1


@in_no_time
async def test_a_document_that_is_deleted_is_gone_on_every_node_at_once() -> None:
    async with Nodes("a", "b") as nodes:
        _, there = await nodes.documents()
        listener = nodes["b"].attend(there)

        await nodes.service("a").delete("d")
        await nodes.settle()

        assert listener.told == ["deleted"]
        assert there.is_deleted
        with pytest.raises(DocumentNotFound):
            await nodes.service("b").read("d")


@in_no_time
async def test_a_copy_of_what_was_deleted_elsewhere_gets_into_no_document_of_its_name() -> None:
    async with Nodes("a", "b") as nodes:
        here = await nodes["a"].document()
        old = Writer()
        here.take_update(old.type("old"), ALICE, NOON)
        await nodes.settle()
        await nodes.service("a").delete("d")
        await nodes.settle()

        there = await nodes["b"].document()  # which never had the other one
        editor = await nodes["b"].editor()
        editor.doc.apply_update(old.updates[0])
        await nodes["b"].converse(editor)

        assert (text(there), await nodes.store.text("d")) == ("", "")
        assert editor.is_closed


@in_no_time
async def test_what_is_still_told_of_a_deleted_document_does_not_get_into_the_new_one() -> None:
    async with Nodes("a", "b", "c") as nodes:
        here, there, _ = await nodes.documents()
        nodes.broker("c").held = True
        here.take_update(Writer().type("old"), ALICE, NOON)
        await nodes.settle()
        await nodes.service("a").delete("d")
        await nodes.settle()
        new = await nodes["b"].document()
        new.take_update(Writer().type("new"), ALICE, NOON)
        await nodes.settle()
        third = await nodes["c"].document()

        nodes.broker("c").deliver()
        await nodes.settle()

        assert there.is_deleted
        assert (third.lineage, text(third)) == (new.lineage, "new")


@in_no_time
async def test_a_document_that_is_made_anew_and_as_long_is_another_one_for_who_heard_nothing_of_it() -> None:
    async with Nodes("a", "b") as nodes:
        here, there = await nodes.documents()
        here.take_update(Writer().type("old"), ALICE, NOON)
        await nodes.settle()
        nodes.broker("b").cut = True
        await nodes.service("a").delete("d")
        (await nodes["a"].document()).take_update(Writer().type("new"), ALICE, NOON)
        await nodes.settle()
        nodes.broker("b").cut = False

        assert text(await nodes["b"].document()) == "new"
        assert there.is_deleted


# --- a node that is alone -------------------------------------------------------------------------------


@in_no_time
async def test_a_node_that_is_alone_tells_nobody_anything() -> None:
    async with House(CountingStore()) as house:
        document = await house.document()
        listener = house.attend(document)
        listener.show(5)
        document.take_update(Writer().type("x"), ALICE, NOON)
        await house.settle()

        assert not house.open_documents.relay.is_on
        assert text(document) == "x"
