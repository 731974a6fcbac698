"""Outboxes: order, one write per turn, and what happens to those who read slowly or never."""

from collections.abc import Callable
from typing import Any

import pytest

from roomkey.realtime.rooms.hub import CHUNK_BYTES, HIGH_WATER_BYTES, Channel, Hub, Outbox
from roomkey.wire.frame import Frame
from tests.support.sockets import FakeSocket, Turns


def frame(text: str) -> Frame:
    return Frame(b'"' + text.encode() + b'"')


class Listener:
    """An outbox with a socket that remembers what arrived."""

    def __init__(self, network: "Network", *documents: str) -> None:
        self.overflows = 0
        self._network = network
        self.box = Outbox(self._overflowed)
        self.box.socket = self.socket = FakeSocket()
        for document in documents:
            network.hub.join(self.box, network.channels[document])

    def _overflowed(self) -> None:
        self.overflows += 1
        self.box.socket = None
        for channel in list(self.box.members or ()):
            self._network.hub.leave(self.box, channel)

    def read(self, network: "Network", size: int) -> None:
        """The peer reads some of what the operating system would not take."""
        self.socket.unread = max(0, self.socket.unread - size)
        if self.socket.unread <= HIGH_WATER_BYTES // 4:
            network.hub.writable(self.box)

    @property
    def texts(self) -> list[Any]:
        return self.socket.messages


class Network:
    def __init__(self, max_outbox_size: int = 1024 * 1024) -> None:
        self.turns = Turns()
        self.hub = Hub(max_outbox_size=max_outbox_size, schedule=self.turns)
        self.channels = {"d": Channel(), "e": Channel()}

    def publish(self, text: str, sender: Listener | None = None, document: str = "d") -> None:
        self.hub.publish(self.channels[document], frame(text), sender and sender.box)

    def point(self, text: str, sender: Listener, document: str = "d") -> None:
        self.hub.point(self.channels[document], frame(text), sender.box)


def test_the_frames_of_a_turn_leave_in_one_write() -> None:
    network = Network()
    listener, other = Listener(network, "d"), Listener(network, "d")

    for number in range(3):
        network.publish(str(number))
    before = list(listener.socket.sends)
    network.turns.turn()

    assert before == []
    assert len(listener.socket.sends) == 1
    assert listener.texts == other.texts == ["0", "1", "2"]


def test_those_who_get_the_same_get_the_same_object() -> None:
    network = Network()
    first, second = Listener(network, "d"), Listener(network, "d")

    network.publish("x")
    network.publish("y")
    network.turns.turn()

    assert first.socket.sends[0] is second.socket.sends[0]


def test_a_turn_without_news_writes_nothing() -> None:
    network = Network()
    listener = Listener(network, "d")

    network.turns.settle()
    network.hub.flush()

    assert listener.socket.sends == []


def test_what_is_sent_to_one_stands_between_what_came_before_and_after() -> None:
    network = Network()
    writer, reader = Listener(network, "d"), Listener(network, "d")

    network.publish("1", reader)
    network.publish("2", writer)
    network.hub.send(writer.box, frame("ack 2"))
    network.publish("3", reader)
    network.turns.turn()

    assert writer.texts == ["1", "ack 2", "3"]
    assert reader.texts == ["2"]


def test_an_answer_does_not_overtake_what_was_published_before_it() -> None:
    network = Network()
    listener, other = Listener(network, "d", "e"), Listener(network, "d", "e")

    network.publish("1", other)
    network.publish("2", other, "e")
    network.hub.send(listener.box, frame("answer"))
    network.publish("3", other)
    network.turns.turn()

    assert listener.texts == ["1", "2", "answer", "3"]


def test_who_joins_within_a_turn_gets_nothing_of_before() -> None:
    network = Network()
    old = Listener(network, "d")

    network.publish("before")
    new = Listener(network, "d")
    network.hub.send(new.box, frame("subscribed"))
    network.publish("after")
    network.turns.turn()

    assert old.texts == ["before", "after"]
    assert new.texts == ["subscribed", "after"]


def test_who_leaves_within_a_turn_gets_what_came_before_and_nothing_after() -> None:
    network = Network()
    listener, other = Listener(network, "d"), Listener(network, "d")

    network.publish("before")
    network.hub.leave(listener.box, network.channels["d"])
    network.hub.send(listener.box, frame("unsubscribed"))
    network.publish("after")
    network.turns.turn()

    assert listener.texts == ["before", "unsubscribed"]
    assert other.texts == ["before", "after"]


def test_who_joins_again_within_a_turn_gets_each_message_once() -> None:
    network = Network()
    listener, _ = Listener(network, "d"), Listener(network, "d")

    network.publish("1")
    network.hub.leave(listener.box, network.channels["d"])
    network.publish("2")
    network.hub.join(listener.box, network.channels["d"])
    network.hub.join(listener.box, network.channels["d"])
    network.publish("3")
    network.turns.settle()

    assert listener.texts == ["1", "3"]


def test_an_empty_room_is_forgotten() -> None:
    network = Network()
    first, second = Listener(network, "d"), Listener(network, "d")

    network.hub.leave(first.box, network.channels["d"])
    still_there = list(network.channels["d"].members)
    network.hub.leave(second.box, network.channels["d"])
    network.hub.leave(second.box, network.channels["d"])

    assert still_there == [second.box]
    assert network.channels["d"].members == {}


def test_the_frames_of_several_rooms_come_together() -> None:
    network = Network()
    listener = Listener(network, "d", "e")

    network.publish("d1", document="d")
    network.publish("e1", document="e")
    network.publish("d2", document="d")
    network.turns.turn()

    assert len(listener.socket.sends) == 1
    assert sorted(listener.texts) == ["d1", "d2", "e1"]


def test_cursors_come_behind_and_only_the_newest_of_each() -> None:
    network = Network()
    pointer, other, reader = Listener(network, "d"), Listener(network, "d"), Listener(network, "d")

    network.point("a1", pointer)
    network.point("b1", other)
    network.point("a2", pointer)
    network.publish("edit", pointer)
    network.turns.turn()

    assert reader.texts == ["edit", "b1", "a2"]
    assert pointer.texts == ["b1"]
    assert other.texts == ["edit", "a2"]
    assert network.hub.traffic.cursors_collapsed == 1


def test_the_cursor_of_who_left_does_not_come_after_it() -> None:
    network = Network()
    pointer, reader = Listener(network, "d"), Listener(network, "d")

    network.point("a", pointer)
    network.hub.leave(pointer.box, network.channels["d"])
    network.publish("gone")
    network.turns.turn()

    assert reader.texts == ["gone"]


# --- who reads slowly -----------------------------------------------------------------------------------


def stall(listener: Listener) -> None:
    listener.socket.stalled = True
    listener.socket.unread = HIGH_WATER_BYTES + 1


def test_a_full_socket_is_given_nothing_until_it_is_writable() -> None:
    network = Network()
    slow, fast = Listener(network, "d"), Listener(network, "d")
    stall(slow)

    for number in range(5):
        network.publish(str(number))
        network.turns.turn()
    before = list(slow.socket.sends)
    slow.socket.stalled = False
    slow.read(network, HIGH_WATER_BYTES)

    assert before == []
    assert slow.texts == fast.texts == ["0", "1", "2", "3", "4"]


def test_who_has_caught_up_is_like_all_others_again() -> None:
    network = Network()
    slow, fast = Listener(network, "d"), Listener(network, "d")
    stall(slow)
    network.publish("1")
    network.turns.turn()
    slow.socket.stalled = False
    slow.read(network, HIGH_WATER_BYTES)

    network.publish("2")
    network.turns.turn()

    assert slow.texts == fast.texts == ["1", "2"]
    assert slow.socket.sends[-1] is fast.socket.sends[-1]


def test_while_behind_only_the_newest_cursor_of_each_sender_waits() -> None:
    network = Network()
    slow, pointer, other = Listener(network, "d"), Listener(network, "d"), Listener(network, "d")
    stall(slow)
    network.publish("edit")
    network.turns.turn()

    for number in range(100):
        network.point(f"a{number}", pointer)
        network.point(f"b{number}", other)
        network.turns.turn()
    waiting = slow.box.size
    slow.socket.stalled = False
    slow.read(network, HIGH_WATER_BYTES)

    assert waiting < 50
    assert slow.texts == ["edit", "a99", "b99"]
    assert slow.box.size == 0
    assert network.hub.traffic.cursors_collapsed == 198


def test_who_never_reads_costs_bounded_memory_and_delays_nobody() -> None:
    network = Network(max_outbox_size=10_000)
    dead, alive = Listener(network, "d"), Listener(network, "d")
    stall(dead)
    largest = 0

    for number in range(1000):
        network.publish(f"{number:100d}")
        network.turns.turn()
        largest = max(largest, dead.box.size)

    assert largest < 10_000 + 200
    assert dead.overflows == 1
    assert dead.socket.sends == []
    assert len(alive.texts) == 1000
    assert network.hub.traffic.slow_closes == 1
    assert network.hub.traffic.dropped == 10_000 // 104 + 1


def test_a_reader_that_catches_up_is_given_bounded_pieces() -> None:
    network = Network(max_outbox_size=10_000_000)
    slow = Listener(network, "d")
    stall(slow)
    for _ in range(100):
        network.publish("x" * 10_000)
    network.turns.turn()

    most_unread = 0
    for _ in range(1000):
        slow.read(network, 10_000)
        most_unread = max(most_unread, slow.socket.unread)

    assert len(slow.texts) == 100
    assert most_unread <= HIGH_WATER_BYTES + CHUNK_BYTES + 20_000
    assert not slow.box.behind


def test_order_holds_for_who_is_behind() -> None:
    network = Network()
    slow, other = Listener(network, "d"), Listener(network, "d")
    stall(slow)

    network.publish("1", other)
    network.turns.turn()
    network.publish("2", slow)
    network.hub.send(slow.box, frame("ack 2"))
    network.publish("3", other)
    network.turns.turn()
    slow.socket.stalled = False
    slow.read(network, HIGH_WATER_BYTES)

    assert slow.texts == ["1", "ack 2", "3"]


def test_closing_in_the_middle_of_a_turn_disturbs_nobody() -> None:
    network = Network(max_outbox_size=100)
    dead, alive = Listener(network, "d"), Listener(network, "d")
    stall(dead)

    def leave() -> None:
        network.hub.leave(dead.box, network.channels["d"])
        network.publish("one is gone")

    dead.box.overflowed = leave
    network.publish("x" * 200)
    network.turns.settle()

    assert alive.texts == ["x" * 200, "one is gone"]


def test_every_message_that_was_handed_out_is_counted() -> None:
    network = Network()
    writer, _, _ = (Listener(network, "d") for _ in range(3))

    network.publish("1", writer)
    network.hub.send(writer.box, frame("ack"))
    network.point("2", writer)
    network.turns.turn()

    assert network.hub.traffic.messages == 5
    assert network.hub.traffic.bytes == 4 * frame("1").size + frame("ack").size


# --- the two ways to a socket ---------------------------------------------------------------------------


def written(write: Callable[[Network, Listener], None], *, unread: int, said: int, was_behind: bool) -> tuple[Any, ...]:
    """What ``write`` does to a listener to which so much was said, and whose socket has so much unread."""
    network = Network(max_outbox_size=100)
    listener = Listener(network)
    if was_behind:
        network.hub.hold_back(listener.box)
    for number in range(said):
        network.hub.send(listener.box, frame(str(number)))
    if not said:
        network.hub.send(listener.box, frame("forgotten"))
        network.hub.discard(listener.box)
    listener.socket.unread = unread

    write(network, listener)

    box = listener.box
    sends = [[each.payload for each in frames] for frames in listener.socket.sends]
    waiting = [each.payload for each in box.frames]
    return sends, waiting, box.size, box.behind, listener.overflows, network.hub.traffic


@pytest.mark.parametrize("was_behind", [False, True])
@pytest.mark.parametrize("said", [0, 1, 3, 40])
@pytest.mark.parametrize("unread", [0, HIGH_WATER_BYTES, HIGH_WATER_BYTES + 1])
def test_a_turn_writes_to_a_socket_just_what_is_written_to_one_that_is_about_to_be_closed(
    unread: int, said: int, *, was_behind: bool
) -> None:
    in_a_turn = written(lambda network, _: network.turns.turn(), unread=unread, said=said, was_behind=was_behind)
    at_the_end = written(
        lambda network, listener: network.hub.flush_box(listener.box), unread=unread, said=said, was_behind=was_behind
    )

    assert in_a_turn == at_the_end


def test_who_has_caught_up_in_a_turn_that_brings_nothing_more_is_written_to_once() -> None:
    network = Network()
    slow = Listener(network, "d")
    stall(slow)
    network.publish("1")
    network.turns.turn()

    network.publish("2")
    network.hub.send(slow.box, frame("alone"))
    slow.socket.stalled = False
    slow.read(network, HIGH_WATER_BYTES)
    network.turns.turn()

    assert slow.texts == ["1", "2", "alone"]
    assert all(slow.socket.sends)
