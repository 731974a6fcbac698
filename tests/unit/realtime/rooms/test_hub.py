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

    def __init__(self, house: "House", *documents: str) -> None:
        self.overflows = 0
        self._house = house
        self.box = Outbox(self._overflowed)
        self.box.socket = self.socket = FakeSocket()
        for document in documents:
            house.hub.join(self.box, house.channels[document])

    def _overflowed(self) -> None:
        self.overflows += 1
        self.box.socket = None
        for channel in list(self.box.members or ()):
            self._house.hub.leave(self.box, channel)

    def read(self, house: "House", size: int) -> None:
        """The peer reads some of what the operating system would not take."""
        self.socket.unread = max(0, self.socket.unread - size)
        if self.socket.unread <= HIGH_WATER_BYTES // 4:
            house.hub.writable(self.box)

    @property
    def texts(self) -> list[Any]:
        return self.socket.messages


class House:
    def __init__(self, max_outbox_size: int = 1024 * 1024) -> None:
        self.turns = Turns()
        self.hub = Hub(max_outbox_size=max_outbox_size, schedule=self.turns)
        self.channels = {"d": Channel(), "e": Channel()}

    def publish(self, text: str, sender: Listener | None = None, document: str = "d") -> None:
        self.hub.publish(self.channels[document], frame(text), sender and sender.box)

    def point(self, text: str, sender: Listener, document: str = "d") -> None:
        self.hub.point(self.channels[document], frame(text), sender.box)


def test_the_frames_of_a_turn_leave_in_one_write() -> None:
    house = House()
    listener, other = Listener(house, "d"), Listener(house, "d")

    for number in range(3):
        house.publish(str(number))
    before = list(listener.socket.sends)
    house.turns.turn()

    assert before == []
    assert len(listener.socket.sends) == 1
    assert listener.texts == other.texts == ["0", "1", "2"]


def test_those_who_get_the_same_get_the_same_object() -> None:
    house = House()
    first, second = Listener(house, "d"), Listener(house, "d")

    house.publish("x")
    house.publish("y")
    house.turns.turn()

    assert first.socket.sends[0] is second.socket.sends[0]


def test_a_turn_without_news_writes_nothing() -> None:
    house = House()
    listener = Listener(house, "d")

    house.turns.settle()
    house.hub.flush()

    assert listener.socket.sends == []


def test_what_is_sent_to_one_stands_between_what_came_before_and_after() -> None:
    house = House()
    writer, reader = Listener(house, "d"), Listener(house, "d")

    house.publish("1", reader)
    house.publish("2", writer)
    house.hub.send(writer.box, frame("ack 2"))
    house.publish("3", reader)
    house.turns.turn()

    assert writer.texts == ["1", "ack 2", "3"]
    assert reader.texts == ["2"]


def test_an_answer_does_not_overtake_what_was_published_before_it() -> None:
    house = House()
    listener, other = Listener(house, "d", "e"), Listener(house, "d", "e")

    house.publish("1", other)
    house.publish("2", other, "e")
    house.hub.send(listener.box, frame("answer"))
    house.publish("3", other)
    house.turns.turn()

    assert listener.texts == ["1", "2", "answer", "3"]


def test_who_joins_within_a_turn_gets_nothing_of_before() -> None:
    house = House()
    old = Listener(house, "d")

    house.publish("before")
    new = Listener(house, "d")
    house.hub.send(new.box, frame("subscribed"))
    house.publish("after")
    house.turns.turn()

    assert old.texts == ["before", "after"]
    assert new.texts == ["subscribed", "after"]


def test_who_leaves_within_a_turn_gets_what_came_before_and_nothing_after() -> None:
    house = House()
    listener, other = Listener(house, "d"), Listener(house, "d")

    house.publish("before")
    house.hub.leave(listener.box, house.channels["d"])
    house.hub.send(listener.box, frame("unsubscribed"))
    house.publish("after")
    house.turns.turn()

    assert listener.texts == ["before", "unsubscribed"]
    assert other.texts == ["before", "after"]


def test_who_joins_again_within_a_turn_gets_each_message_once() -> None:
    house = House()
    listener, _ = Listener(house, "d"), Listener(house, "d")

    house.publish("1")
    house.hub.leave(listener.box, house.channels["d"])
    house.publish("2")
    house.hub.join(listener.box, house.channels["d"])
    house.hub.join(listener.box, house.channels["d"])
    house.publish("3")
    house.turns.settle()

    assert listener.texts == ["1", "3"]


def test_an_empty_room_is_forgotten() -> None:
    house = House()
    first, second = Listener(house, "d"), Listener(house, "d")

    house.hub.leave(first.box, house.channels["d"])
    still_there = list(house.channels["d"].members)
    house.hub.leave(second.box, house.channels["d"])
    house.hub.leave(second.box, house.channels["d"])

    assert still_there == [second.box]
    assert house.channels["d"].members == {}


def test_the_frames_of_several_rooms_come_together() -> None:
    house = House()
    listener = Listener(house, "d", "e")

    house.publish("d1", document="d")
    house.publish("e1", document="e")
    house.publish("d2", document="d")
    house.turns.turn()

    assert len(listener.socket.sends) == 1
    assert sorted(listener.texts) == ["d1", "d2", "e1"]


def test_cursors_come_behind_and_only_the_newest_of_each() -> None:
    house = House()
    pointer, other, reader = Listener(house, "d"), Listener(house, "d"), Listener(house, "d")

    house.point("a1", pointer)
    house.point("b1", other)
    house.point("a2", pointer)
    house.publish("edit", pointer)
    house.turns.turn()

    assert reader.texts == ["edit", "b1", "a2"]
    assert pointer.texts == ["b1"]
    assert other.texts == ["edit", "a2"]
    assert house.hub.traffic.cursors_collapsed == 1


def test_the_cursor_of_who_left_does_not_come_after_it() -> None:
    house = House()
    pointer, reader = Listener(house, "d"), Listener(house, "d")

    house.point("a", pointer)
    house.hub.leave(pointer.box, house.channels["d"])
    house.publish("gone")
    house.turns.turn()

    assert reader.texts == ["gone"]


# --- who reads slowly -----------------------------------------------------------------------------------


def stall(listener: Listener) -> None:
    listener.socket.stalled = True
    listener.socket.unread = HIGH_WATER_BYTES + 1


def test_a_full_socket_is_given_nothing_until_it_is_writable() -> None:
    house = House()
    slow, fast = Listener(house, "d"), Listener(house, "d")
    stall(slow)

    for number in range(5):
        house.publish(str(number))
        house.turns.turn()
    before = list(slow.socket.sends)
    slow.socket.stalled = False
    slow.read(house, HIGH_WATER_BYTES)

    assert before == []
    assert slow.texts == fast.texts == ["0", "1", "2", "3", "4"]


def test_who_has_caught_up_is_like_all_others_again() -> None:
    house = House()
    slow, fast = Listener(house, "d"), Listener(house, "d")
    stall(slow)
    house.publish("1")
    house.turns.turn()
    slow.socket.stalled = False
    slow.read(house, HIGH_WATER_BYTES)

    house.publish("2")
    house.turns.turn()

    assert slow.texts == fast.texts == ["1", "2"]
    assert slow.socket.sends[-1] is fast.socket.sends[-1]


def test_while_behind_only_the_newest_cursor_of_each_sender_waits() -> None:
    house = House()
    slow, pointer, other = Listener(house, "d"), Listener(house, "d"), Listener(house, "d")
    stall(slow)
    house.publish("edit")
    house.turns.turn()

    for number in range(100):
        house.point(f"a{number}", pointer)
        house.point(f"b{number}", other)
        house.turns.turn()
    waiting = slow.box.size
    slow.socket.stalled = False
    slow.read(house, HIGH_WATER_BYTES)

    assert waiting < 50
    assert slow.texts == ["edit", "a99", "b99"]
    assert slow.box.size == 0
    assert house.hub.traffic.cursors_collapsed == 198


def test_who_never_reads_costs_bounded_memory_and_delays_nobody() -> None:
    house = House(max_outbox_size=10_000)
    dead, alive = Listener(house, "d"), Listener(house, "d")
    stall(dead)
    largest = 0

    for number in range(1000):
        house.publish(f"{number:100d}")
        house.turns.turn()
        largest = max(largest, dead.box.size)

    assert largest < 10_000 + 200
    assert dead.overflows == 1
    assert dead.socket.sends == []
    assert len(alive.texts) == 1000
    assert house.hub.traffic.slow_closes == 1
    assert house.hub.traffic.dropped == 10_000 // 104 + 1


def test_a_reader_that_catches_up_is_given_bounded_pieces() -> None:
    house = House(max_outbox_size=10_000_000)
    slow = Listener(house, "d")
    stall(slow)
    for _ in range(100):
        house.publish("x" * 10_000)
    house.turns.turn()

    most_unread = 0
    for _ in range(1000):
        slow.read(house, 10_000)
        most_unread = max(most_unread, slow.socket.unread)

    assert len(slow.texts) == 100
    assert most_unread <= HIGH_WATER_BYTES + CHUNK_BYTES + 20_000
    assert not slow.box.behind


def test_order_holds_for_who_is_behind() -> None:
    house = House()
    slow, other = Listener(house, "d"), Listener(house, "d")
    stall(slow)

    house.publish("1", other)
    house.turns.turn()
    house.publish("2", slow)
    house.hub.send(slow.box, frame("ack 2"))
    house.publish("3", other)
    house.turns.turn()
    slow.socket.stalled = False
    slow.read(house, HIGH_WATER_BYTES)

    assert slow.texts == ["1", "ack 2", "3"]


def test_closing_in_the_middle_of_a_turn_disturbs_nobody() -> None:
    house = House(max_outbox_size=100)
    dead, alive = Listener(house, "d"), Listener(house, "d")
    stall(dead)

    def leave() -> None:
        house.hub.leave(dead.box, house.channels["d"])
        house.publish("one is gone")

    dead.box.overflowed = leave
    house.publish("x" * 200)
    house.turns.settle()

    assert alive.texts == ["x" * 200, "one is gone"]


def test_every_message_that_was_handed_out_is_counted() -> None:
    house = House()
    writer, _, _ = (Listener(house, "d") for _ in range(3))

    house.publish("1", writer)
    house.hub.send(writer.box, frame("ack"))
    house.point("2", writer)
    house.turns.turn()

    assert house.hub.traffic.messages == 5
    assert house.hub.traffic.bytes == 4 * frame("1").size + frame("ack").size


# --- the two ways to a socket ---------------------------------------------------------------------------


def written(write: Callable[[House, Listener], None], *, unread: int, said: int, was_behind: bool) -> tuple[Any, ...]:
    """What ``write`` does to a listener to which so much was said, and whose socket has so much unread."""
    house = House(max_outbox_size=100)
    listener = Listener(house)
    if was_behind:
        house.hub.hold_back(listener.box)
    for number in range(said):
        house.hub.send(listener.box, frame(str(number)))
    if not said:
        house.hub.send(listener.box, frame("forgotten"))
        house.hub.discard(listener.box)
    listener.socket.unread = unread

    write(house, listener)

    box = listener.box
    sends = [[each.payload for each in frames] for frames in listener.socket.sends]
    waiting = [each.payload for each in box.frames]
    return sends, waiting, box.size, box.behind, listener.overflows, house.hub.traffic


@pytest.mark.parametrize("was_behind", [False, True])
@pytest.mark.parametrize("said", [0, 1, 3, 40])
@pytest.mark.parametrize("unread", [0, HIGH_WATER_BYTES, HIGH_WATER_BYTES + 1])
def test_a_turn_writes_to_a_socket_just_what_is_written_to_one_that_is_about_to_be_closed(
    unread: int, said: int, *, was_behind: bool
) -> None:
    in_a_turn = written(lambda house, _: house.turns.turn(), unread=unread, said=said, was_behind=was_behind)
    at_the_end = written(
        lambda house, listener: house.hub.flush_box(listener.box), unread=unread, said=said, was_behind=was_behind
    )

    assert in_a_turn == at_the_end


def test_who_has_caught_up_in_a_turn_that_brings_nothing_more_is_written_to_once() -> None:
    house = House()
    slow = Listener(house, "d")
    stall(slow)
    house.publish("1")
    house.turns.turn()

    house.publish("2")
    house.hub.send(slow.box, frame("alone"))
    slow.socket.stalled = False
    slow.read(house, HIGH_WATER_BYTES)
    house.turns.turn()

    assert slow.texts == ["1", "2", "alone"]
    assert all(slow.socket.sends)
