"""
Whatever a writer sends: what somebody else typed and was told is durable stays, and what they type next is seen.

The victim is the weakest there is: an editor whose library does not notice that its id is used by somebody else.
"""

from collections.abc import Callable
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from pycrdt import Doc

from roomkey.realtime.protocol import yjs_messages as yjs
from roomkey.realtime.transport import Accepted
from roomkey.wire import lib0
from tests.support.effort import examples
from tests.support.forgeries import deletion, erased, gc, put_together, section, skip, words
from tests.support.loops import run_in_no_time
from tests.support.open_documents import Editor, House, text, text_of
from tests.support.sockets import FakeSocket

LENGTHS: Final = (1, 2, 3, 7, 1_000, 2**31, 2**32 - 300)
MARKS: Final = [chr(code) for code in range(0x4E00, 0x4E00 + 200)]
"""What the victim types, each once: a unit each."""


class Attack(Struct, frozen=True):
    """
    What somebody sends in the victim's name.

    ``ahead`` is where its blocks begin, from the end of what the server knows; ``erases`` is where a deletion does.
    """

    ahead: int
    blocks: tuple[tuple[str, int], ...]
    erases: tuple[int, int] | None
    with_own: bool
    as_step2: bool

    def update(self, victim: int, known: int) -> bytes:
        """The update against ``victim``, of which ``known`` units are on the server."""
        sections = [section(victim, max(known + self.ahead, 0), *self._blocks())] if self.blocks else []
        own = [section(5, 0, words("mine"))] if self.with_own else []
        deleted = [deletion(victim, known + self.erases[0], self.erases[1])] if self.erases else []
        return put_together(*sections, *own, deletions=tuple(deleted))

    def _blocks(self) -> list[bytes]:
        return [MAKERS[kind](length) for kind, length in self.blocks]


def questions(length: int) -> bytes:
    """A text, which unlike other blocks is as long as it says."""
    return words("?" * min(length, 1_000))


MAKERS: Final[dict[str, Callable[[int], bytes]]] = {"gc": gc, "skip": skip, "erased": erased, "words": questions}


attacks = st.builds(
    Attack,
    ahead=st.sampled_from((0, 0, 0, 1, 2, 50, -1, -3)),
    blocks=st.lists(st.tuples(st.sampled_from(sorted(MAKERS)), st.sampled_from(LENGTHS)), max_size=3).map(tuple),
    erases=st.none() | st.tuples(st.integers(0, 3), st.sampled_from(LENGTHS)),
    with_own=st.booleans(),
    as_step2=st.booleans(),
)

steps = st.lists(st.sampled_from(("type", "type", "deliver", "back")) | attacks, max_size=15)


class World:
    """A document with a victim in it, somebody who reads, and an attacker who comes back each time."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.typed: list[str] = []

    async def begin(self, *, shows_itself: bool) -> None:
        self.shows_itself = shows_itself
        self.reader = await self.house.editor("carol")
        self.victim = await self.house.editor("alice")
        self.document = await self.house.document()
        self._show()
        if not shows_itself:
            self.type()  # or nobody would know of it
        await self.house.converse(self.victim)

    def _show(self) -> None:
        if self.shows_itself and self.victim.peer is not None:
            state = lib0.AwarenessEntry(self.victim.doc.client_id, len(self.typed) + 1, b"{}")
            self.victim.outgoing.insert(0, yjs.awareness([state]))

    def type(self) -> None:
        mark = MARKS[len(self.typed)]
        self.typed.append(mark)
        self.victim.text += mark

    async def come_back(self) -> None:
        """The victim's connection is replaced by one of another session, with all that it has."""
        _, token = self.house.sessions.issue("alice")
        self.victim.cut()
        assert await self.house.connect(self.victim, token)
        self._show()
        await self.house.converse(self.victim)

    async def attack(self, attack: Attack) -> None:
        client = self.victim.doc.client_id
        known = lib0.read_state(self.document.replica.state()).get(client, 0)
        update = attack.update(client, known)
        message = yjs.sync_step2(update) if attack.as_step2 else yjs.update(update)
        _, token = self.house.sessions.issue("mallory")
        answer = await self.house.knock(token)
        assert isinstance(answer, Accepted)
        socket = FakeSocket()
        answer.conversation.opened(socket)
        answer.conversation.binary(message)
        assert socket.closed_with in (None, (4400, "forged"), (4400, "malformed"))
        if socket.closed_with is None:
            answer.conversation.closed(1001)

    def check(self, seen: str) -> None:
        assert [mark for mark in seen if mark in set(self.typed)] == self.typed


async def live(history: list[Any], *, shows_itself: bool) -> None:
    async with House() as house:
        world = World(house)
        await world.begin(shows_itself=shows_itself)
        for step in history:
            match step:
                case "type":
                    world.type()
                case "deliver":
                    await house.converse(world.victim)
                case "back":
                    await world.come_back()
                case _:
                    await world.attack(step)
        world.type()
        await house.converse(world.victim, world.reader)

        for seen in (text(world.document), text_of(world.reader.doc), text_of(world.victim.doc)):
            world.check(seen)
        world.check(await house.store.text("d"))
        assert world.victim.socket.closed_with is None
        assert world.document.replica.waiting == []
        joiner: Editor = await house.editor("dave")
        world.check(text_of(joiner.doc))


@settings(max_examples=examples(150))
@given(steps, st.booleans())
def test_what_somebody_typed_stays_and_what_they_type_next_is_seen(history: list[Any], shows_itself: bool) -> None:  # noqa: FBT001  # drawn
    run_in_no_time(live(history, shows_itself=shows_itself))


def test_the_victim_does_not_notice_that_its_id_is_used() -> None:
    doc: Doc[Any] = Doc(client_id=7)

    doc.apply_update(put_together(section(7, 0, words("?"))))

    assert doc.client_id == 7
