"""People at several nodes at once, who write in one document and in its room, and what must be so when they stop."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from secrets import token_hex
from typing import Final

from tests.support.room_member import RoomMember, in_room
from tests.support.serving_nodes import ServingNode, ServingNodes
from tests.support.typist import Typist, typing

PACE_SECONDS: Final = 0.05


class Person:
    """A user with a socket in the document and one in its room, both at one node."""

    def __init__(self, session: str, typist: Typist, member: RoomMember) -> None:
        self.session = session
        self.typist = typist
        self.member = member
        self.is_writing = True

    @property
    def saved(self) -> int:
        """How much was confirmed so far: of the document, and of the room."""
        return len(self.typist.saved)

    @property
    def said(self) -> int:
        """The same of the room."""
        return len(self.member.acknowledged)

    def write(self, number: int) -> None:
        """Put something into both."""
        mark = f"[{self.session[:8]}.{number}]"
        self.typist.type(mark)
        self.member.say(mark)

    async def has_gone_on(self, by: int = 10) -> None:
        """Return when so much more was confirmed."""
        saved, said = self.saved, self.said
        await self.typist.wait(lambda: self.saved >= saved + by)
        await self.member.wait(lambda: self.said >= said + by)


class Crowd:
    """One person at each node, all in the document ``name``."""

    def __init__(self, nodes: ServingNodes, name: str, people: Sequence[Person]) -> None:
        self.name = name
        self.people = people
        self._nodes = nodes

    async def settle(self) -> None:
        """Let nobody write any more, and return when everything of everybody is confirmed and everywhere."""
        for person in self.people:
            person.is_writing = False
        for person in self.people:
            await person.typist.wait(lambda person=person: person.typist.saved >= set(person.typist.typed))
            await person.member.wait(lambda person=person: person.member.has_said_all)
        marks = {mark for person in self.people for mark in person.typist.typed}
        for person in self.people:
            await person.typist.wait(lambda person=person: marks_in(person.typist.text).keys() >= marks)

    async def has_gone_on(self) -> None:
        """Return when more was confirmed to everybody."""
        await asyncio.gather(*(person.has_gone_on() for person in self.people))

    async def check_document(self, others: Sequence[Person] = ()) -> None:
        """
        Everybody has the same, in which is everything that was typed, once; and the store has it.

        Of the ``others`` that only goes for what was confirmed to them.
        """
        text = self.people[0].typist.text
        typed = {mark for person in self.people for mark in person.typist.typed}
        saved = {mark for person in others for mark in person.typist.saved}
        unsure = {mark for person in others for mark in person.typist.typed} - saved
        found = marks_in(text)
        assert [person.typist.text == text for person in self.people] == [True] * len(self.people)
        assert {mark: found[mark] for mark in found.keys() - unsure} == dict.fromkeys(typed | saved, 1)
        assert await self._nodes.stored(self.name) == text

    async def check_room(self) -> None:
        """Everybody has heard all of it, in one order, without a gap and without a repeat, and nobody had to load."""
        said = {text for person in self.people for text in person.member.acknowledged}
        for person in self.people:
            await person.member.wait(lambda person=person: said <= set(person.member.heard.values()))
        assert [person.member.faults for person in self.people] == [[]] * len(self.people)
        assert [person.member.loaded for person in self.people] == [0] * len(self.people)
        for person in self.people:
            heard = person.member.heard
            assert list(heard) == list(range(min(heard), max(heard) + 1))
            common = {offset: text for offset, text in self.people[0].member.heard.items() if offset >= min(heard)}
            assert {offset: heard[offset] for offset in common} == common


@asynccontextmanager
async def crowd(
    nodes: ServingNodes, name: str, *, writes: bool = True, pace: float = PACE_SECONDS
) -> AsyncGenerator[Crowd]:
    """A person at each node; all of them write until they are told to stop, or this is left."""
    async with AsyncExitStack() as stack:
        people = [await stack.enter_async_context(_person(node, name)) for node in nodes]
        for person in people:  # in the room before anything is said, so that all hear all of it
            await person.member.wait(lambda person=person: person.member.is_in)
        if writes:
            await stack.enter_async_context(_writing(*people, pace=pace))
        yield Crowd(nodes, name, people)


@asynccontextmanager
async def guest(node: ServingNode, name: str, *, pace: float = PACE_SECONDS) -> AsyncGenerator[Person]:
    """One more person at a node, who writes until this is left."""
    async with _person(node, name) as person, _writing(person, pace=pace):
        yield person


@asynccontextmanager
async def _person(node: ServingNode, name: str) -> AsyncGenerator[Person]:
    session, token = await node.session(token_hex(4))
    async with typing(node.base, token, name) as typist, in_room(node.base, token, name) as member:
        yield Person(session, typist, member)


@asynccontextmanager
async def _writing(*people: Person, pace: float) -> AsyncGenerator[None]:
    async def write() -> None:
        for number in count():
            for person in people:
                if person.is_writing:
                    person.write(number)
            await asyncio.sleep(pace)

    writing = asyncio.ensure_future(write())
    try:
        yield
    finally:
        writing.cancel()
        await asyncio.wait([writing])


def marks_in(text: str) -> Counter[str]:
    """The marks in a text, and how often each is there."""
    return Counter(f"{mark}]" for mark in text.split("]")[:-1])
