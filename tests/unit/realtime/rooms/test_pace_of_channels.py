"""Channels with many members: what is published in them waits for more of the same, the longer the dearer it is."""

from collections.abc import Callable, Sequence

from roomkey.realtime.rooms.hub import DEAR_MEMBERS, LONGEST_WAIT_SECONDS, SHARE_OF_TIME, Channel, Hub, Outbox
from roomkey.wire.frame import Frame
from tests.support.sockets import FakeSocket, Turns


class SlowSocket(FakeSocket):
    """A socket to which writing takes as long as the test says, on its clock."""

    def __init__(self, times: "Times") -> None:
        super().__init__()
        self.times = times

    def send(self, frames: Sequence[Frame]) -> None:
        self.times.now += self.times.write_takes
        super().send(frames)


class Times:
    """A hub whose time is the test's."""

    def __init__(self, *, write_takes: float) -> None:
        self.now = 100.0
        self.write_takes = write_takes
        self.turns = Turns()
        self.waiting: list[tuple[float, Callable[[], None]]] = []
        self.hub = Hub(max_outbox_size=1_000_000, schedule=self.turns, later=self._later, seconds=lambda: self.now)

    def _later(self, seconds: float, function: Callable[[], None]) -> None:
        self.waiting.append((self.now + seconds, function))

    def channel(self, members: int) -> tuple[Channel, FakeSocket]:
        """A channel, and the socket of its first member."""
        channel, sockets = Channel(), [SlowSocket(self) for _ in range(members)]
        for socket in sockets:
            box = Outbox(lambda: None)
            box.socket = socket
            self.hub.join(box, channel)
        return channel, sockets[0]

    def publish(self, channel: Channel, *texts: bytes) -> None:
        for text in texts:
            self.hub.publish(channel, Frame(text))
        self.turns.settle()

    def rested(self) -> float:
        """Let the only rest pass; returns how long it was."""
        ((until, function),) = self.waiting
        self.waiting.clear()
        rest, self.now = until - self.now, until
        function()
        self.turns.settle()
        return rest


def heard(socket: FakeSocket) -> list[bytes]:
    return [frame.payload for frame in socket.frames]


def test_what_is_published_in_a_dear_channel_waits_so_long_that_handing_out_takes_its_share_of_the_time() -> None:
    times = Times(write_takes=10e-6)
    channel, socket = times.channel(100)
    times.publish(channel, b"one")

    times.publish(channel, b"two")
    times.publish(channel, b"three")
    before = heard(socket)
    rest = times.rested()

    assert before == [b"one"]
    assert heard(socket) == [b"one", b"two", b"three"]
    assert abs(1e-3 / (1e-3 + rest) - SHARE_OF_TIME) < 1e-6


def test_nobody_waits_longer_than_for_a_picture() -> None:
    times = Times(write_takes=1e-3)
    channel, _ = times.channel(100)
    times.publish(channel, b"one")

    times.publish(channel, b"two")

    assert abs(times.rested() - LONGEST_WAIT_SECONDS) < 1e-9


def test_the_more_leaves_at_once_the_sooner_the_next_may_leave() -> None:
    times = Times(write_takes=10e-6)
    channel, socket = times.channel(100)

    times.publish(channel, *[b"x"] * 20)
    times.publish(channel, b"next")

    assert times.waiting == []
    assert heard(socket)[-1] == b"next"


def test_after_the_rest_nothing_waits() -> None:
    times = Times(write_takes=10e-6)
    channel, socket = times.channel(100)
    times.publish(channel, b"one")

    times.now += 1.0
    times.publish(channel, b"two")

    assert times.waiting == []
    assert heard(socket) == [b"one", b"two"]


def test_a_small_channel_has_no_pace_and_does_not_wait_for_a_dear_one() -> None:
    times = Times(write_takes=1e-3)
    dear, _ = times.channel(DEAR_MEMBERS)
    small, socket = times.channel(DEAR_MEMBERS - 1)
    times.publish(dear, b"one")
    times.publish(dear, b"two")

    times.publish(small, b"one")
    times.publish(small, b"two")

    assert len(times.waiting) == 1
    assert heard(socket) == [b"one", b"two"]


def test_what_is_sent_to_one_member_of_a_resting_channel_comes_behind_what_was_published() -> None:
    times = Times(write_takes=1e-3)
    channel, socket = times.channel(DEAR_MEMBERS)
    times.publish(channel, b"one")

    times.publish(channel, b"two")
    times.hub.send(next(iter(channel.members)), Frame(b"an answer"))
    times.turns.settle()
    times.rested()

    assert heard(socket) == [b"one", b"two", b"an answer"]
