"""Who is shown in a document on several nodes: everybody who is there, nobody who is gone."""

from datetime import timedelta

from roomkey.documents.crdt.awareness import Owner
from roomkey.documents.crdt.identity import Source
from roomkey.documents.document import Document
from roomkey.documents.node_messages import Asked, Reminded, Shown
from roomkey.wire.lib0 import GONE, AwarenessEntry
from tests.support.document_nodes import Nodes, show, shown
from tests.support.loops import in_no_time
from tests.support.open_documents import ALICE, Writer
from tests.support.sockets import NOON

LAPTOP, PHONE = Source("alice"), Source("alice")


def clock_of(document: Document, client: int) -> int:
    """The clock of a client that is shown."""
    return next(entry.clock for entry in document.awareness.entries() if entry.client == client)


@in_no_time
async def test_who_is_on_one_node_is_shown_on_the_others_and_told_to_their_clients() -> None:
    async with Nodes("a", "b") as nodes:
        here, there = await nodes.documents()
        listener = nodes["b"].attend(there)

        show(here, LAPTOP, 5)
        await nodes.settle()

        assert shown(there) == [5]
        assert [message.entries for message in listener.awareness] == [[AwarenessEntry(5, 1, b'{"user":"alice"}')]]


@in_no_time
async def test_what_is_shown_within_a_tick_is_one_message_with_the_newest_of_each_client() -> None:
    async with Nodes("a", "b") as nodes:
        here, there = await nodes.documents()
        await nodes.settle()
        before = len(nodes.told(Shown))

        for clock in range(1, 6):
            show(here, LAPTOP, 5, clock)
            show(here, PHONE, 6, clock)
        await nodes.settle()

        (message,) = nodes.told(Shown)[before:]
        assert isinstance(message, Shown)
        assert [(entry.client, entry.clock) for entry in message.entries] == [(5, 5), (6, 5)]
        assert shown(there) == [5, 6]


@in_no_time
async def test_a_node_that_joins_asks_and_each_answers_for_its_own_clients() -> None:
    async with Nodes("a", "b") as nodes:
        here, there = await nodes.documents()
        show(here, LAPTOP, 5)
        show(there, PHONE, 6)
        await nodes.settle()

        joiner = await (await nodes.begin("c")).document()
        await nodes.settle()

        assert shown(joiner) == [5, 6]
        owners = {entry.client: owner for entry, owner in joiner.awareness.owned()}
        assert [str(owners[client].connection) for client in (5, 6)] == ["OtherNode(node='a')", "OtherNode(node='b')"]


@in_no_time
async def test_whose_connection_goes_is_gone_on_every_node_one_clock_later() -> None:
    async with Nodes("a", "b") as nodes:
        here, there = await nodes.documents()
        listener = nodes["b"].attend(there)
        show(here, LAPTOP, 5, clock=7)
        await nodes.settle()

        here.hide(LAPTOP, NOON)
        await nodes.settle()

        assert shown(there) == []
        assert listener.awareness[-1].entries == [AwarenessEntry(5, 8, GONE)]


@in_no_time
async def test_who_was_on_a_node_that_is_gone_is_gone_and_nobody_else() -> None:
    async with Nodes("a", "b", "c") as nodes:
        documents = await nodes.documents()
        for number, document in enumerate(documents):
            show(document, Source("alice"), number)
        await nodes.settle()
        listener = nodes["b"].attend(documents[1])

        await nodes.kill("a")
        nodes.say_gone("a")
        await nodes.settle()

        assert [shown(document) for document in documents[1:]] == [[1, 2]] * 2
        assert listener.awareness[-1].entries == [AwarenessEntry(0, 2, GONE)]


@in_no_time
async def test_who_was_on_a_node_that_nobody_ever_knew_to_live_does_not_stay() -> None:
    async with Nodes("a", "b") as nodes:
        here, there = await nodes.documents()
        show(here, LAPTOP, 5)
        await nodes.settle()

        await nodes.kill("a")
        await nodes["b"].pass_time(5)
        assert shown(there) == [5]
        await nodes["b"].pass_time(6)
        assert shown(there) == []


@in_no_time
async def test_after_a_gap_stays_who_is_confirmed_and_goes_who_is_not() -> None:
    async with Nodes("a", "b", "c") as nodes:
        documents = await nodes.documents()
        listener = nodes["c"].attend(documents[2])
        show(documents[0], LAPTOP, 5)
        show(documents[1], PHONE, 6)
        await nodes.settle()
        nodes.broker("c").cut = True
        documents[0].hide(LAPTOP, NOON)
        await nodes.settle()
        assert shown(documents[2]) == [5, 6]

        nodes.broker("c").mend()
        await nodes["c"].pass_time(4)
        assert shown(documents[2]) == [5, 6]
        await nodes["c"].pass_time(2)

        assert shown(documents[2]) == [6]
        assert listener.awareness[-1].entries == [AwarenessEntry(5, 2, GONE)]
        assert len(nodes.told(Asked)) == 4


@in_no_time
async def test_who_is_taken_for_gone_by_mistake_is_asked_to_show_itself_anew() -> None:
    async with Nodes("a", "b") as nodes:
        here, there = await nodes.documents()
        listener = nodes["a"].attend(here)
        listener.show(5, clock=1)
        await nodes.settle()
        nodes.say_gone("a")
        assert shown(there) == []

        listener.show(5, clock=2)  # as clients do every 15 seconds, and no higher than where it was said to be gone
        await nodes.settle()
        assert nodes.told(Reminded)
        await nodes["a"].pass_time(1)
        assert "remind 5" in listener.told

        listener.show(5, clock=4)
        await nodes.settle()
        assert shown(there) == [5]


@in_no_time
async def test_clients_here_can_have_those_on_other_nodes_show_themselves_anew() -> None:
    async with Nodes("a", "b") as nodes:
        here, there = await nodes.documents()
        one, other = nodes["a"].attend(here), nodes["b"].attend(there)
        one.show(5)
        await nodes.settle()

        other.show(6)
        await nodes["b"].pass_time(1)
        await nodes["a"].pass_time(1)

        assert "remind 5" in one.told


@in_no_time
async def test_a_client_that_comes_back_to_another_node_is_not_taken_away_by_its_old_connection() -> None:
    async with Nodes("a", "b") as nodes:
        here, there = await nodes.documents()
        show(here, LAPTOP, 5, clock=1)
        await nodes.settle()

        show(there, PHONE, 5, clock=2)
        await nodes.settle()
        here.hide(LAPTOP, NOON)
        await nodes.settle()

        assert (shown(here), shown(there), clock_of(here, 5)) == ([5], [5], 2)


@in_no_time
async def test_a_client_that_is_somebody_elses_on_another_node_is_not_taken_over() -> None:
    async with Nodes("a", "b") as nodes:
        here, there = await nodes.documents()
        show(here, LAPTOP, 5)
        await nodes.settle()

        show(there, Source("mallory"), 5, clock=9, user="mallory")
        await nodes.settle()

        assert {clock_of(document, 5) for document in (here, there)} == {1}


@in_no_time
async def test_nobody_shows_itself_as_a_client_that_somebody_else_has_written_as_on_another_node() -> None:
    async with Nodes("a", "b") as nodes:
        here, there = await nodes.documents()
        writer = Writer()
        for letter in "ab":
            here.take_update(writer.type(letter), ALICE, NOON)
            await nodes.settle()

        assert show(there, Source("mallory"), writer.doc.client_id, user="mallory") == []


@in_no_time
async def test_a_node_shows_nobody_as_a_client_that_is_bound_to_somebody_else() -> None:
    async with Nodes("a", "b") as nodes:
        here, there = await nodes.documents()
        writer = Writer()
        client = writer.doc.client_id
        for letter in "ab":
            here.take_update(writer.type(letter), ALICE, NOON)
            await nodes.settle()
        entry = AwarenessEntry(client, 9, b"{}")

        # As a node would that does not know the rules.
        there.take_awareness([entry], Owner("somewhere", "user:mallory"), NOON)
        await nodes.settle()
        assert shown(here) == []

        show(here, LAPTOP, client, clock=1)
        await nodes.settle()
        await nodes["a"].pass_time(1)
        show(here, LAPTOP, client, clock=12)
        await nodes.settle()
        assert (shown(here), clock_of(there, client)) == ([client], 12)


@in_no_time
async def test_while_the_owner_of_a_client_is_on_another_node_nobody_writes_on_in_its_name() -> None:
    async with Nodes("a", "b") as nodes:
        here, there = await nodes.documents()
        writer = Writer()
        show(here, LAPTOP, writer.doc.client_id)
        for letter in "ab":
            here.take_update(writer.type(letter), ALICE, NOON)
            await nodes.settle()
        forged, mallory = writer.type("forged"), Source("mallory")

        there.enter(mallory)
        taken = there.take_missing(forged, ALICE, NOON, source=mallory)
        assert (taken, mallory.was_cut) == (False, True)

        nodes.say_gone("a")
        assert there.take_missing(forged, ALICE, NOON, source=mallory), "now it may be what a peer has brought"


@in_no_time
async def test_all_that_is_shown_is_bounded_whichever_node_it_comes_from() -> None:
    async with Nodes("a", "b", max_document_awareness_bytes=100) as nodes:
        here, there = await nodes.documents()
        for client in range(4):
            show(here, Source("alice"), client)
            show(there, Source("bob"), 10 + client, user="bob")
            await nodes.settle()

        for document in (here, there):
            assert 0 < sum(len(entry.state) for entry in document.awareness.entries()) <= 100


@in_no_time
async def test_a_node_has_as_many_clients_as_its_connections_may_have_together() -> None:
    async with Nodes("a", "b", max_clients_per_socket=2, idle_timeout=timedelta(days=1)) as nodes:
        here, there = await nodes.documents()
        for client in range(5):
            show(here, Source("alice"), client)
        await nodes.settle()

        assert shown(there) == [0, 1, 2, 3, 4]
