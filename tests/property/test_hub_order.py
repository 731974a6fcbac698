"""Whatever is published, sent, joined and left in whatever turns: order holds, and memory is bounded."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from roomkey.realtime.frames import Frame
from roomkey.realtime.hub import HIGH_WATER_BYTES, Hub, Outbox
from tests.support.sockets import FakeSocket, Turns

LIMIT = 4_000
PEOPLE = st.integers(0, 3)
ROOMS = st.sampled_from("de")


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

    def got(self, prefixes: str) -> list[str]:
        return [text for frame in self.socket.frames if (text := frame.payload.decode())[0] in prefixes]


class HubMachine(RuleBasedStateMachine):
    """Four people and two rooms, with stalls."""

    @initialize()
    def begin(self) -> None:
        self.turns = Turns()
        self.hub = Hub(max_outbox_size=LIMIT, schedule=self.turns)
        self.people = [Person() for _ in range(4)]
        self.number = 0
        self.cursors: dict[tuple[str, int], str] = {}

    def _text(self, kind: str) -> str:
        self.number += 1
        return f"{kind}{self.number}"

    @rule(who=PEOPLE, room=ROOMS)
    def join(self, who: int, room: str) -> None:
        if not self.people[who].closed:
            self.hub.join(self.people[who].box, room)

    @rule(who=PEOPLE, room=ROOMS)
    def leave(self, who: int, room: str) -> None:
        self.hub.leave(self.people[who].box, room)

    @rule(who=PEOPLE, room=ROOMS, size=st.sampled_from([0, 100, 3000]))
    def publish(self, who: int, room: str, size: int) -> None:
        if room not in self.hub.rooms:
            return
        text = self._text(room)
        sender = self.people[who]
        for person in self.people:
            if person is not sender and person.box.member(room) is not None:
                person.expected.append(text)
        self.hub.publish(self.hub.rooms[room], Frame((text + " " * size).encode()), sender.box)

    @rule(who=PEOPLE)
    def send(self, who: int) -> None:
        person = self.people[who]
        if not person.closed:
            text = self._text("!")
            person.expected.append(text)
            self.hub.send(person.box, Frame(text.encode()))

    @rule(who=PEOPLE, room=ROOMS)
    def point(self, who: int, room: str) -> None:
        if self.people[who].box.member(room) is not None:
            self.hub.point(self.hub.rooms[room], Frame(self._text("^").encode()), self.people[who].box)

    @rule()
    def turn(self) -> None:
        self.turns.turn()
        for person in self.people:
            if person.closed:
                for room in "de":
                    self.hub.leave(person.box, room)

    @rule(who=PEOPLE)
    def stall(self, who: int) -> None:
        self.people[who].socket.unread = HIGH_WATER_BYTES + 1

    @rule(who=PEOPLE)
    def catch_up(self, who: int) -> None:
        self.people[who].socket.unread = 0
        self.hub.writable(self.people[who].box)

    @invariant()
    def everyone_has_a_beginning_of_what_it_should_have_in_order_of_each_room(self) -> None:
        for person in getattr(self, "people", []):
            for prefixes in ("d!", "e!"):
                got = [text.strip() for text in person.got(prefixes)]
                assert got == [text for text in person.expected if text[0] in prefixes][: len(got)]

    @invariant()
    def a_turn_leaves_nothing_beyond_the_limit(self) -> None:
        if hasattr(self, "turns") and not self.turns._waiting:
            assert all(person.box.size <= LIMIT for person in self.people if not person.closed)

    @invariant()
    def the_size_of_an_outbox_is_that_of_what_is_in_it(self) -> None:
        for person in getattr(self, "people", []):
            if not person.closed:
                waiting = [*person.box.frames, *(person.box.cursors or {}).values()]
                assert person.box.size == sum(frame.size for frame in waiting)

    def teardown(self) -> None:
        """When everybody reads, everybody has everything."""
        if not hasattr(self, "turns"):
            return
        for _ in range(3):
            self.turns.settle()
            for person in self.people:
                person.socket.unread = 0
                self.hub.writable(person.box)
        for person in self.people:
            if not person.closed:
                for prefixes in ("d!", "e!"):
                    got = [text.strip() for text in person.got(prefixes)]
                    assert got == [text for text in person.expected if text[0] in prefixes]


HubMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestHub = HubMachine.TestCase
