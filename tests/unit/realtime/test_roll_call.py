"""Who is in a document on several nodes: everybody who answers is counted, and who does not is named."""

import asyncio

import pytest

from roomkey.errors import Overloaded, Storage
from roomkey.ports import Publication
from roomkey.realtime.attendance import Whom
from roomkey.realtime.roll_call import CHANNEL, MAX_QUESTIONS, ConnectedPage, RollCall
from roomkey.wire.close import CloseCode
from tests.support.loops import in_no_time
from tests.support.shared_nodes import TURNS, Cluster


def roll_call(cluster: Cluster, node: str = "n1") -> RollCall:
    return cluster.nodes[node].handler.roll_call


def nodes_of(present: ConnectedPage) -> dict[str, list[str]]:
    return {each.user_id: [one.node for one in each.connections] for each in present.sessions}


@in_no_time
async def test_everybody_is_found_by_whichever_node_they_are_connected() -> None:
    async with (cluster := Cluster()).at_work():
        await cluster.turn(TURNS)
        ada = await cluster.member("n1", "ada")
        await cluster.member("n2", "bob")
        await cluster.enter_again(ada, "n3")
        cluster.readers[-1].subscribe()
        await cluster.turn(TURNS)

        present = await roll_call(cluster, "n2").present("d", limit=10)

        assert nodes_of(present) == {"ada": ["n1", "n3"], "bob": ["n2"]}
        assert (present.silent_nodes, present.next_cursor) == ([], None)


@in_no_time
async def test_pages_have_everybody_once_wherever_they_are() -> None:
    async with (cluster := Cluster()).at_work():
        await cluster.turn(TURNS)
        readers = [await cluster.member(node, f"{node}-{each}") for node in ("n1", "n2", "n3") for each in range(3)]

        seen, after = list[str](), ""
        for _ in range(3):
            page = await roll_call(cluster).present("d", after=after, limit=4)
            seen += [each.id for each in page.sessions]
            after = page.next_cursor or ""

        assert seen == sorted(reader.session for reader in readers)
        assert after == ""


@in_no_time
async def test_a_session_is_put_out_on_every_node() -> None:
    async with (cluster := Cluster()).at_work():
        await cluster.turn(TURNS)
        ada = await cluster.member("n1", "ada")
        again = await cluster.enter_again(ada, "n3")
        again.subscribe()
        bob = await cluster.member("n2", "bob")

        done = await roll_call(cluster, "n2").disconnect(
            "d", Whom(session=ada.caller.session.id), reason="enough of that"
        )
        await cluster.turn(TURNS)
        left = await roll_call(cluster, "n2").present("d", limit=10)
        everything = await roll_call(cluster, "n2").disconnect(None, Whom(session=ada.caller.session.id))

        assert (done.disconnected, done.silent_nodes) == (2, [])
        assert nodes_of(left) == {"bob": ["n2"]}
        assert everything.disconnected == 2
        assert ada.caller.closed_with == again.caller.closed_with == (CloseCode.DISCONNECTED, "disconnected")
        assert bob.caller.closed_with is None


@in_no_time
async def test_a_node_that_does_not_answer_is_named_and_the_others_count() -> None:
    async with (cluster := Cluster()).at_work():
        await cluster.turn(TURNS)
        for node in ("n1", "n2", "n3"):
            await cluster.member(node, node)
        cluster.broker("n3").deaf = True

        present = await roll_call(cluster).present("d", limit=10)
        done = await roll_call(cluster).disconnect("d")

        assert (nodes_of(present), present.silent_nodes) == ({"n1": ["n1"], "n2": ["n2"]}, ["n3"])
        assert (done.disconnected, done.silent_nodes) == (2, ["n3"])


@in_no_time
async def test_while_the_broker_is_away_own_clients_are_put_out_and_whoever_asks_is_told() -> None:
    async with (cluster := Cluster()).at_work():
        await cluster.turn(TURNS)
        ada = await cluster.member("n1", "ada")
        cluster.broker("n1").away = True

        with pytest.raises(Storage):
            await roll_call(cluster).disconnect("d")

        await cluster.turn(TURNS)
        assert not cluster.nodes["n1"].handler.roll_call._connections.attendance.clients("d", Whom())  # pyright: ignore[reportPrivateUsage]
        assert ada.caller.closed_with is None


@in_no_time
async def test_questions_that_wait_are_bounded() -> None:
    async with (cluster := Cluster()).at_work():
        await cluster.turn(TURNS)
        cluster.broker("n3").deaf = True
        waiting = [asyncio.create_task(roll_call(cluster).present("d", limit=1)) for _ in range(MAX_QUESTIONS)]
        await asyncio.sleep(0)

        with pytest.raises(Overloaded):
            await roll_call(cluster).present("d", limit=1)

        assert all(present.silent_nodes == ["n3"] for present in await asyncio.gather(*waiting))


@in_no_time
async def test_what_is_no_question_or_no_answer_of_ours_is_ignored() -> None:
    async with (cluster := Cluster()).at_work():
        await cluster.turn(TURNS)

        for message in (b"", b"\x01", b"\x02junk", b"\x01\x81\xa4type\xa5other"):
            roll_call(cluster).on_publication(Publication(message, "n2", None))
            roll_call(cluster).answered(Publication(message, "n2", None))
        present = await roll_call(cluster).present("d", limit=1)

        assert present.silent_nodes == []
        assert CHANNEL in cluster.broker("n1").receivers
