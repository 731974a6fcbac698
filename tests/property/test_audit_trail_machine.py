"""
Whatever happens to nodes and stores, every committed event of sessions is in the audit log once they are back.

Real services on a store that is away, is full, or loses its answers; nodes that crash between any two commits, and such
that go on although their turn is over. Nothing waits for real.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from enum import StrEnum, auto

from hypothesis import example, given, settings
from hypothesis import strategies as st

from roomkey.audit.following import EventsRecorded, EventTrail
from roomkey.audit.index import SearchIndex
from roomkey.audit.log import AuditLog
from roomkey.audit.opening import open_log
from roomkey.audit.sealing import line_of
from roomkey.audit.settings import AuditSettings
from roomkey.backends.memory.leases import MemoryLeases
from roomkey.errors import Conflict, RoomkeyError
from roomkey.leasing import Chore
from roomkey.sessions.event_follower import EventFollower
from tests.support.audit_trail import Office
from tests.support.loops import run_in_no_time
from tests.support.sessions import Desk

USERS = ("alice", "bob", "carol")


class Step(StrEnum):
    """What can happen."""

    CREATE = auto()
    CHANGE = auto()
    ROUND = auto()
    CRASH = auto()
    TAKE_OVER = auto()
    ZOMBIE = auto()
    AWAY = auto()
    FULL = auto()
    FULL_SOON = auto()
    BACK = auto()
    LOSE_ANSWERS = auto()
    OTHERS_RECORD = auto()
    MINUTES_PASS = auto()


class Node:
    """What one node does for the events of all."""

    def __init__(self, world: "World") -> None:
        office = world.office
        self.log = world.open_log()
        recorded = EventsRecorded(office.sealer, self.log, office.objects, office.clock)
        index = SearchIndex(self.log, office.objects, office.naming)
        chore = Chore(MemoryLeases(office.clock), "audit trail", "n")
        events = world.desk.storage
        self._trail = EventTrail(events, recorded, office.objects, office.clock, chore=chore, after_round=index.build)
        self._follower = EventFollower(events, recorded, name="audit", checkpoints=recorded)
        self._is_started = False

    async def round(self) -> None:
        """What a node does again and again while it is its turn. Raises what ends its turn."""
        if not self._is_started:
            await self._follower.start()
            self._is_started = True
        await self._trail.round(self._follower)


class World:
    def __init__(self) -> None:
        self.office = Office()
        self.desk = Desk()
        self.node = Node(self)
        self.former: Node | None = None
        self.had_zombies = False
        self._created = 0

    def open_log(self) -> AuditLog:
        office = self.office
        leases = MemoryLeases(office.clock)
        key = b"k" * 32
        return open_log(
            office.objects, leases, key_of=lambda _: key, node="n", clock=office.clock, settings=AuditSettings()
        )

    async def take(self, step: Step) -> None:
        """Let it happen."""
        objects, clock = self.office.objects, self.office.clock
        match step:
            case Step.CREATE | Step.CHANGE | Step.OTHERS_RECORD:
                await self._commit(step)
            case Step.ROUND:
                await self._round(self.node)
            case Step.CRASH | Step.TAKE_OVER:
                self.former = self.node if step is Step.TAKE_OVER else self.former
                self.node = Node(self)
            case Step.ZOMBIE:
                await self._zombie()
            case Step.AWAY | Step.FULL | Step.BACK:
                objects.is_away, objects.is_full = step is Step.AWAY, step is Step.FULL
                objects.commits_left = None
            case Step.FULL_SOON:
                objects.commits_left = 1
            case Step.LOSE_ANSWERS:
                objects.lost_answers = 2
            case Step.MINUTES_PASS:
                clock.advance(timedelta(minutes=2))

    async def _commit(self, step: Step) -> None:
        if step is Step.CREATE:
            self._created += 1
            await self.desk.active(USERS[self._created % len(USERS)])
        elif step is Step.CHANGE:
            await self.desk.sessions.revoke_user(USERS[0])
        else:
            with suppress(RoomkeyError):
                await self.open_log().append([b"\x01 none of ours"])

    async def _zombie(self) -> None:
        """A node that has lost its turn and does not know goes on."""
        if self.former is not None:
            self.had_zombies = True
            await self._round(self.former)

    async def _round(self, node: Node) -> None:
        try:
            await node.round()
        except Conflict:
            if node is self.node:
                self.node = Node(self)
            else:
                self.former = None
        except RoomkeyError:
            pass  # it goes on when it has its next turn

    async def recover(self) -> None:
        await self.take(Step.BACK)
        self.office.objects.lost_answers = 0
        self.node = Node(self)
        await self.node.round()

    async def check(self) -> None:
        entries = await self.node.log.entries(0, 10_000)
        recorded = [place for place in (line_of(entry).event for entry in entries) if place is not None]
        heads = await self.desk.storage.heads()
        for partition, head in heads.items():
            firsts = [*dict.fromkeys(sequence for where, sequence in recorded if where == partition)]
            assert firsts == [*range(1, head + 1)]
        if not self.had_zombies:
            assert max(Counter(recorded).values(), default=1) == 1


@settings(max_examples=100)
@given(st.lists(st.sampled_from(Step), max_size=40))
@example([Step.CREATE, Step.ROUND, Step.CREATE, Step.ROUND])
@example([*[Step.CREATE] * 3, Step.ROUND, Step.CREATE, Step.FULL_SOON, Step.ROUND, Step.CRASH, Step.BACK, Step.ROUND])
def test_every_committed_event_is_recorded_in_order_and_once(steps: Sequence[Step]) -> None:
    async def history() -> None:
        world = World()
        for step in steps:
            await world.take(step)
        await world.recover()
        await world.check()

    run_in_no_time(history())
