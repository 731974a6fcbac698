"""Whatever order a database, its notifications and its answers come in, rooms are handed what was published, once."""

from collections import deque
from itertools import count
from random import Random
from typing import NamedTuple

import pytest

from roomkey.backends.sql.cluster.deliveries import (
    PARTITIONS,
    ROWS_PER_PARTITION,
    Deliveries,
    Own,
    Request,
    Row,
    Seat,
    hint_of,
    mark_of,
    parsed,
)
from roomkey.ports import Position, Publication
from roomkey.testing.broker import Listener

HERE = mark_of("r") % PARTITIONS
ROOMS = ["r", *(name for name in map(str, range(1000)) if mark_of(name) % PARTITIONS == HERE)][:3]
"""Rooms of one partition: others do not matter to it."""


class Stored(NamedTuple):
    era: str
    number: int
    room: str
    publication: Publication


class Server:
    """A partition in a database that trims what is not kept, and loses everything."""

    def __init__(self) -> None:
        self.eras = count(1)
        self.numbers = count(1)
        self.ever: list[Stored] = []
        self.lose()

    @property
    def era(self) -> str:
        return f"era{self._era}"

    def lose(self) -> None:
        self._era = next(self.eras)
        self.log: list[Stored] = []
        self.all: list[Stored] = []
        self.gone = 0
        self.offsets = dict.fromkeys(ROOMS, 0)

    @property
    def head(self) -> int:
        return self.all[-1].number if self.all else 0

    def publish(self, room: str, *, keep: bool) -> Stored:
        self.offsets[room] += keep
        position = Position(self.era, self.offsets[room]) if keep else None
        publication = Publication(b"%d" % next(self.numbers), "c1", position)
        stored = Stored(self.era, self.head + 1, room, publication)
        self.all.append(stored)
        self.log.append(stored)
        return stored

    def trim(self) -> None:
        self.gone = self.head
        self.log = [each for each in self.log if each.publication.position is not None]

    def heads(self) -> list[Row]:
        return [(id, self.era, self.head if id == HERE else 0, self.gone) for id in range(PARTITIONS)]

    def news(self, requests: list[Request]) -> list[Row]:
        """What the statement of this name returns."""
        rows: list[Row] = []
        for request in requests:
            last = request.last if request.era == self.era else 0
            found = [each for each in self.log if last < each.number <= request.upto and each.room in request.rooms]
            rows += [self._row(each) for each in found[:ROWS_PER_PARTITION]] or [
                (HERE, self.era, self.head, self.gone, *[None] * 6)
            ]
        return rows

    def _row(self, stored: Stored) -> Row:
        position = stored.publication.position
        place = (None, None) if position is None else (position.epoch, position.offset)
        said = (stored.number, stored.room.encode(), *place, b"c1", stored.publication.message)
        return (HERE, self.era, self.head, self.gone, *said)


class Looking(NamedTuple):
    room: str
    seat: Seat
    listener: Listener


class Subscribed(NamedTuple):
    room: str
    listener: Listener
    era: str
    after: int


class Node:
    """What a broker does with ``Deliveries``, step by step."""

    def __init__(self) -> None:
        self.server = Server()
        self.deliveries = Deliveries()
        self.hear_heads()
        self.hints: deque[str] = deque()
        self.own: deque[Stored] = deque()
        self.requests: list[Request] = []
        self.looking: deque[Looking] = deque()
        self.looked: deque[tuple[Looking, str, int, Position]] = deque()
        self.subscribed: dict[str, Subscribed] = {}

    def other_publishes(self, room: str, *, keep: bool) -> None:
        stored = self.server.publish(room, keep=keep)
        self.hints.append(f"{HERE}:{stored.number}:{stored.number}:{hint_of([mark_of(room)])}")

    def publish(self, room: str, *, keep: bool) -> None:
        self.own.append(self.server.publish(room, keep=keep))

    def hear_hint(self) -> None:
        if self.hints:
            for hint in parsed(self.hints.popleft()):
                self.deliveries.hear_hint(*hint)

    def lose_hint(self) -> None:
        if self.hints:
            self.hints.popleft()

    def hear_own(self) -> None:
        if self.own:
            stored = self.own.popleft()
            self.deliveries.hear_own([Own(HERE, stored.era, stored.number, stored.room, stored.publication)])

    def hear_heads(self) -> None:
        self.era = self.server.era
        self.deliveries.hear_heads(self.server.heads())

    def ask(self) -> None:
        if not self.requests:
            self.requests = self.deliveries.ask()

    def take(self) -> None:
        requests, self.requests = self.requests, []
        self.deliveries.take(requests, self.server.news(requests))

    def give_back(self) -> None:
        requests, self.requests = self.requests, []
        self.deliveries.give_back(requests)

    def subscribe(self, room: str) -> None:
        if self.deliveries.seat(room) is None:
            listener = Listener()
            self.looking.append(Looking(room, self.deliveries.take_seat(room, listener), listener))

    def look(self) -> None:
        if self.looking:
            looking = self.looking.popleft()
            position = Position(self.server.era, self.server.offsets[looking.room])
            self.looked.append((looking, self.server.era, self.server.head, position))

    def settle(self) -> None:
        if self.looked:
            (room, seat, listener), era, after, position = self.looked.popleft()
            self.deliveries.settle(room, seat, era, after, position)
            if self.deliveries.seat(room) is seat:
                self.subscribed[room] = Subscribed(room, listener, era, after)

    def unsubscribe(self, room: str) -> None:
        self.deliveries.leave_seat(room)
        self.subscribed.pop(room, None)

    def trim(self) -> None:
        self.server.trim()

    def lose(self) -> None:
        """The server crashes: what is on its way is lost with it."""
        self.server.lose()
        self.hints.clear()
        self.own.clear()
        # An answer may come after the crash, but not after two of them.
        self.looked = deque(looked for looked in self.looked if looked[1] == self.era)

    def rest(self) -> None:
        """Everything arrives that has not."""
        while self.looking or self.looked:
            self.look()
            self.settle()
        while self.own:
            self.hear_own()
        self.take()
        self.hear_heads()
        self.ask()
        while self.requests:
            self.take()
            self.ask()


STEPS = {
    "publish": 8,
    "other_publishes": 10,
    "hear_hint": 12,
    "hear_own": 8,
    "ask": 10,
    "take": 9,
    "look": 3,
    "settle": 3,
    "subscribe": 3,
    "unsubscribe": 1,
    "hear_heads": 2,
    "lose_hint": 1,
    "give_back": 1,
    "trim": 1,
    "lose": 0.6,
}
"""How often each is done."""


def history(random: Random) -> Node:
    """A node after some steps of each kind."""
    node = Node()
    for name in random.choices(list(STEPS), list(STEPS.values()), k=150):
        match name:
            case "publish" | "other_publishes":
                getattr(node, name)(random.choice(ROOMS), keep=random.random() < 0.5)
            case "subscribe" | "unsubscribe":
                getattr(node, name)(random.choice(ROOMS))
            case _:
                getattr(node, name)()
    return node


@pytest.mark.parametrize("seed", range(8))
def test_every_room_is_handed_what_was_published_once_and_in_order(seed: int) -> None:
    random = Random(seed)
    for _ in range(100):
        check(history(random))


def check(node: Node) -> None:
    node.rest()

    for room, (_, listener, era, after) in node.subscribed.items():
        expected = [
            each for each in node.server.all if each.room == room and (each.number > after or era != node.server.era)
        ]
        messages = [each.publication.message for each in expected]
        heard = [message for message in listener.messages if message in set(messages)]
        missing = set(messages) - set(heard)
        assert heard == [message for message in messages if message not in missing]
        assert not missing or listener.gaps
        assert not missing & {each.publication.message for each in node.server.log}
        if era == node.server.era:
            assert listener.messages == heard
        elif expected:
            assert listener.gaps
