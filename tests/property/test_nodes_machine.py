"""
Editors on several nodes, which are cut off, crash and come back, while documents are merged, deleted and made anew.

At rest all have the same document, the one that is stored; what an editor was told is durable is in it; nothing of a
deleted document is; and everybody who is there is shown, and nobody else.
"""

import asyncio
from itertools import count

from hypothesis import given, settings

from roomkey.backends.memory.documents import MemoryDocumentStore
from roomkey.documents.loading import assemble
from roomkey.documents.maintenance import Maintenance
from roomkey.errors import RoomkeyError
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.testing.clock import ManualClock
from roomkey.wire.lib0 import AwarenessEntry, read_state
from tests.property.test_replicas_machine import Kept, content
from tests.support.document_nodes import Nodes, follow, shown
from tests.support.effort import examples
from tests.support.loops import run_in_no_time
from tests.support.open_documents import Editor, House
from tests.support.sockets import NOON, FakeSessions
from tests.support.steps import History, Pick, histories

NODES = ("a", "b", "c")
EDITORS = 3
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Person:
    """Somebody with an editor; what they type says which document they believe to be in."""

    def __init__(self, name: str, document: int) -> None:
        self.name = name
        self.document = document
        self.editor = Editor()
        self.at: str | None = None

    def cut(self) -> None:
        self.at = None
        self.editor.cut()


class World:
    """Three nodes on one store, and who edits; ``document`` counts the documents that were deleted."""

    def __init__(self) -> None:
        clock = ManualClock(NOON)
        self.sessions = FakeSessions(clock)
        self.nodes = Nodes(clock=clock, sessions=self.sessions, compact_updates=4)
        self.document = 0
        self.began: dict[str, int] = {}
        """Which document there was when a node began: it knows nothing of those that were deleted before."""
        self.people = [Person(f"user {number}", 0) for number in range(EDITORS)]
        self._acknowledged: dict[int, set[bytes]] = {}
        self._clocks = count(1)
        self._away_for = 0

    async def begin(self) -> None:
        for name in NODES:
            await self._begin(name)

    async def _begin(self, name: str) -> None:
        await self.nodes.begin(name)
        self.began[name] = self.document

    def house(self, pick: Pick) -> House:
        return self.nodes[pick(sorted(self.nodes.houses))]

    # --- what people do -------------------------------------------------------------------------------

    async def type(self, pick: Pick) -> None:
        person = pick(self.people)
        text = person.editor.text
        text.insert(pick(range(len(str(text)) + 1)), LETTERS[person.document % len(LETTERS)] * pick((1, 2, 5)))

    async def erase(self, pick: Pick) -> None:
        text = pick(self.people).editor.text
        if length := len(str(text)):
            start = pick(range(length))
            del text[start : min(length, start + 2)]

    async def set_key(self, pick: Pick) -> None:
        person = pick(self.people)
        person.editor.map["key"] = person.document

    async def deliver(self, pick: Pick) -> None:
        pick(self.people).editor.deliver(pick((None, 1, 2)))

    async def converse(self, pick: Pick) -> None:
        del pick
        for person in self.people:
            person.editor.deliver()
        await self.nodes.settle()
        for person in self.people:
            person.editor.read()

    async def cut(self, pick: Pick) -> None:
        self._hear()
        pick(self.people).cut()

    async def connect(self, pick: Pick) -> None:
        await self.enter(pick(self.people), pick(sorted(self.nodes.houses)))

    async def enter(self, person: Person, name: str) -> None:
        if not person.editor.is_closed:
            return
        self._hear()
        self._look_why(person)
        person.cut()
        if person.document < self.began[name]:
            self._reset(person)
        _, token = self.sessions.issue(person.name, idle=None)
        if await self.nodes[name].connect(person.editor, token):
            person.at = name
            self._show(person)
            if person.document < self.document:
                # Before they type: what builds on a copy that is refused would wait for it for ever.
                await self.nodes[name].converse(person.editor, rounds=2)

    def _show(self, person: Person) -> None:
        entry = AwarenessEntry(person.editor.doc.client_id, next(self._clocks), b"{}")
        person.editor.outgoing.append(yjs.awareness([entry]))

    def _look_why(self, person: Person) -> None:
        closed = person.editor.socket.closed_with
        if closed is not None and closed[0] in (4410, 4205):
            self._reset(person)

    def _reset(self, person: Person) -> None:
        """Go on without the copy, as pages do that are told so."""
        person.cut()
        person.editor, person.document = Editor(), self.document

    # --- what happens to nodes ------------------------------------------------------------------------

    async def settle(self, pick: Pick) -> None:
        del pick
        await self.nodes.settle()

    async def pass_time(self, pick: Pick) -> None:
        house = self.house(pick)
        await house.pass_time(pick((0.1, 1, 6)))

    async def look(self, pick: Pick) -> None:
        await follow(self.house(pick))

    async def crash(self, pick: Pick) -> None:
        self._hear()
        name = pick(sorted(self.nodes.houses))
        await self.nodes.kill(name)
        for person in self.people:
            if person.at == name:
                person.editor.peer = None
                person.cut()
        if pick((True, False)):
            self.nodes.say_gone(name)
        await self._begin(name)  # as another node: nobody remembers what it showed before
        if pick((True, False)):
            await self.enter(pick(self.people), name)

    async def lose_storage(self, pick: Pick) -> None:
        self.nodes.store.away = True
        self._away_for = pick((3, 8))

    async def hold_wire(self, pick: Pick) -> None:
        self.nodes.broker(pick(NODES)).held = True

    async def deliver_wire(self, pick: Pick) -> None:
        self.nodes.broker(pick(NODES)).deliver(pick((1, 2, 5)))

    async def release_wire(self, pick: Pick) -> None:
        self._release(pick(NODES))

    def _release(self, name: str) -> None:
        broker = self.nodes.broker(name)
        broker.held = False
        broker.deliver()

    async def cut_wire(self, pick: Pick) -> None:
        self.nodes.broker(pick(NODES)).cut = True

    async def mend_wire(self, pick: Pick) -> None:
        self.nodes.broker(pick(NODES)).mend()

    # --- what happens to the document -----------------------------------------------------------------

    async def sweep(self, pick: Pick) -> None:
        if not self.nodes.store.away:
            await Maintenance(self.house(pick).open_documents).sweep(self.nodes.clock.now())

    async def forget(self, pick: Pick) -> None:
        """Storage fails over, and loses what some node has in memory."""
        store = self.nodes.store
        record = await store.find("d")
        if store.away or record is None or not record.log_updates:
            return
        holders = [
            house
            for house in self.nodes
            if (document := house.open_documents.find("d")) is not None
            and (document.lineage, document.sequence) == (record.lineage, record.sequence)
        ]
        if holders:
            store.forget_updates(pick(range(1, record.log_updates + 1)))
            await follow(holders[0])
            await holders[0].open_documents.catching_up.reach_all([*holders[0].open_documents])

    async def delete(self, pick: Pick) -> None:
        """Delete the document on one node, and make it anew on two at once."""
        if self.nodes.store.away:
            return
        self._hear()
        record = await MemoryDocumentStore.load(self.nodes.store, "d")
        stored = frozenset[int]() if record is None else read_state((await assemble(record)).state()).keys()
        # Of what these have nothing says that it is of this document.
        strangers = [
            person
            for person in self.people
            if person.editor.is_closed and not read_state(person.editor.doc.get_state()).keys() & stored
        ]
        for name in NODES:  # who hears nothing of it learns it later, and remembers nobody's copies
            self._release(name)
            self.nodes.broker(name).mend()
        await self.nodes.settle()
        try:
            await self.nodes.service(pick(NODES)).delete("d")
        except RoomkeyError:
            return
        self.document += 1
        for person in strangers:
            self._reset(person)
        if pick((True, False)):
            await self.nodes.settle()
        await asyncio.gather(*(self._make(pick(NODES)) for _ in range(2)))
        await self.nodes.settle()

    async def _make(self, name: str) -> None:
        try:
            async with self.nodes[name].open():
                pass
        except RoomkeyError:
            pass

    # --- what must hold -------------------------------------------------------------------------------

    async def check(self) -> None:
        self._away_for -= 1
        self.nodes.store.away = self._away_for > 0
        self._hear()

    def _hear(self) -> None:
        for person in self.people:
            self._acknowledged.setdefault(person.document, set()).update(person.editor.durable)

    async def end_well(self) -> None:
        """Let everything be repaired that can be."""
        self.nodes.store.away, self._away_for = False, 0
        for name in NODES:
            self._release(name)
            self.nodes.broker(name).mend()
        for turn in range(8):
            for number, person in enumerate(self.people):
                await self.enter(person, NODES[number % len(NODES)])
                if turn > 4:  # as clients do all the time
                    self._show(person)
            for _ in range(2):
                await self.converse(Pick(0))
            for house in self.nodes:
                await house.pass_time(6)
                await follow(house)
                await Maintenance(house.open_documents).sweep(self.nodes.clock.now())
        await self.converse(Pick(0))

    async def check_all(self) -> None:
        stored = await MemoryDocumentStore.load(self.nodes.store, "d")
        assert stored is not None
        merged = await assemble(stored)
        kept = Kept(stored, merged.since())
        self._hear()
        missing = [update for update in self._acknowledged.get(self.document, ()) if not kept.has(update)]
        assert not missing, "acknowledged, but not stored"

        documents = [await house.document() for house in self.nodes]
        assert {document.lineage for document in documents} == {stored.record.lineage}
        assert {(each.sequence, each.version, each.has_gap) for each in documents} == {
            (stored.record.sequence, stored.record.sequence, False)
        }
        assert not any(person.editor.is_closed for person in self.people)
        expected = content(merged.doc)
        assert [content(document.replica.doc) for document in documents] == [expected] * len(documents)
        assert [content(person.editor.doc) for person in self.people] == [expected] * EDITORS
        assert set(expected[0]) <= {LETTERS[self.document % len(LETTERS)]}, "something of a deleted document"
        here = sorted(person.editor.doc.client_id for person in self.people)
        assert [shown(document) for document in documents] == [here] * len(documents)


STEPS = (
    *("type",) * 8,
    *("erase", "set_key") * 2,
    *("deliver", "converse", "settle") * 3,
    *("connect", "pass_time", "look") * 3,
    *("hold_wire", "deliver_wire", "release_wire") * 2,
    *("cut_wire", "mend_wire", "sweep", "cut") * 2,
    "lose_storage",
    "crash",
    "forget",
    "delete",
)


async def live(history: History) -> None:
    world = World()
    async with world.nodes:
        await world.begin()
        for number, person in enumerate(world.people):
            await world.enter(person, NODES[number])
        await world.converse(Pick(0))
        for name, number in history:
            await getattr(world, name)(Pick(number))
            await world.check()
        await world.end_well()
        await world.check_all()


@settings(max_examples=examples(60))
@given(histories(*STEPS, max_size=60))
def test_all_nodes_come_to_the_document_that_is_stored_with_all_that_was_acknowledged(history: History) -> None:
    run_in_no_time(live(history))
