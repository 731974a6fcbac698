"""Readers that are behind, where what they miss can be told in fewer words: nothing waits for them meanwhile."""

from collections.abc import Sequence

from roomkey.realtime.rooms.hub import CHUNK_BYTES, HIGH_WATER_BYTES, Channel, Hub, Outbox
from roomkey.wire.frame import Frame
from tests.support.sockets import FakeSocket, Turns

LIMIT = 10_000


def frame(text: str, size: int = 0) -> Frame:
    return Frame(text.encode().ljust(size), binary=True)


class Digest:
    """A backlog whose making up is one frame that says how many bytes were missed."""

    def __init__(self, *, merged_size: int = 0) -> None:
        self.begun = 0
        self.size = 0
        self.merged_size = merged_size
        self.asked = 0

    def begin(self) -> None:
        self.begun += 1
        self.size = 0

    def missed(self, size: int) -> None:
        self.size += size

    def is_hopeless(self, limit: int) -> bool:
        self.asked += 1
        return self.size > limit

    def make_up(self) -> Sequence[Frame]:
        if not self.size:
            return ()
        text, self.size = f"missed {self.size}", 0
        return [frame(text, self.merged_size)]


class Reader:
    """An outbox with a backlog and a socket, in some rooms."""

    def __init__(self, network: "SlowNetwork", *rooms: str, merged_size: int = 0) -> None:
        self.backlog = Digest(merged_size=merged_size)
        self.overflows = 0
        self._network = network
        self.box = Outbox(self._overflowed, self.backlog)
        self.box.socket = self.socket = FakeSocket()
        for room in rooms or ("d",):
            network.hub.join(self.box, network.channels[room])

    def _overflowed(self) -> None:
        self.overflows += 1
        self.box.socket = None
        for channel in list(self.box.members or ()):
            self._network.hub.leave(self.box, channel)

    def stall(self) -> None:
        """Stop to read; everything that is published now is missed, once the hub has noticed."""
        self.socket.unread = HIGH_WATER_BYTES + 1
        self._network.say(self, "noticed")

    def read(self) -> None:
        """Read everything."""
        self.socket.unread = 0
        self._network.hub.writable(self.box)

    @property
    def heard(self) -> list[str]:
        return [each.payload.decode().strip() for each in self.socket.frames]


class SlowNetwork:
    def __init__(self) -> None:
        self.turns = Turns()
        self.hub = Hub(max_outbox_size=LIMIT, schedule=self.turns)
        self.channels = {"d": Channel(), "e": Channel()}

    def publish(self, text: str, room: str = "d", *, size: int = 0) -> Frame:
        published = frame(text, size)
        self.hub.publish(self.channels[room], published)
        return published

    def say(self, editor: Reader, text: str) -> None:
        self.hub.send(editor.box, frame(text))
        self.turns.settle()

    def turn(self) -> None:
        self.turns.settle()


def test_nothing_that_is_published_waits_for_a_reader_that_is_behind() -> None:
    network = SlowNetwork()
    slow, other = Reader(network), Reader(network)
    slow.stall()
    waiting = slow.box.size

    for number in range(100):
        network.publish(f"update {number}", size=50)
        network.turn()

    assert slow.box.size == waiting
    assert [each.payload for each in slow.box.frames] == [b"noticed"]
    assert len(other.heard) == 100


def test_what_waited_when_the_socket_was_found_full_is_read_first_and_then_one_frame_for_all_the_rest() -> None:
    network = SlowNetwork()
    slow = Reader(network)
    slow.socket.unread = HIGH_WATER_BYTES + 1
    network.publish("before")
    network.turn()
    sizes = [network.publish(f"missed {number}", size=50).size for number in range(3)]
    network.turn()

    slow.read()
    network.publish("after")
    network.turn()

    assert slow.heard == ["before", f"missed {sum(sizes)}", "after"]
    assert slow.backlog.begun == 1


def test_a_reader_that_missed_nothing_is_told_nothing() -> None:
    network = SlowNetwork()
    slow = Reader(network)
    slow.stall()

    slow.read()
    network.publish("after")
    network.turn()

    assert slow.heard == ["noticed", "after"]


def test_whatever_is_said_to_it_alone_keeps_its_place_before_what_was_missed_is_made_up_for() -> None:
    network = SlowNetwork()
    slow = Reader(network)
    slow.stall()
    missed = network.publish("missed")

    network.say(slow, "alone")
    slow.read()

    assert slow.heard == ["noticed", "alone", f"missed {missed.size}"]


def test_what_is_published_and_said_in_one_turn_to_a_reader_in_time_stays_in_order() -> None:
    network = SlowNetwork()
    quick = Reader(network)

    network.publish("one")
    network.hub.send(quick.box, frame("two"))
    network.publish("three")
    network.turn()

    assert quick.heard == ["one", "two", "three"]


def test_what_was_published_but_not_handed_out_when_it_reads_again_is_not_missing() -> None:
    network = SlowNetwork()
    slow = Reader(network)
    slow.stall()
    first = network.publish("missed")
    network.turn()

    network.publish("in this turn")
    slow.read()
    network.turn()

    assert slow.heard == ["noticed", f"missed {first.size}", "in this turn"]


def test_what_is_missed_in_every_room_is_made_up_for_together() -> None:
    network = SlowNetwork()
    slow = Reader(network, "d", "e")
    slow.stall()
    missed = network.publish("to d", "d").size + network.publish("to e", "e").size
    network.turn()

    slow.read()

    assert slow.heard == ["noticed", f"missed {missed}"]


def test_whoever_falls_behind_while_it_is_made_up_for_begins_anew() -> None:
    network = SlowNetwork()
    slow = Reader(network, merged_size=HIGH_WATER_BYTES + 1)
    slow.stall()
    first = network.publish("missed")
    network.turn()

    slow.socket.stalled = True
    slow.read()
    second = network.publish("missed again", size=70)
    network.turn()
    slow.socket.stalled = False
    slow.read()
    network.publish("after")
    network.turn()

    assert slow.heard == ["noticed", f"missed {first.size}", f"missed {second.size}", "after"]
    assert not slow.box.behind


def test_what_makes_up_for_it_is_handed_over_in_chunks_that_the_socket_can_take() -> None:
    network = SlowNetwork()
    slow = Reader(network, merged_size=CHUNK_BYTES)
    slow.stall()
    network.publish("missed")
    network.turn()

    slow.socket.stalled = True
    slow.read()

    assert slow.socket.unread < 2 * CHUNK_BYTES
    assert slow.box.behind


def test_whoever_lacks_more_than_may_wait_for_anybody_is_parted_from() -> None:
    network = SlowNetwork()
    slow, other = Reader(network), Reader(network)
    slow.stall()

    network.publish("much", size=LIMIT + 1)
    network.turn()
    network.publish("more")
    network.turn()

    assert (slow.overflows, other.overflows) == (1, 0)
    assert network.hub.traffic.slow_closes == 1
    assert len(other.heard) == 2


def test_whoever_lacks_just_as_much_as_may_wait_is_not() -> None:
    network = SlowNetwork()
    slow = Reader(network)
    slow.stall()

    missed = network.publish("much", size=LIMIT - 4)
    network.turn()

    assert missed.size == LIMIT
    assert slow.overflows == 0


def test_whatever_is_said_to_a_reader_alone_is_bounded_too() -> None:
    network = SlowNetwork()
    slow = Reader(network)
    slow.stall()

    for _ in range(LIMIT // 100 + 1):
        network.hub.send(slow.box, frame("alone", 100))
    network.turn()

    assert slow.overflows == 1
    assert slow.box.size == 0


def test_a_backlog_is_not_asked_as_long_as_its_reader_is_in_time() -> None:
    network = SlowNetwork()
    quick = Reader(network)

    network.publish("one", size=LIMIT * 2)
    network.turn()

    assert (quick.backlog.begun, quick.backlog.asked, quick.backlog.size) == (0, 0, 0)


def test_what_was_missed_in_a_room_counts_until_the_reader_leaves_it() -> None:
    network = SlowNetwork()
    slow = Reader(network, "d", "e")
    Reader(network, "d")
    slow.stall()
    missed = network.publish("in this turn", "d")

    network.hub.leave(slow.box, network.channels["d"])
    network.publish("not for it any more", "d")
    network.turn()

    assert slow.backlog.size == missed.size


def test_whoever_has_no_backlog_is_given_every_frame_late() -> None:
    network = SlowNetwork()
    late = Outbox(lambda: None)
    late.socket = socket = FakeSocket()
    network.hub.join(late, network.channels["d"])
    Reader(network)
    socket.unread = HIGH_WATER_BYTES + 1
    for number in range(3):
        network.publish(f"update {number}")
        network.turn()

    socket.unread = 0
    network.hub.writable(late)

    assert [each.payload for each in socket.frames] == [b"update 0", b"update 1", b"update 2"]


def test_what_was_made_up_for_is_counted_as_sent() -> None:
    network = SlowNetwork()
    slow = Reader(network)
    slow.stall()
    network.publish("missed")
    network.turn()

    slow.read()

    assert network.hub.traffic.messages == len(slow.heard)
    assert network.hub.traffic.bytes == sum(each.size for each in slow.socket.frames)
