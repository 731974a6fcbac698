"""
Many documents with a few people each, who type as people do: what that costs a server, and how long people wait.

A saturated benchmark says how much fits; this one says what it costs every day.
"""

import random
import selectors
import socket
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Final

import msgspec
from msgspec import Struct

from benchmarks import websocket
from benchmarks.crowd import READ_BYTES, STALLED_SECONDS
from benchmarks.editing import (
    ANY_LETTER,
    HOCUSPOCUS,
    PYCRDT_WEBSOCKET_SQLITE,
    ROOMKEY,
    ROOMKEY_HOCUSPOCUS,
    VERSIONS,
    Y_WEBSOCKET,
    Side,
    Typing,
    ours,
    peer,
    typed,
)
from benchmarks.harness import (
    TIMES,
    Benchmark,
    Contender,
    Finding,
    Goal,
    Measures,
    Plan,
    Row,
    find,
    installed,
    interleaved,
    main,
    quantiles,
    ratio,
    value,
)
from benchmarks.httpload import Unexpected
from benchmarks.node import Missing
from benchmarks.processes import Meter
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.wire import lib0

PEOPLE: Final = 3
"""In each document."""

WATCHED: Final = 10
"""In one of so many documents it is also timed how long it takes until a letter is on the disk."""

CHECKED: Final = 20
"""So many documents are read in the end, by somebody who comes then."""

SETTLING_SECONDS: Final = 1.0


class City(Struct, frozen=True):
    """So many documents, in each of which somebody types so many letters per second: one of three in turn."""

    documents: int
    rate: float = 1.0

    def __str__(self) -> str:
        return f"{self.documents:,} documents, {PEOPLE} people in each, {self.rate:g} edits/s in each"


CITIES: Final = (City(100), City(300), City(300, 0.2), City(1_000), City(3_000))
QUICK_CITIES: Final = (City(6, 5.0),)

MOST_ROUNDS: Final = 3
"""Each begins with an empty server, and is long."""

SLOW_TO_FILL: Final = 300
"""Into larger cities people do not come fast enough with a server that takes hundreds of seconds to let them in."""


# --- the people -----------------------------------------------------------------------------------------


class Place:
    """A document: when each of its letters was sent, which all of its people receive in that order."""

    __slots__ = ("name", "sent_at", "typing")

    def __init__(self, name: str, typing: Typing) -> None:
        self.name = name
        self.typing = typing
        self.sent_at: list[float] = []


class _Person:
    """Somebody in a document. ``own`` are the numbers of the letters that he typed himself."""

    __slots__ = ("connection", "own", "place", "rest", "saved", "seen")

    def __init__(self, connection: socket.socket, place: Place) -> None:
        self.connection = connection
        self.place = place
        self.rest = b""
        self.seen = 0
        self.own: list[int] = []
        self.saved = 0


class Population:
    """Everybody in the city, in one thread. Pings are answered, so that they can stay as long as they like."""

    def __init__(self, connections: Sequence[socket.socket], places: Sequence[Place]) -> None:
        self.deliveries = 0
        self.latencies: list[float] = []
        self.durabilities: list[float] = []
        self.places: list[Place] = []
        self._people: list[_Person] = []
        self._selector = selectors.DefaultSelector()
        self.welcome(connections, places)

    def welcome(self, connections: Sequence[socket.socket], places: Sequence[Place]) -> None:
        """More people have come, in more places."""
        self.places += places
        for number, connection in enumerate(connections):
            person = _Person(connection, places[number // PEOPLE])
            self._people.append(person)
            connection.setblocking(False)
            self._selector.register(connection, selectors.EVENT_READ, person)

    def close(self) -> None:
        """Everybody leaves."""
        self._selector.close()
        websocket.close([person.connection for person in self._people])

    @property
    def expected(self) -> int:
        """Letters that people must have received when all is done: the servers send writers their own, too."""
        return PEOPLE * sum(len(place.sent_at) for place in self.places)

    def rest(self, seconds: float) -> None:
        """Nobody types; what servers ask is answered."""
        end = time.perf_counter() + seconds
        while (wait := end - time.perf_counter()) > 0:
            self._read(wait)

    def live(self, rate: float, seconds: float) -> None:
        """
        In each document somebody types ``rate`` letters a second, at times of its own; returns when all have arrived.

        Raises:
            Unexpected: If something does not arrive, or arrives twice.
        """
        begun = time.perf_counter()
        for due, number, writer in diary(len(self.places), rate, seconds):
            while (wait := begun + due - time.perf_counter()) > 0:
                self._read(wait)
            self._type(number, writer)
        while self.deliveries < self.expected:
            before = self.deliveries
            self._read(STALLED_SECONDS)
            if self.deliveries == before and not self._selector.select(STALLED_SECONDS):
                raise Unexpected(f"{self.expected - before} of {self.expected} deliveries are missing")
        if self.deliveries > self.expected:
            raise Unexpected(f"{self.deliveries} deliveries instead of {self.expected}")

    def _type(self, number: int, writer: int) -> None:
        place, person = self.places[number], self._people[number * PEOPLE + writer]
        letter = place.typing.edit(writer)
        if letter is None:
            raise Unexpected("there was not enough to type")
        person.own.append(len(place.sent_at))
        place.sent_at.append(time.perf_counter())
        person.connection.send(letter)

    def _read(self, wait: float) -> None:
        for key, _ in self._selector.select(wait):
            person: _Person = key.data
            chunk = person.connection.recv(READ_BYTES)
            if not chunk:
                raise Unexpected("the server closed a connection")
            now, received, end = time.perf_counter(), person.rest + chunk, 0
            for opcode, payload, after in websocket.frames(received):
                end = after
                if opcode == websocket.PING:
                    person.connection.send(websocket.frame(payload, websocket.PONG))
                elif opcode == websocket.CLOSE:
                    raise websocket.closed(payload)
                elif letters := payload.count(ANY_LETTER):
                    self._delivered(person, letters, now)
                elif payload[0] == yjs.MessageKind.SYNC_STATUS:
                    self._stored(person, lib0.read_number(payload, 1)[0], now)
            person.rest = received[end:]

    def _delivered(self, person: _Person, letters: int, now: float) -> None:
        self.deliveries += letters
        sent_at, own = person.place.sent_at, person.own
        for number in range(person.seen, person.seen + letters):
            if number not in own:
                self.latencies.append(now - sent_at[number])
        person.seen += letters

    def _stored(self, person: _Person, saved: int, now: float) -> None:
        for number in person.own[person.saved : saved]:
            self.durabilities.append(now - person.place.sent_at[number])
        person.saved = saved


def diary(documents: int, rate: float, seconds: float) -> list[tuple[float, int, int]]:
    """Who types when: seconds from now, the document, the writer. The same each time."""
    numbers = random.Random(documents)  # the same city each time
    diary: list[tuple[float, int, int]] = []
    for number in range(documents):
        due, writer = numbers.random() / rate, 0
        while due < seconds:
            diary.append((due, number, writer % PEOPLE))
            # As irregular as people are.
            due += numbers.uniform(0.5, 1.5) / rate
            writer += 1
    return sorted(diary)


# --- a day in the city ----------------------------------------------------------------------------------


def _inhabited(side: Side, city: City, letters: int) -> Population:
    """Everybody has connected and knows what is in his document: nothing."""
    scripts = typed(PEOPLE, letters)
    places = [
        Place(name, Typing([[side.frame(name, yjs.update(update)) for update in own] for own in scripts]))
        for name in (
            f"city/{number:06d}" if side.server.key else f"city-{number:06d}" for number in range(city.documents)
        )
    ]
    # One of Roomkey's own says when a change is on the disk, to those who ask.
    asks = "?status=1" if side.server.key and not side.addressed else ""
    names = [
        place.name + (asks if number % WATCHED == 0 else "")
        for number, place in enumerate(places)
        for _ in range(PEOPLE)
    ]
    return Population(side.join(names), places)


Start = Callable[[], AbstractContextManager[Side | Missing]]


def contender(start: Start, city: City, *, quiet: float) -> Contender:
    """A server of its own for each round, so that nothing is left of the last one."""

    def contend(seconds: float) -> Measures:
        with start() as side:
            if isinstance(side, Missing):
                raise Unexpected(side.reason)
            return _day(side, city, seconds, quiet)

    return contend


def _day(side: Side, city: City, seconds: float, quiet: float) -> Measures:
    people = city.documents * PEOPLE
    before, meter = side.server.usage(), Meter(side.server)
    with closing(_inhabited(side, city, int(seconds * city.rate) + 2)) as population:
        joining = meter.measures(people, "person", "joined")
        population.rest(SETTLING_SECONDS)
        resident = side.server.usage().resident - before.resident

        meter = Meter(side.server)
        population.rest(quiet)
        idle = meter.measures(1, "second", "seconds")

        meter = Meter(side.server)
        population.live(city.rate, seconds)
        living = meter.measures(population.deliveries, "delivery", "deliveries")
        after = side.server.usage()
        population.rest(SETTLING_SECONDS)
        _check(side, population)
    measures: dict[str, tuple[float, str]] = {
        "documents": (city.documents, ""),
        "people": (people, ""),
        "edits": (city.rate * city.documents, "/s"),
        "server CPU": living["server CPU"],
        "CPU per delivery": living["CPU per delivery"],
        **quantiles(population.latencies, "delivery "),
        "memory": (after.resident / 1e6, "MB"),
        "memory per document": (resident / city.documents / 1000, "KB"),
        "joined": joining["joined"],
        "CPU to join": joining["CPU per person"],
        "idle CPU": idle["server CPU"],
        "load CPU": living["load CPU"],
    }
    return {**measures, **quantiles(population.durabilities, "durable ")}


def _check(side: Side, population: Population) -> None:
    """Who comes later reads what was typed, and nothing else."""
    places = population.places
    for place in places[:: max(1, len(places) // CHECKED)]:
        place.typing.check(side.text(place.name))


@contextmanager
def _roomkey(city: City, *, as_hocuspocus: bool) -> Generator[Side | Missing]:
    with ours(city.documents * PEOPLE) as side:
        yield Side(side.server, "/hocuspocus", addressed=True, tokens=side.tokens) if as_hocuspocus else side


def _starts(city: City) -> Mapping[str, Start]:
    return {
        ROOMKEY: lambda: _roomkey(city, as_hocuspocus=False),
        ROOMKEY_HOCUSPOCUS: lambda: _roomkey(city, as_hocuspocus=True),
        **{name: lambda name=name: peer(name) for name in (HOCUSPOCUS, Y_WEBSOCKET, PYCRDT_WEBSOCKET_SQLITE)},
    }


def run(plan: Plan) -> Finding:
    """Each city on all sides in turns; every server is alone while it is measured."""
    plan = msgspec.structs.replace(plan, rounds=min(plan.rounds, MOST_ROUNDS))
    rows: list[Row] = []
    for city in QUICK_CITIES if plan.quick else CITIES:
        starts = _starts(city)
        missing = {name: reason for name, start in starts.items() if (reason := _what_is_missing(name, start, city))}
        contenders = {
            name: contender(start, city, quiet=plan.seconds / 2)
            for name, start in starts.items()
            if name not in missing
        }
        measured = interleaved(plan, contenders, warm_up=False)
        rows += [Row(str(city), name, figures, paced=True) for name, figures in measured.items()]
        rows += [Row(str(city), name, skipped=reason) for name, reason in missing.items()]
    return Finding(rows, _goals(rows), NOTES)


def _what_is_missing(name: str, start: Start, city: City) -> str | None:
    """Why a server does not take part."""
    if name == PYCRDT_WEBSOCKET_SQLITE and city.documents > SLOW_TO_FILL:
        return "it takes too long to let so many in"
    if name in (ROOMKEY, ROOMKEY_HOCUSPOCUS):
        return None
    with start() as side:
        return side.reason if isinstance(side, Missing) else None


def _goals(rows: Sequence[Row]) -> list[Goal]:
    return [goal for city in (City(300), City(1_000)) for goal in _goals_of(str(city), rows)]


def _goals_of(case: str, rows: Sequence[Row]) -> Iterator[Goal]:
    def against(ours: str, theirs: str, quantity: str, wanted: float) -> Goal:
        measured = ratio(find(rows, case, ours), find(rows, case, theirs), quantity)
        return Goal(f"{case}: {quantity} against {theirs}", measured, wanted, TIMES, at_least=False)

    def at_most(quantity: str, wanted: float) -> Goal:
        return Goal(f"{case}: {quantity}", value(rows, case, ROOMKEY, quantity), wanted, "ms", at_least=False)

    yield against(ROOMKEY, Y_WEBSOCKET, "server CPU", 1)
    yield against(ROOMKEY_HOCUSPOCUS, HOCUSPOCUS, "server CPU", 0.7)
    yield against(ROOMKEY_HOCUSPOCUS, HOCUSPOCUS, "memory", 0.5)
    yield against(ROOMKEY, Y_WEBSOCKET, "memory", 0.5)
    yield at_most("delivery p99", 10)
    yield at_most("durable p99", 100)


NOTES: Final = [
    (
        f"{PEOPLE} people in each document take turns to type one letter, at irregular times; everybody in it gets it, "
        "its writer too. Everybody has a session of his own in Roomkey, which looks at it for every letter, remembers "
        "who wrote what, and has every letter on the disk (LMDB). "
        f"{HOCUSPOCUS} and {Y_WEBSOCKET} keep nothing and let everybody in."
    ),
    ("Durable: from when a letter leaves its writer until he is told that it is on the disk, in every tenth document."),
    (
        "Each round starts its server anew, fills the city, rests, measures it while nobody types, and then while they "
        "do. In the end somebody comes to some of the documents and must read what was typed."
    ),
]

BENCHMARK: Final = Benchmark(
    name="city",
    title="A city: many documents at human pace",
    about="Documents with three people each, one of whom types a letter now and then; the server on one core.",
    run=run,
    versions=installed("picows", "pycrdt", "uvloop"),
    peers=VERSIONS,
)


if __name__ == "__main__":
    main(BENCHMARK)
