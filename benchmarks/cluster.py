"""
Several nodes that act as one, on Redis and on PostgreSQL, against other servers that are joined by Redis.

What counts is the work of all processes together, nodes and store, and what somebody waits for who is on another node.
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import count
from typing import Final

import msgspec

from benchmarks import databases, node
from benchmarks.citizens import citizens
from benchmarks.city import PEOPLE
from benchmarks.cluster_sides import (
    HOCUSPOCUS_REDIS,
    NODES,
    POSTGRESQL,
    REDIS,
    SOCKETIO,
    STORES,
    Ours,
    Sides,
    all_sides,
    roomkey_on,
    running,
)
from benchmarks.crowd import Room
from benchmarks.databases import Database
from benchmarks.editing import HOCUSPOCUS, VERSIONS
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
from benchmarks.httpload import Api, Unexpected
from benchmarks.idle_nodes import idle_nodes
from benchmarks.joined import (
    Documents,
    Joined,
    Rooms,
    documents_of,
    people,
    roomkeys,
    rooms_of,
)
from benchmarks.killed import Killing, kill
from benchmarks.node import Missing
from benchmarks.processes import Meter
from benchmarks.revocation import revoke_each

PACED: Final = Room(50, 10, rate=5)
SATURATED: Final = Room(50, 50)
LARGE: Final = Room(200, 20, rate=2)
QUICK: Final = (Room(6, 3, rate=10), Room(6, 6))

REVOCATIONS: Final = 100
IDLE: Final[Mapping[str, int]] = {REDIS: 100, POSTGRESQL: 60}
"""So many nodes more that live and have nothing to do."""

SPREAD: Final[Mapping[str, int]] = {REDIS: 10_000, POSTGRESQL: 2_000}
"""Documents over all nodes, and edits per second in each: more than one core can serve otherwise."""
SPREAD_RATE: Final = 0.05

KILLING: Final = Killing(40, 10, 100)

MOST_ROUNDS: Final = 2
"""Of what takes long."""

WANTED_P99_MS: Final[Mapping[str, float]] = {REDIS: 10, POSTGRESQL: 50}
WANTED_OF_PEER: Final = 2
WANTED_REVOKED_MS: Final = 50
WANTED_IDLE: Final = 1.1
"""What a publication costs among many nodes, in what it costs where there is one."""
WANTED_WHOLE_SECONDS: Final = 5
WANTED_CLEAN_SECONDS: Final = 15


def in_document(room: Room, nodes: int) -> str:
    """What a case of documents is called."""
    return f"document on {_nodes(nodes)}: {room}"


def in_room(room: Room, nodes: int) -> str:
    """What a case of JSON is called."""
    return f"JSON room on {_nodes(nodes)}: {room}"


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


REVOKED: Final = "PUT /sessions/{id}/invalidate on one node, socket on another"
ALONE: Final = "JSON room with all listeners on one node, which is alone"
AMONG: Final = "JSON room with all listeners on one node"


# --- the parts ------------------------------------------------------------------------------------------


class _Comparison:
    """Part after part, in each of which the sides take turns; rows are collected, and what failed is noted."""

    def __init__(self, plan: Plan, sides: Sides) -> None:
        self._plan = plan
        self._sides = sides
        self.rows: list[Row] = []
        self.failures: list[str] = []

    @property
    def _stores(self) -> Sequence[str]:
        """What is measured on a store that is started for it."""
        return list(self._sides.ours)[: 1 if self._plan.quick else None]

    def attempt(self, part: Callable[[], None]) -> None:
        """Go on with the next part if one fails: it takes minutes to come to the others again."""
        try:
            part()
        except (Unexpected, RuntimeError, OSError) as error:
            if self._plan.quick:
                raise
            self.failures.append(f"Failed: {part.__name__.replace('_', ' ')}: {error}"[:1000])

    def documents(self) -> None:
        """People in one document on two nodes, on all of them, and on one, with what others need for that."""
        ours = self._sides.ours.values()
        theirs = self._sides.hocuspocus
        every = [documents for each in ours for documents in (each.documents, each.as_hocuspocus)]
        for documents in every if isinstance(theirs, Missing) else [*every, theirs]:
            documents.check()
        rooms = QUICK if self._plan.quick else (PACED, SATURATED)
        for room in rooms:
            contenders = {roomkey_on(each.store): each.documents.on(2).contender(room) for each in ours}
            contenders |= {
                roomkey_on(each.store, hocuspocus=True): each.as_hocuspocus.on(2).contender(room)
                for each in ours
                if each.store == REDIS
            }
            if isinstance(theirs, Documents):
                contenders[HOCUSPOCUS_REDIS] = theirs.contender(room)
            self._measure(in_document(room, 2), contenders, {HOCUSPOCUS_REDIS: theirs}, paced=room.paced)
        for room, nodes in self._in_other_numbers(rooms):
            contenders = {roomkey_on(each.store): each.documents.on(nodes).contender(room) for each in ours}
            self._measure(in_document(room, nodes), contenders, paced=room.paced)

    def _in_other_numbers(self, rooms: Sequence[Room]) -> Iterator[tuple[Room, int]]:
        yield rooms[0], 1
        for room in rooms:
            yield room, NODES
        if not self._plan.quick:
            yield LARGE, NODES

    def rooms(self) -> None:
        """The same with edits of JSON."""
        ours = self._sides.ours.values()
        theirs = self._sides.socketio
        rooms = QUICK if self._plan.quick else (PACED, SATURATED)
        for room in rooms:
            contenders = {roomkey_on(each.store): each.rooms.on(2).contender(room) for each in ours}
            if isinstance(theirs, Rooms):
                contenders[SOCKETIO] = theirs.contender(room)
            self._measure(in_room(room, 2), contenders, {SOCKETIO: theirs}, paced=room.paced)
        for room, nodes in ((rooms[0], 1), *((room, NODES) for room in rooms)):
            contenders = {roomkey_on(each.store): each.rooms.on(nodes).contender(room) for each in ours}
            self._measure(in_room(room, nodes), contenders, paced=room.paced)

    def revocations(self) -> None:
        """The call goes to the first node, the socket is on the last one."""
        each = self._plan.size(REVOCATIONS, 3)
        contenders = {roomkey_on(own.store): _revoking(own.joined, each) for own in self._sides.ours.values()}
        self._measure(REVOKED, contenders)

    def idle(self) -> None:
        """A room whose listeners are all on one node, with many nodes more that have nothing to do, and with none."""
        room = QUICK[0] if self._plan.quick else PACED
        for name in self._stores:
            with _alone(name, room.clients + 1) as rooms:
                idle = IDLE[name] if not self._plan.quick else 3
                found = interleaved(
                    self._plan,
                    {ALONE: rooms.contender(room), f"{AMONG}, {idle} idle nodes": _among_idle(rooms, room, idle)},
                )
            self.rows += [Row(case, roomkey_on(name), figures, paced=True) for case, figures in found.items()]

    def spread(self) -> None:
        """Many documents over all nodes."""
        plan = msgspec.structs.replace(self._plan, rounds=1)
        rate = SPREAD_RATE if not plan.quick else 5
        for name in self._stores:
            documents = plan.size(SPREAD[name], 4)
            side = roomkey_on(name)
            measured = interleaved(plan, {side: _spread(name, documents, rate)}, warm_up=False)
            self.rows.append(Row(spread_over(documents, rate), side, measured[side], paced=True))

    def killing(self) -> None:
        """A node dies, others go on."""
        plan = msgspec.structs.replace(self._plan, rounds=min(self._plan.rounds, MOST_ROUNDS))
        killing = Killing(3, 3, 3, ghosts=False) if plan.quick else KILLING
        contenders = {roomkey_on(own.store): _killing(own, killing) for own in self._sides.ours.values()}
        measured = interleaved(plan, contenders, warm_up=False)
        self.rows += [Row(str(killing), name, figures) for name, figures in measured.items()]

    def _measure(
        self,
        case: str,
        contenders: Mapping[str, Contender],
        others: Mapping[str, object] | None = None,
        *,
        paced: bool | None = None,
    ) -> None:
        measured = interleaved(self._plan, contenders, warm_up=not self._plan.quick)
        self.rows += [Row(case, name, figures, paced=paced) for name, figures in measured.items()]
        for name, other in (others or {}).items():
            if isinstance(other, Missing):
                self.rows.append(Row(case, name, skipped=other.reason))
        self.rows += [Row(case, roomkey_on(name), skipped=reason) for name, reason in self._sides.missing.items()]


def spread_over(documents: int, rate: float) -> str:
    """What the case of many documents is called."""
    return f"{documents:,} documents over {NODES} nodes, {PEOPLE} people in each, {rate:g} edits/s in each"


_victims = count(1)


def _revoking(joined: Joined, each: int) -> Contender:
    def contend(_seconds: float) -> Measures:
        with closing(Api(joined.servers[0])) as api:
            issued = api.sessions(each, f"victim-{next(_victims)}")
        return revoke_each(joined.servers[-1], issued, called=joined.servers[0], used=joined)

    return contend


@contextmanager
def _alone(name: str, members: int) -> Generator[Rooms]:
    """One node, alone on a store of its own."""
    with running(name) as store:
        assert isinstance(store, Database)
        with roomkeys(1, store) as joined:
            yield rooms_of(joined, people(joined, members))


def _among_idle(rooms: Rooms, room: Room, count: int) -> Contender:
    contend = rooms.contender(room)

    def among(seconds: float) -> Measures:
        with idle_nodes(rooms.joined.store.url, count):
            return contend(seconds)

    return among


def _spread(name: str, documents: int, rate: float) -> Contender:
    def contend(seconds: float) -> Measures:
        with running(name) as store:
            assert isinstance(store, Database)
            with roomkeys(NODES, store) as joined:
                return _city(documents_of(joined, people(joined, documents)), documents, rate, seconds)

    return contend


def _city(side: Documents, documents: int, rate: float, seconds: float) -> Measures:
    joined = side.joined
    before, meter = joined.of_nodes(), Meter(joined)
    names = [f"city/{number:06d}" for number in range(documents)]
    with citizens(side, names, rate, seconds) as everybody:
        joining = meter.measures(everybody.joined, "person", "joined")
        resident = joined.of_nodes().resident - before.resident
        meter = Meter(joined)
        time.sleep(seconds)
        idle = meter.measures(1, "second", "seconds")
        meter = Meter(joined)
        lived = everybody.live()
        living = meter.measures(lived.deliveries, "delivery", "deliveries")
        everybody.read()
    return {
        "people": (everybody.joined, ""),
        "deliveries": living["deliveries"],
        "server CPU": living["server CPU"],
        "CPU per delivery": living["CPU per delivery"],
        "load CPU": (lived.cpu_seconds / seconds * 100, "%"),
        **quantiles(lived.latencies, "delivery "),
        "memory of nodes per document": (resident / documents / 1000, "KB"),
        "joined": joining["joined"],
        "CPU to join": joining["CPU per person"],
        "idle CPU": idle["server CPU"],
    }


def _killing(own: Ours, killing: Killing) -> Contender:
    def contend(seconds: float) -> Measures:
        return kill(own.joined, own.secrets, killing, seconds)

    return contend


# --- everything -----------------------------------------------------------------------------------------


def run(plan: Plan) -> Finding:
    """All servers are there throughout, and one side has work."""
    node.install()
    members = max(room.clients for room in (QUICK if plan.quick else (PACED, SATURATED, LARGE))) + 1
    with all_sides(members) as sides:
        comparison = _Comparison(plan, sides)
        for part in (comparison.documents, comparison.rooms, comparison.revocations, comparison.killing):
            comparison.attempt(part)
    # With the machine to themselves.
    for part in (comparison.idle, comparison.spread):
        comparison.attempt(part)
    return Finding(comparison.rows, _goals(comparison.rows), [*NOTES, *comparison.failures])


def _goals(rows: Sequence[Row]) -> list[Goal]:
    return [*_latencies(rows), *_against_peers(rows), *_failures(rows), *_idle(rows)]


def _latencies(rows: Sequence[Row]) -> Iterator[Goal]:
    for case in (in_room(PACED, 2), in_room(PACED, 3), in_document(PACED, 2), in_document(PACED, 3)):
        for name, wanted in WANTED_P99_MS.items():
            slowest = value(rows, case, roomkey_on(name), "latency p99")
            yield Goal(f"{case}: across nodes, p99, {name}", slowest, wanted, "ms", at_least=False)


def _against_peers(rows: Sequence[Row]) -> Iterator[Goal]:
    pairs = (
        (in_document, roomkey_on(REDIS, hocuspocus=True), HOCUSPOCUS_REDIS),
        (in_document, roomkey_on(REDIS), HOCUSPOCUS_REDIS),
        (in_room, roomkey_on(REDIS), SOCKETIO),
    )
    for called, ours, theirs in pairs:
        for room in (PACED, SATURATED):
            case = called(room, 2)
            measured = ratio(find(rows, case, theirs), find(rows, case, ours), "CPU per delivery")
            yield Goal(f"{case}: deliveries per CPU second, {ours} against {theirs}", measured, WANTED_OF_PEER, TIMES)


def _failures(rows: Sequence[Row]) -> Iterator[Goal]:
    for name in STORES:
        side = roomkey_on(name)
        revoked = value(rows, REVOKED, side, "closed p99")
        yield Goal(f"revoked to closed, another node, p99, {name}", revoked, WANTED_REVOKED_MS, "ms", at_least=False)
        for quantity, wanted in (
            ("last whole", WANTED_WHOLE_SECONDS),
            ("awareness clean", WANTED_CLEAN_SECONDS),
            ("presence clean", WANTED_CLEAN_SECONDS),
        ):
            measured = value(rows, str(KILLING), side, quantity)
            yield Goal(f"{KILLING}: {quantity}, {name}", measured, wanted, "s", at_least=False)


def _idle(rows: Sequence[Row]) -> Iterator[Goal]:
    for name, idle in IDLE.items():
        among, side = f"{AMONG}, {idle} idle nodes", roomkey_on(name)
        measured = ratio(find(rows, among, side), find(rows, ALONE, side), "CPU per delivery")
        yield Goal(
            f"{among}: CPU per delivery against one that is alone, {name}", measured, WANTED_IDLE, TIMES, at_least=False
        )


NOTES: Final = [
    (
        "Clients are on the nodes in turn. CPU, memory and deliveries per CPU second are those of all processes "
        "together: nodes and their Redis or PostgreSQL. All of them have one core, the load has the other. Latency is "
        "from a writer to a client on another node, where there is more than one."
    ),
    (
        "Roomkey has everything in the one store: sessions, which it looks at for every message, documents, of which "
        "every change is appended before other nodes see it, and the histories of rooms. "
        + "; ".join(f"{name}: {databases.DURABILITY[name]}" for name in STORES)
        + f". {HOCUSPOCUS} is joined by its Redis extension, stores with its Database extension (SQLite), "
        "at its own pace of seconds, and lets everybody in. Socket.IO has connection state recovery switched on, so "
        "that its stream can be read by those who come back, as Roomkey's history can; it lets everybody in, too."
    ),
    (
        "After every round with a document a new client on each node must read everything that was typed, and nothing "
        "else; a round in which a delivery is missing or there is one too many fails."
    ),
    (
        f"Idle nodes are listed as living and hold their connections to the store. In many documents people type as "
        f"slowly as it says, because all nodes and the store share one core; the {PEOPLE} people of each are on "
        f"{NODES} nodes. {POSTGRESQL} has fewer of them, because people come to it more slowly."
    ),
    (
        f"Killed: {KILLING.documents} documents with {KILLING.people} people each, one of whom types, and a room of "
        f"{KILLING.lobby} with presence, are on the node. At the kill all but the last in each document connect at "
        "once to the two others. Whole: has received everything that somebody on another node had seen. Last whole is "
        "from the kill, p50 and p99 from each one's first try. Clean: nobody is shown the rest any more."
    ),
]

BENCHMARK: Final = Benchmark(
    name="cluster",
    title="Several nodes that act as one",
    about="Two and three nodes on one store: deliveries, revocations and failures across them.",
    run=run,
    versions=installed("asyncpg", "hiredis", "picows", "pycrdt", "redis", "sqlalchemy", "uvloop"),
    peers={
        **{name: VERSIONS[name] for name in ("@hocuspocus/server", "yjs")},
        **{
            package: node.version_of(package)
            for package in (
                "@hocuspocus/extension-database",
                "@hocuspocus/extension-redis",
                "@socket.io/redis-streams-adapter",
                "socket.io",
            )
        },
    },
)

if __name__ == "__main__":
    main(BENCHMARK)
