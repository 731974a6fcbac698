"""Two nodes and more that are one: their rooms, through the handlers of their sockets, on one exchange."""

import asyncio
from typing import Any

import pytest

from roomkey.errors import ConfigurationError
from roomkey.realtime.connections import RELIEF
from roomkey.realtime.rooms.room_messages import CursorsMoved, room_format
from roomkey.realtime.rooms.shared_room import PATIENCE
from tests.support.loops import in_no_time
from tests.support.shared_nodes import TURNS, Cluster, Reader
from tests.support.sockets import Node

STEPS = 25
"""Of three seconds: longer than the interval of position checks, and each so short that no node seems to be asleep."""


def statuses(reader: Reader, of: Reader) -> list[str]:
    """What ``reader`` was told of the session of another one."""
    return [status for session, status in reader.told if session == of.session]


def is_notice(error: dict[str, Any]) -> bool:
    """Whether an error says that the service is degraded, and answers nothing."""
    return "degraded" in error["details"]


async def check(cluster: Cluster) -> None:
    """The time of a position check passes, on all nodes."""
    for _ in range(STEPS):
        await cluster.pass_time(3)


def test_a_node_that_shares_its_broker_needs_a_presence_store() -> None:
    cluster = Cluster()

    with pytest.raises(ConfigurationError):
        Node(broker=asyncio.run(cluster.exchange.join("n1"))[0], node="n1")


# --- publications ---------------------------------------------------------------------------------------


@in_no_time
async def test_members_on_all_nodes_hear_everything_in_one_order_and_the_sender_its_acknowledgements() -> None:
    cluster = Cluster([2, 0, 3, 1])
    async with cluster.at_work():
        readers = [await cluster.member(node, user) for node, user in (("n1", "ada"), ("n1", "bob"), ("n2", "cleo"))]

        for number in range(10):
            for reader in readers:
                reader.write(f"{reader.caller.session.user_id}{number}")
            await cluster.turn(number % 4)
        await cluster.turn(40 * TURNS)

        assert len(readers[0].heard) == 30
        assert readers[0].heard == readers[1].heard == readers[2].heard


@in_no_time
async def test_an_acknowledgement_waits_for_what_stands_before_it() -> None:
    cluster = Cluster()
    async with cluster.at_work():
        ada, bob = await cluster.member("n1", "ada"), await cluster.member("n2", "bob")
        cluster.broker("n1").deaf = True
        bob.write("first")
        await cluster.turn(TURNS)

        ada.write("second")
        await cluster.turn(TURNS)
        before = list(ada.heard)
        await cluster.pass_time(1)

        assert before == []
        assert ada.heard == ["first", "second"]


@in_no_time
async def test_what_the_broker_has_taken_and_does_not_hand_out_may_be_sent_again() -> None:
    cluster = Cluster()
    async with cluster.at_work():
        ada = await cluster.member("n1", "ada")
        broker = cluster.broker("n1")
        broker.deaf = True
        ada.write("x")
        await cluster.turn(TURNS)
        broker.away = True
        for _ in range(3):
            await cluster.pass_time(PATIENCE.total_seconds())
        refused = [error for error in ada.errors if not is_notice(error)]
        broker.away = broker.deaf = False

        ada.caller.whisper("realtime_edit", {"document": "d", "text": "x"}, id="x")
        for _ in range(3):
            await cluster.pass_time(1)

        assert [(error["code"], error["retry"]) for error in refused] == [("SERVER_ERROR", True)]
        assert refused[0]["details"]["retry_after_ms"] > 0
        assert ada.heard == ["x"]
        assert (await cluster.exchange.inner.since("d", None)).position.offset == 1


@in_no_time
async def test_a_gap_is_filled_before_anything_behind_it_is_handed_on() -> None:
    cluster = Cluster()
    async with cluster.at_work():
        ada, bob = await cluster.member("n1", "ada"), await cluster.member("n2", "bob")
        cluster.broker("n2").deaf = True
        ada.write("1", "2")
        await cluster.turn(TURNS)
        cluster.broker("n2").deaf = False

        ada.write("3")
        await cluster.turn(TURNS)

        assert bob.heard == ["1", "2", "3"]


@in_no_time
async def test_members_are_told_to_load_the_document_when_a_gap_cannot_be_filled() -> None:
    cluster = Cluster(history_publications=2)
    async with cluster.at_work():
        ada, bob = await cluster.member("n1", "ada"), await cluster.member("n2", "bob")
        cluster.broker("n2").deaf = True
        ada.write("1", "2", "3", "4")
        await cluster.turn(TURNS)
        cluster.broker("n2").deaf = False

        ada.write("5")
        await cluster.turn(TURNS)
        ada.write("6")
        await cluster.turn(TURNS)

        assert bob.loaded_at == 5
        assert bob.heard == ["6"]


@in_no_time
async def test_the_last_message_before_a_silence_is_missed_by_the_position_check() -> None:
    cluster = Cluster()
    async with cluster.at_work():
        ada, bob = await cluster.member("n1", "ada"), await cluster.member("n2", "bob")
        cluster.broker("n2").deaf = True
        ada.write("last")
        await cluster.turn(TURNS)
        before = list(bob.heard)

        await check(cluster)

        assert before == []
        assert bob.heard == ["last"]


@in_no_time
async def test_a_joiner_that_knows_more_than_the_room_hears_only_what_comes_after_that() -> None:
    cluster = Cluster()
    async with cluster.at_work():
        ada, bob = await cluster.member("n1", "ada"), await cluster.member("n2", "bob")
        cluster.broker("n2").slow = True
        ada.write("1", "2")
        await cluster.turn(TURNS)

        cleo = await cluster.member("n2", "cleo")
        ada.show("online")
        await cluster.turn(TURNS)
        cluster.broker("n2").hurry()
        ada.write("3")
        await cluster.turn(TURNS)

        assert (cleo.loaded_at, cleo.heard) == (2, ["3"])
        assert bob.heard == ["1", "2", "3"]
        assert cleo.shown == bob.shown == {ada.session: "online"}


@in_no_time
async def test_a_joiner_whose_answer_was_overtaken_is_given_what_came_meanwhile() -> None:
    cluster = Cluster()
    async with cluster.at_work():
        ada, bob = await cluster.member("n1", "ada"), await cluster.member("n2", "bob")
        answer = asyncio.Event()
        cluster.broker("n2").held.append(answer)
        cleo = await cluster.member("n2", "cleo")

        ada.write("1", "2")
        await cluster.turn(TURNS)
        answer.set()
        await cluster.turn(TURNS)

        assert bob.heard == cleo.heard == ["1", "2"]


@in_no_time
async def test_a_joiner_is_told_to_load_the_document_if_the_room_lost_a_part_meanwhile() -> None:
    cluster = Cluster(history_publications=2)
    async with cluster.at_work():
        ada, bob = await cluster.member("n1", "ada"), await cluster.member("n2", "bob")
        broker, answer = cluster.broker("n2"), asyncio.Event()
        broker.held.append(answer)
        cleo = await cluster.member("n2", "cleo")
        broker.deaf = True
        ada.write("1", "2", "3", "4")
        await cluster.turn(TURNS)
        broker.deaf = False
        ada.write("5")
        await cluster.turn(TURNS)

        answer.set()
        await cluster.turn(TURNS)
        ada.write("6")
        await cluster.turn(TURNS)

        assert (bob.loaded_at, bob.heard) == (5, ["6"])
        assert (cleo.loaded_at, cleo.heard) == (5, ["6"])


@in_no_time
async def test_a_joiner_that_was_given_a_history_which_is_gone_is_told_to_load_the_document() -> None:
    cluster = Cluster()
    async with cluster.at_work():
        ada, bob = await cluster.member("n1", "ada"), await cluster.member("n2", "bob")
        broker, answer = cluster.broker("n2"), asyncio.Event()
        broker.held.append(answer)
        cleo = await cluster.member("n2", "cleo")
        cluster.exchange.lose_everything()
        ada.write("1")
        await cluster.turn(TURNS)

        answer.set()
        await cluster.turn(TURNS)
        await cluster.pass_time(1)
        ada.write("2")
        await cluster.turn(TURNS)

        assert bob.heard == cleo.heard == ["2"]


@in_no_time
async def test_a_member_that_subscribes_again_meanwhile_hears_everything_once() -> None:
    cluster = Cluster()
    async with cluster.at_work():
        ada, bob = await cluster.member("n1", "ada"), await cluster.member("n2", "bob")
        broker, answer = cluster.broker("n2"), asyncio.Event()
        ada.write("1")
        await cluster.turn(TURNS)
        broker.held.append(answer)
        bob.subscribe()
        await cluster.turn(TURNS)

        ada.write("2")
        await cluster.turn(TURNS)
        before = list(bob.heard)
        answer.set()
        await cluster.turn(TURNS)
        ada.write("3")
        await cluster.turn(TURNS)

        assert before == ["1"]
        assert bob.heard == ["1", "2", "3"]


@in_no_time
async def test_a_history_that_was_lost_is_told_to_members_of_all_nodes() -> None:
    cluster = Cluster()
    async with cluster.at_work():
        ada, bob = await cluster.member("n1", "ada"), await cluster.member("n2", "bob")
        ada.write("1", "2")
        await cluster.turn(TURNS)

        cluster.exchange.lose_everything()
        ada.write("3")
        await cluster.turn(TURNS)
        bob.write("4")
        await cluster.turn(TURNS)

        assert ada.position == bob.position
        assert ada.heard == bob.heard == ["4"]


@in_no_time
async def test_what_this_version_does_not_know_is_passed_over_and_counted() -> None:
    cluster = Cluster()
    async with cluster.at_work():
        ada, bob = await cluster.member("n1", "ada"), await cluster.member("n2", "bob")
        broker = cluster.broker("n1")

        for message in (b"\x01garbage", b"\x02newer", b"", b"\x01" + b"\xc1"):
            await broker.publish("d", message, origin="n1", keep=False)
        await broker.publish("d", b"\x02newer", origin="n1")
        await cluster.turn(TURNS)
        bob.position = ada.position = {**(ada.position or {}), "offset": 1}
        ada.write("known")
        await cluster.turn(TURNS)

        assert bob.heard == ["known"]
        assert cluster.nodes["n2"].handler.statistics().ignored == 5


# --- presence -------------------------------------------------------------------------------------------


@in_no_time
async def test_who_is_here_by_another_node_is_shown_to_members_and_joiners() -> None:
    cluster = Cluster()
    async with cluster.at_work():
        ada, bob = await cluster.member("n1", "ada"), await cluster.member("n2", "bob")

        ada.show("online")
        await cluster.turn(TURNS)
        cleo = await cluster.member("n3", "cleo")
        ada.show("offline")
        await cluster.turn(TURNS)

        assert statuses(bob, ada) == ["online", "offline"]
        assert statuses(cleo, ada) == ["offline"]
        assert [room for room in cluster.exchange.shown.rooms if room[0] != "\0"] == []


@in_no_time
async def test_who_comes_and_goes_while_the_store_is_asked_is_not_overlooked() -> None:
    cluster = Cluster()
    async with cluster.at_work():
        ada, bob = await cluster.member("n1", "ada"), await cluster.member("n1", "bob")
        ada.show("online")
        await cluster.turn(TURNS)
        answer = asyncio.Event()
        cluster.stores["n3"].held.append(answer)
        cleo = await cluster.member("n3", "cleo")

        ada.show("offline")
        bob.show("online")
        await cluster.turn(TURNS)
        answer.set()
        await cluster.turn(TURNS)

        assert cleo.shown == {bob.session: "online"}
        assert cleo.told == []


@in_no_time
async def test_a_session_on_two_nodes_is_one_person_until_it_has_left_both() -> None:
    cluster = Cluster()
    async with cluster.at_work():
        ada, bob = await cluster.member("n1", "ada"), await cluster.member("n3", "bob")
        again = await cluster.enter_again(ada, "n2")
        again.subscribe()
        await cluster.turn(TURNS)
        for reader in (ada, again):
            reader.show("online")
            await cluster.turn(TURNS)
        cleo = await cluster.member("n3", "cleo")

        ada.caller.hang_up()
        await cluster.turn(TURNS)
        still = (statuses(bob, ada), dict(cleo.shown))
        again.caller.hang_up()
        await cluster.turn(TURNS)

        assert still == (["online"], {ada.session: "online"})
        assert statuses(bob, ada) == ["online", "offline"]


@in_no_time
async def test_what_a_dead_node_showed_is_gone_once_and_forgotten_in_the_store() -> None:
    cluster = Cluster()
    async with cluster.at_work():
        ada, bob = await cluster.member("n1", "ada"), await cluster.member("n2", "bob")
        ada.show("online")
        await cluster.turn(TURNS)
        await cluster.exchange.kill("n1")

        for _ in range(2):
            cluster.nodes["n2"].handler.nodes_gone(["n1"])
            await cluster.turn(TURNS)

        assert statuses(bob, ada) == ["online", "offline"]
        assert [room for room in cluster.exchange.shown.rooms if room[0] != "\0"] == []


@in_no_time
async def test_after_a_gap_members_are_told_who_came_and_went_meanwhile() -> None:
    cluster = Cluster()
    async with cluster.at_work():
        ada, bob = await cluster.member("n1", "ada"), await cluster.member("n2", "bob")
        cleo = await cluster.member("n1", "cleo")
        ada.show("online")
        await cluster.turn(TURNS)
        cluster.broker("n2").deaf = True
        ada.show("offline")
        cleo.show("online")
        await cluster.turn(TURNS)
        cluster.broker("n2").deaf = False

        ada.write("x")
        await cluster.turn(TURNS)

        assert bob.shown == {cleo.session: "online"}


@in_no_time
async def test_presence_is_said_again_to_a_store_that_was_restarted_empty() -> None:
    cluster = Cluster()
    async with cluster.at_work():
        ada = await cluster.member("n1", "ada")
        ada.show("online")
        await cluster.turn(TURNS)
        cluster.exchange.shown.rooms.clear()

        await check(cluster)

        assert [member for _, member in cluster.exchange.shown.rooms["d"]] == [ada.session]


@in_no_time
async def test_a_node_that_was_asleep_says_again_whom_it_shows_and_hears_what_it_has_missed() -> None:
    cluster = Cluster()
    async with cluster.at_work():
        ada, bob = await cluster.member("n1", "ada"), await cluster.member("n2", "bob")
        ada.show("online")
        await cluster.turn(TURNS)
        await cluster.pass_time(1)
        cluster.nodes["n2"].handler.nodes_gone(["n1"])
        await cluster.turn(TURNS)

        await cluster.pass_time(6)

        assert statuses(bob, ada) == ["online", "offline", "online"]


@in_no_time
async def test_presence_that_could_not_be_written_is_written_when_the_store_is_back_and_then_told() -> None:
    cluster = Cluster()
    async with cluster.at_work():
        ada, bob = await cluster.member("n1", "ada"), await cluster.member("n2", "bob")
        cluster.stores["n1"].away = True
        for status in ("online", "away", "busy"):
            ada.show(status)
            await cluster.turn(TURNS)
        await asyncio.sleep(5)  # it is tried again and again
        before = statuses(bob, ada)
        cluster.stores["n1"].away = False

        await asyncio.sleep(5)
        await cluster.turn(TURNS)

        assert before == []
        assert statuses(bob, ada) == ["busy"]


@in_no_time
async def test_what_changes_in_one_tick_is_one_write_and_one_message() -> None:
    cluster = Cluster()
    async with cluster.at_work():
        readers = [await cluster.member("n1", f"u{number}") for number in range(5)]
        bob = await cluster.member("n2", "bob")
        store, broker = cluster.stores["n1"], cluster.broker("n1")

        for reader in readers:
            reader.show("online")
            reader.show("away")
        readers[0].show("offline")
        await cluster.turn(TURNS)

        assert [len(changes) for changes in store.changes if changes[0].room == "d"] == [4]
        assert len(broker.passing) == 1
        assert bob.shown == {reader.session: "away" for reader in readers[1:]}


@in_no_time
async def test_whoever_edits_the_document_is_shown_on_other_nodes() -> None:
    cluster = Cluster()
    async with cluster.at_work():
        bob = await cluster.member("n2", "bob")
        editor = await cluster.nodes["n1"].client("ada")
        rooms, who = cluster.nodes["n1"].rooms, editor.peer.who

        rooms.appear(who, "d", cluster.clock.now())
        await cluster.turn(TURNS)
        shown = dict(bob.shown)
        rooms.disappear(who, "d", cluster.clock.now())
        await cluster.turn(TURNS)

        assert shown == {who.session_id: "online"}
        assert bob.shown == {}
        assert cluster.nodes["n1"].remembered()["presence"] == 0


@in_no_time
async def test_whoever_comes_back_to_a_room_that_only_editors_were_in_meanwhile_is_shown_everybody() -> None:
    cluster = Cluster()
    async with cluster.at_work():
        ada, bob = await cluster.member("n1", "ada"), await cluster.member("n2", "bob")
        editor = (await cluster.nodes["n2"].client("cleo")).peer.who
        cluster.nodes["n2"].rooms.appear(editor, "d", cluster.clock.now())
        bob.caller.whisper("unsubscribe", {"document": "d"})
        await cluster.turn(TURNS)
        ada.show("online")
        ada.write("1")
        await cluster.turn(TURNS)

        bob.subscribe()
        await cluster.turn(TURNS)
        ada.write("2")
        await cluster.turn(TURNS)

        assert bob.shown.keys() == {ada.session, editor.session_id}
        assert bob.heard == ["1", "2"]


# --- cursors --------------------------------------------------------------------------------------------


@in_no_time
async def test_the_newest_cursor_of_a_session_goes_to_other_nodes_once_per_tick() -> None:
    cluster = Cluster()
    async with cluster.at_work():
        ada, bob = await cluster.member("n1", "ada"), await cluster.member("n2", "bob")
        cleo = await cluster.member("n1", "cleo")

        for at in range(20):
            ada.point(at)
        cleo.point(7)
        await cluster.turn(TURNS)

        (message,) = cluster.broker("n1").passing
        moved = room_format().decode(message)
        assert isinstance(moved, CursorsMoved)
        assert len(moved.cursors) == 2
        assert sorted(bob.cursors) == [("ada", 19), ("cleo", 7)]
        assert ada.cursors == [("cleo", 7)]


# --- when something is away -----------------------------------------------------------------------------


def degraded(reader: Reader) -> list[dict[str, Any]]:
    return [error for error in reader.errors if is_notice(error)]


@in_no_time
async def test_clients_are_told_once_that_the_service_is_degraded_and_once_that_it_is_not() -> None:
    cluster = Cluster()
    async with cluster.at_work():
        ada = await cluster.member("n1", "ada")
        cluster.broker("n1").away = True
        for _ in range(4):
            await cluster.pass_time(1)
        late = await cluster.enter("n1", "late")
        late.caller.peer.opened(late.caller.socket)
        await cluster.turn(TURNS)
        cluster.broker("n1").away = False
        await cluster.pass_time(1)
        too_early = ada.restored

        for _ in range(3):
            await cluster.pass_time(RELIEF.total_seconds())

        assert [(error["code"], error["retry"]) for error in degraded(ada)] == [("SERVER_ERROR", True)]
        assert len(degraded(late)) == 1
        assert (too_early, ada.restored) == (0, 1)


@in_no_time
async def test_a_room_that_nobody_is_in_any_more_leaves_nothing_behind() -> None:
    cluster = Cluster([1, 2])
    async with cluster.at_work():
        ada, bob = await cluster.member("n1", "ada"), await cluster.member("n2", "bob")
        for reader in (ada, bob):
            reader.show("online")
            reader.write(reader.session)
            reader.point(1)
        await cluster.turn(TURNS)

        for reader in (ada, bob):
            reader.caller.hang_up()
        await check(cluster)

        assert [room for room in cluster.exchange.shown.rooms if room[0] != "\0"] == []
        listened = [room for broker in cluster.exchange.nodes.values() for room in broker.receivers]
        assert [room for room in listened if room[0] != "\0"] == []
        for name in ("n1", "n2"):
            assert not any(cluster.nodes[name].remembered().values())
