"""What a seed stands for: nodes, clients, and what happens to them when. A plan is a value that can be cut down."""

import random
from enum import StrEnum
from typing import Final

from msgspec import Struct

ACTIVE_SECONDS: Final = 10.0
"""How long things happen; then every fault ends, and everybody comes back who wants to."""

REST_SECONDS: Final = 16.0
"""How long nothing happens then: more than the lifetime of a node that has fallen silent."""


USERS: Final = ("alice", "bob", "carol")


class Kind(StrEnum):
    """What a client speaks."""

    JSON = "json"
    YJS = "y-websocket"
    HOCUSPOCUS = "hocuspocus"


class Act(StrEnum):
    """What may happen."""

    # --- a client, by its number
    EDIT = "edits"
    SHOW = "shows itself"
    CUT = "is cut off"
    LEAVE = "leaves and comes back"
    GO = "leaves for good"
    STALL = "reads nothing"
    # --- an operator, to the session of a client
    SUSPEND = "is suspended"
    RESUME = "is resumed"
    REVOKE = "is revoked"
    REVOKE_USER = "has all sessions revoked"
    SHRINK = "may only read"
    BAN = "may not read any more"
    TICKET = "uses a ticket twice"
    CROWD = "signs in on all nodes at once"
    DELETE = "has its document deleted"
    ASK = "sends a request to every node"
    # --- a node, by its number
    CRASH = "is killed"
    DRAIN = "is drained"
    CUT_STORE = "loses the store"
    CUT_BROKER = "loses the broker"
    CUT_FEED = "hears no publications"
    SLOW = "is slow to reach the store"
    # --- everybody
    STORE_AWAY = "the store is away"
    BROKER_LOST = "the broker loses everything"
    STORE_FAILS_OVER = "the store loses its last writes"


OF_CLIENTS: Final = frozenset(
    {Act.EDIT, Act.SHOW, Act.CUT, Act.LEAVE, Act.GO, Act.STALL, Act.SUSPEND, Act.RESUME, Act.REVOKE, Act.REVOKE_USER}
    | {Act.SHRINK, Act.BAN, Act.TICKET, Act.CROWD, Act.DELETE, Act.ASK}
)
OF_NODES: Final = frozenset({Act.CRASH, Act.DRAIN, Act.CUT_STORE, Act.CUT_BROKER, Act.CUT_FEED, Act.SLOW})

OFTEN: Final = {Act.EDIT: 40, Act.SHOW: 6, Act.CUT: 5, Act.LEAVE: 4, Act.GO: 1, Act.STALL: 1, Act.ASK: 3}
COMMANDS: Final = {
    Act.SUSPEND: 2,
    Act.RESUME: 3,
    Act.REVOKE: 4,
    Act.REVOKE_USER: 2,
    Act.SHRINK: 1,
    Act.BAN: 1,
    Act.TICKET: 2,
    Act.CROWD: 1,
    Act.DELETE: 1,
}
FAULTS: Final = {
    Act.CRASH: 3,
    Act.DRAIN: 1,
    Act.CUT_STORE: 3,
    Act.CUT_BROKER: 2,
    Act.CUT_FEED: 4,
    Act.SLOW: 2,
    Act.STORE_AWAY: 1,
    Act.BROKER_LOST: 2,
}


class Step(Struct, frozen=True):
    """``act`` happens ``at`` so many seconds to whoever has this ``number``; a fault ends after ``seconds``."""

    at: float
    act: Act
    number: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        lasting = f" for {self.seconds:.1f} s" if self.seconds else ""
        if self.act in OF_CLIENTS:
            return f"{self.at:6.2f} client {self.number} {self.act}{lasting}"
        if self.act in OF_NODES:
            return f"{self.at:6.2f} node {self.number} {self.act}{lasting}"
        return f"{self.at:6.2f} {self.act}{lasting}"


class Person(Struct, frozen=True):
    """A client: what it speaks, whose it is, which document it is in, and which node it prefers."""

    number: int
    kind: Kind
    user: str
    document: str
    node: int


class Plan(Struct, frozen=True):
    """Everything that is decided before a history begins. ``offsets`` are how wrong the clocks of the nodes are."""

    seed: int
    offsets: tuple[float, ...]
    people: tuple[Person, ...]
    steps: tuple[Step, ...]
    is_calm: bool = False
    """Whether the network is at its best, but for the faults among the steps."""
    may_lose_writes: bool = False
    """Whether the store is replicated asynchronously, so that a failover loses what was acknowledged last."""

    def __str__(self) -> str:
        nodes = ", ".join(f"{offset:+.1f} s" for offset in self.offsets)
        people = (
            f"client {each.number}: {each.kind} of {each.user} in {each.document} on node {each.node}"
            for each in self.people
        )
        weather = "calm" if self.is_calm else "rough"
        return "\n".join((f"seed {self.seed}; clocks {nodes}; network {weather}", *people, *map(str, self.steps)))


def plan_of(seed: int) -> Plan:
    """The plan of a seed."""
    chance = random.Random(f"plan {seed}")  # noqa: S311  # not for secrets
    nodes = chance.choice((2, 2, 3))
    may_lose_writes = chance.random() < 0.1
    people = tuple(_person(chance, number, nodes) for number in range(chance.randint(2, 5)))
    steps = [_step(chance, OFTEN, len(people), nodes) for _ in range(chance.randint(8, 24))]
    steps += _burst(chance, steps, len(people))
    for acts in (COMMANDS, FAULTS):
        # Few kinds at a time, so that what happens together differs from one history to the next (swarm testing).
        some = dict(chance.sample(sorted(acts.items()), chance.randint(1, 3)))
        steps += [_step(chance, some, len(people), nodes) for _ in range(chance.choice((0, 1, 2, 3, 4)))]
    for scene in chance.sample(SCENES, chance.choice((0, 1, 1, 2))):
        steps += scene(chance, len(people), nodes)
    if may_lose_writes:
        steps.append(Step(chance.uniform(2.0, ACTIVE_SECONDS), Act.STORE_FAILS_OVER, seconds=chance.uniform(0.1, 1.5)))
    offsets = tuple(chance.choice((0.0, 0.0, chance.uniform(-5, 5))) for _ in range(nodes))
    return Plan(
        seed,
        offsets,
        people,
        tuple(sorted(steps, key=lambda step: step.at)),
        is_calm=chance.random() < 0.4,
        may_lose_writes=may_lose_writes,
    )


# --- scenes: what seldom happens together by chance -----------------------------------------------------


def _deletion_unheard(chance: random.Random, people: int, nodes: int) -> list[Step]:
    """A document is deleted and made anew while a node hears nothing of it."""
    at = chance.uniform(1.0, 5.0)
    deaf = chance.randrange(nodes)
    return [
        *(Step(round(at - chance.uniform(0.1, 0.9), 3), Act.EDIT, number) for number in range(people)),
        *(
            Step(round(at, 3), act, deaf, round(chance.uniform(2.0, 4.0), 3))
            for act in (Act.CUT_STORE, chance.choice((Act.CUT_FEED, Act.CUT_BROKER)))
        ),
        *(
            Step(round(at + chance.uniform(0.05, 0.5), 3), Act.DELETE, number)
            for number in chance.sample(range(people), 2)
        ),
        *(Step(round(at + chance.uniform(0.5, 4.0), 3), Act.EDIT, number) for number in range(people)),
    ]


def _everybody_at_once(chance: random.Random, people: int, nodes: int) -> list[Step]:
    """All type in the same moments."""
    del nodes
    begin = chance.uniform(1.0, ACTIVE_SECONDS - 2)
    return [
        Step(round(begin + 0.4 * turn + chance.uniform(0.0, 0.006), 4), Act.EDIT, number)
        for turn in range(3)
        for number in range(people)
    ]


def _leases_outlived(chance: random.Random, people: int, nodes: int) -> list[Step]:
    """People go on typing while a node reaches the store so slowly that its leases end before its work does."""
    begin = chance.uniform(1.0, 4.0)
    return [
        Step(round(begin, 3), Act.SLOW, chance.randrange(nodes), 6.0),
        *(Step(round(begin + 0.25 * turn, 3), Act.EDIT, chance.randrange(people)) for turn in range(1, 20)),
    ]


def _revoked_while_slow(chance: random.Random, people: int, nodes: int) -> list[Step]:
    """Sessions are revoked while nodes read them slowly."""
    begin = chance.uniform(1.0, 5.0)
    return [
        *(Step(round(begin, 3), Act.SLOW, node, 3.0) for node in range(nodes)),
        *(Step(round(begin + turn, 3), Act.REVOKE, chance.randrange(people)) for turn in (0.5, 1.5, 2.5)),
    ]


SCENES: Final = (_deletion_unheard, _everybody_at_once, _leases_outlived, _revoked_while_slow)


def _burst(chance: random.Random, steps: list[Step], people: int) -> list[Step]:
    """Edits that come within a moment of others."""
    times = [step.at for step in steps if step.act is Act.EDIT]
    return [
        Step(round(at + chance.uniform(0.0, 0.02), 4), Act.EDIT, chance.randrange(people))
        for at in chance.sample(times, chance.randint(0, len(times) // 2))
    ]


def _person(chance: random.Random, number: int, nodes: int) -> Person:
    return Person(
        number,
        chance.choice((Kind.JSON, Kind.JSON, Kind.YJS, Kind.YJS, Kind.HOCUSPOCUS)),
        USERS[number % len(USERS)],  # two clients of one at most, so that the cap has room for them
        chance.choice(("plan", "plan", "plan", "notes")),
        (number + chance.choice((0, 0, 0, 1))) % nodes,
    )


def _step(chance: random.Random, acts: dict[Act, int], people: int, nodes: int) -> Step:
    (act,) = chance.choices([*acts], weights=[*acts.values()])
    number = chance.randrange(nodes if act in OF_NODES else people)
    seconds = 0.0
    if act in FAULTS or act is Act.STALL:
        seconds = chance.choice((chance.uniform(0.1, 1.0), chance.uniform(0.5, 4.0), chance.uniform(2.0, 9.0)))
    return Step(round(chance.uniform(0.3, ACTIVE_SECONDS), 3), act, number, round(seconds, 3))
