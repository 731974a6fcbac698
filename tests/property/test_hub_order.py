"""Whatever is published, sent, joined and left in whatever turns: order holds, and memory is bounded."""

from hypothesis import given, settings

from roomkey.realtime.rooms.hub import HIGH_WATER_BYTES, Channel, Hub, Outbox
from roomkey.wire.frame import Frame
from tests.support.effort import examples
from tests.support.sockets import FakeSocket, Turns
from tests.support.steps import History, Pick, histories, live

LIMIT = 4_000
ROOMS = ("d", "e")


class Person:
    """One outbox, and what a hub without turns, limits and sharing would have given it."""

    def __init__(self) -> None:
        self.box = Outbox(self._overflowed)
        self.box.socket = self.socket = FakeSocket()
        self.expected: list[str] = []
        self.closed = False

    def _overflowed(self) -> None:
        self.closed = True
        self.box.socket = None

    def got(self, kinds: str) -> list[str]:
        return [text for frame in self.socket.frames if (text := frame.payload.decode().strip())[0] in kinds]

    def should_have(self, kinds: str) -> list[str]:
        return [text for text in self.expected if text[0] in kinds]


class TwoRooms:
    """Four people and two rooms, with stalls."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.hub = Hub(max_outbox_size=LIMIT, schedule=self.turns)
        self.channels = {room: Channel() for room in ROOMS}
        self.people = [Person() for _ in range(4)]
        self.number = 0

    def _text(self, kind: str) -> str:
        self.number += 1
        return f"{kind}{self.number}"

    def join(self, pick: Pick) -> None:
        person = pick(self.people)
        if not person.closed:
            self.hub.join(person.box, self.channels[pick(ROOMS)])

    def leave(self, pick: Pick) -> None:
        self.hub.leave(pick(self.people).box, self.channels[pick(ROOMS)])

    def publish(self, pick: Pick) -> None:
        sender, room, size = pick(self.people), pick(ROOMS), pick((0, 0, 0, 100, 1500))
        members = self.channels[room].members
        text = self._text(room)
        for person in self.people:
            if person is not sender and person.box in members:
                person.expected.append(text)
        self.hub.publish(self.channels[room], Frame((text + " " * size).encode()), sender.box)

    def send(self, pick: Pick) -> None:
        person = pick(self.people)
        if not person.closed:
            text = self._text("!")
            person.expected.append(text)
            self.hub.send(person.box, Frame(text.encode()))

    def point(self, pick: Pick) -> None:
        person, room = pick(self.people), pick(ROOMS)
        if person.box in self.channels[room].members:
            self.hub.point(self.channels[room], Frame(self._text("^").encode()), person.box)

    def turn(self, _: Pick) -> None:
        self.turns.turn()
        for person in self.people:
            if person.closed:
                for room in ROOMS:
                    self.hub.leave(person.box, self.channels[room])
        if not self.turns.waiting:
            assert all(person.box.size <= LIMIT for person in self.people if not person.closed)

    def stall(self, pick: Pick) -> None:
        pick(self.people).socket.unread = HIGH_WATER_BYTES + 1

    def catch_up(self, pick: Pick) -> None:
        person = pick(self.people)
        person.socket.unread = 0
        self.hub.writable(person.box)

    def check(self) -> None:
        for person in self.people:
            for kinds in ("d!", "e!"):
                got = person.got(kinds)
                assert got == person.should_have(kinds)[: len(got)]
            if not person.closed:
                waiting: list[Frame] = [*person.box.frames, *(person.box.cursors or {}).values()]
                assert person.box.size == sum(frame.size for frame in waiting)


STEPS = (
    "join",
    "join",
    "leave",
    "publish",
    "publish",
    "publish",
    "send",
    "point",
    "point",
    "turn",
    "stall",
    "catch_up",
)


@settings(max_examples=examples(100))
@given(histories(*STEPS))
def test_everyone_gets_everything_in_the_order_of_each_room_or_is_closed(history: History) -> None:
    rooms = TwoRooms()
    live(rooms, history)

    for _ in range(3):
        rooms.turns.settle()
        for person in rooms.people:
            person.socket.unread = 0
            rooms.hub.writable(person.box)

    for person in rooms.people:
        if not person.closed:
            for kinds in ("d!", "e!"):
                assert person.got(kinds) == person.should_have(kinds)
