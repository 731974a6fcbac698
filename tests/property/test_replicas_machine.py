"""
Editors that lose connections, read slowly and come back, and servers that crash: all end with the same document.

And what an editor was told is durable is in the store from that moment on, whatever happens to the server.
"""

from typing import Any

from hypothesis import given, settings
from pycrdt import Doc

from roomkey.backends.memory.documents import MemoryDocumentStore
from roomkey.documents.crdt.updates import BlockKind, read_update
from roomkey.documents.loading import assemble
from roomkey.documents.maintenance import Maintenance
from roomkey.ports import StoredDocument
from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.realtime.rooms.hub import HIGH_WATER_BYTES
from roomkey.testing.clock import ManualClock
from roomkey.wire.lib0 import EMPTY_UPDATE, AwarenessEntry
from tests.support.effort import examples
from tests.support.loops import run_in_no_time
from tests.support.open_documents import Editor, FaultyStore, House
from tests.support.sockets import NOON, FakeSessions
from tests.support.steps import History, Pick, histories

EDITORS = 3
STEPS_BETWEEN_CHECKS = 20
"""A check loads and merges the whole store, which grows with each step."""

KEYS = ("a", "b")
WORDS = ("x", "yy", "zzz ", "lorem ipsum dolor sit amet ")


class World:
    """A server on a store that outlives it, and the editors of one document."""

    def __init__(self) -> None:
        self.clock = ManualClock(NOON)
        self.sessions = FakeSessions(self.clock)
        self.store = FaultyStore()
        self.editors = [Editor() for _ in range(EDITORS)]
        self._acknowledged: set[bytes] = set()
        self._unchecked: set[bytes] = set()
        self._steps = 0
        self._away_for = 0
        self._shown = 0

    async def begin(self) -> None:
        self.house = House(
            self.store,
            clock=self.clock,
            sessions=self.sessions,
            max_outbox_bytes=500,
            max_unsaved_bytes=150,
            max_idle_bytes=1,
        )
        await self.house.__aenter__()

    # --- what editors do ------------------------------------------------------------------------------

    async def type(self, pick: Pick) -> None:
        editor, words = pick(self.editors), pick(WORDS)
        editor.text.insert(pick(range(len(str(editor.text)) + 1)), words)

    async def erase(self, pick: Pick) -> None:
        editor = pick(self.editors)
        if length := len(str(editor.text)):
            start = pick(range(length))
            del editor.text[start : min(length, start + pick((1, 3, 10)))]

    async def set_key(self, pick: Pick) -> None:
        pick(self.editors).map[pick(KEYS)] = pick(range(100))

    async def deliver(self, pick: Pick) -> None:
        pick(self.editors).deliver(pick((None, 1, 2)))

    async def read(self, pick: Pick) -> None:
        pick(self.editors).read()

    async def cut(self, pick: Pick) -> None:
        pick(self.editors).cut()

    async def connect(self, pick: Pick) -> None:
        editor = pick(self.editors)
        if editor.is_closed:
            editor.cut()
            # A session of its own each time, of the one who sits there.
            _, token = self.sessions.issue(f"user {self.editors.index(editor)}", idle=None)
            await self.house.connect(editor, token)
            # As stock clients do at once: they show who they are.
            self._shown += 1
            editor.outgoing.append(yjs.awareness([AwarenessEntry(editor.doc.client_id, self._shown, b"{}")]))

    async def bounce(self, pick: Pick) -> None:
        """Lose the connection, and have a new one at once."""
        editor = pick(self.editors)
        editor.cut()
        await self.connect(Pick(self.editors.index(editor)))
        await self.house.converse(editor, rounds=pick((1, 2, 3)))

    async def stall(self, pick: Pick) -> None:
        editor = pick(self.editors)
        editor.stall()
        editor.socket.unread = HIGH_WATER_BYTES + 1

    async def unstall(self, pick: Pick) -> None:
        pick(self.editors).unstall()

    # --- what happens to the server -------------------------------------------------------------------

    async def settle(self, pick: Pick) -> None:
        del pick
        await self.house.settle()

    async def converse(self, pick: Pick) -> None:
        del pick
        await self.house.converse(*self.editors)

    async def pass_time(self, pick: Pick) -> None:
        await self.house.pass_time(pick((0.2, 6, 21)))

    async def lose_storage(self, pick: Pick) -> None:
        """Storage is away for some steps."""
        self.store.away = True
        self._away_for = pick((6, 12, 24))

    async def crash(self, pick: Pick) -> None:
        await self.house.crash()
        await self._check_new()  # before those come back who could bring again what is missing
        await self._begin_anew(pick)

    async def restart(self, pick: Pick) -> None:
        await self.house.close()
        await self._begin_anew(pick)

    async def _begin_anew(self, pick: Pick) -> None:
        for editor in self.editors:
            editor.peer = None
            editor.cut()
        await self.begin()
        for number in range(pick(range(EDITORS + 1))):
            await self.connect(Pick(number))

    async def evict(self, pick: Pick) -> None:
        del pick
        for editor in self.editors:
            editor.cut()
        await self.house.settle()
        self.house.open_documents.evict(self.clock.advance(hours=1))

    async def compact(self, pick: Pick) -> None:
        del pick
        record = await self.store.find("d")
        if record is not None and not self.store.away:
            await Maintenance(self.house.open_documents).compact(record)

    # --- what must hold -------------------------------------------------------------------------------

    async def check(self) -> None:
        """What was acknowledged is stored; looked at now and then."""
        self._away_for -= 1
        self.store.away = self._away_for > 0
        self._steps += 1
        self._hear()
        if self._steps % STEPS_BETWEEN_CHECKS == 0:
            await self._check_new()

    async def check_all(self) -> None:
        """Everything that was ever acknowledged is stored."""
        await self._check_stored(self._acknowledged)

    async def _check_new(self) -> None:
        self._hear()
        unchecked, self._unchecked = self._unchecked, set()
        await self._check_stored(unchecked)

    def _hear(self) -> None:
        new = {update for editor in self.editors for update in editor.durable} - self._acknowledged
        self._acknowledged |= new
        self._unchecked |= new

    async def _check_stored(self, acknowledged: set[bytes]) -> None:
        if acknowledged:
            stored = await MemoryDocumentStore.load(self.store, "d")
            assert stored is not None
            kept = Kept(stored, (await assemble(stored)).since())
            assert all(kept.has(update) for update in acknowledged), "acknowledged, but not stored"

    async def end_well(self) -> None:
        """Let everything be repaired that can be, without anybody doing more than waiting or coming back."""
        self.store.away, self._away_for = False, 0
        for editor in self.editors:
            editor.unstall()
        for _ in range(12):
            for number in range(EDITORS):
                await self.connect(Pick(number))
            await self.house.converse(*self.editors)
            await self.house.pass_time(6)
        await self.house.converse(*self.editors)


class Kept:
    """Which units are in a stored document, and which are deleted, whether or not they can be used yet."""

    def __init__(self, stored: StoredDocument, merged: bytes) -> None:
        """``merged`` is the document that it makes: of two who set one key, the loser's value is deleted only there."""
        self._units: set[tuple[int, int]] = set()
        self._deleted: set[tuple[int, int]] = set()
        for update in (merged, stored.snapshot or EMPTY_UPDATE, *(update.data for update in stored.updates)):
            units, deleted = units_of(update)
            self._units |= units
            self._deleted |= deleted

    def has(self, update: bytes) -> bool:
        units, deleted = units_of(update)
        return units <= self._units and deleted <= self._deleted


def units_of(update: bytes) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    structs = read_update(update)
    units = {
        (block.client, clock)
        for block in structs.blocks
        if block.kind is not BlockKind.SKIP
        for clock in range(block.clock, block.end)
    }
    deleted = {
        (client, clock) for client, ranges in structs.deleted.items() for a, b in ranges for clock in range(a, b)
    }
    return units, deleted


def content(doc: Doc[Any]) -> tuple[str, dict[str, Any]]:
    editor = Editor()
    editor.doc.apply_update(doc.get_update())
    return str(editor.text), editor.map.to_py() or {}


STEPS = (
    *("type",) * 8,
    *("erase", "set_key") * 2,
    *("deliver", "converse") * 5,
    *("read", "settle", "bounce") * 3,
    *("connect", "pass_time", "lose_storage") * 3,
    *("stall", "unstall", "compact") * 2,
    "cut",
    "crash",
    "restart",
    "evict",
)


async def live(world: World, history: History) -> None:
    await world.begin()
    for number in range(EDITORS):
        await world.connect(Pick(number))
    await world.house.converse(*world.editors)
    for name, number in history:
        await getattr(world, name)(Pick(number))
        await world.check()
    await world.check_all()

    await world.end_well()

    await world.check_all()
    contents = [content(editor.doc) for editor in world.editors]
    stored = content((await world.store.content("d")).doc)
    await world.house.close()
    assert contents == [contents[0]] * EDITORS, "the editors differ"
    assert stored == contents[0], "the store differs"


@settings(max_examples=examples(50))
@given(histories(*STEPS, max_size=160))
def test_whatever_happens_all_converge_and_nothing_acknowledged_is_lost(history: History) -> None:
    run_in_no_time(live(World(), history))
