"""Whoever is inside is asked about again in time, and when the application wants it; every node hears of that."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from roomkey.access.decisions import ApplicationDecisions, NoAnswer
from roomkey.access.rechecks import MAX_LISTED, NAME, SPACE, Rechecks
from roomkey.access.settings import AccessSettings
from roomkey.access.watch import AccessWatch, Subject
from roomkey.backends.memory.objects import MemoryObjectStore
from roomkey.domain.access import Access
from roomkey.domain.session import Session, SessionId
from roomkey.testing.clock import ManualClock
from tests.support.access import NOON, Application, a_session

AGE = timedelta(minutes=1)


class Sockets:
    """Sessions in documents, and what they were told that they may do there."""

    def __init__(self, decisions: ApplicationDecisions) -> None:
        self.inside: dict[tuple[str, str], Session] = {}
        self.told: dict[tuple[str, str], Access | None] = {}
        self.reasons: dict[str, list[str | None]] = {}
        self.decisions = decisions

    def in_use(self) -> Iterator[tuple[Session, Sequence[str]]]:
        for (_, document), session in list(self.inside.items()):
            yield session, (document,)

    def review(self, id: SessionId, reason: str | None = None) -> None:
        self.reasons.setdefault(id, []).append(reason)
        for (name, document), session in self.inside.items():
            if name == id:
                self.told[name, document] = self.decisions.access(session, document)


class Desk:
    def __init__(self, says: Any = "write") -> None:
        self.clock = ManualClock(NOON)
        self.application = Application(says)
        settings = AccessSettings(max_age=AGE, stale_if_error=timedelta(minutes=10))
        self.decisions = ApplicationDecisions(self.application, settings, self.clock)
        self.sockets = Sockets(self.decisions)
        self.watch = AccessWatch(self.decisions, lambda: self.sockets, self.clock)

    async def enter(self, name: str, document: str) -> None:
        session = a_session(name)
        self.sockets.inside[name, document] = session
        await self.decisions.decide(session, document)


async def test_an_answer_never_grows_older_than_its_age_while_its_socket_is_open() -> None:
    desk = Desk()
    await desk.enter("one", "plan")
    session = desk.sockets.inside["one", "plan"]

    for _ in range(60):
        desk.clock.advance(desk.watch.interval)
        assert desk.decisions.is_fresh(session, "plan")
        await desk.watch.look()

    assert 5 <= len(desk.application.asked) <= 7


async def test_a_right_that_was_withdrawn_ends_with_the_age_of_the_answer() -> None:
    desk = Desk()
    await desk.enter("one", "plan")
    desk.application.says = "read"

    desk.clock.advance(AGE - desk.watch.interval)
    await desk.watch.look()

    assert desk.sockets.told["one", "plan"] is Access.READ


async def test_who_is_inside_stays_while_the_application_is_away_and_has_to_leave_after_the_stated_age() -> None:
    desk = Desk()
    await desk.enter("one", "plan")
    desk.application.says = NoAnswer("away", is_away=True)

    told = list[Access | None]()
    for _ in range(int(timedelta(minutes=12) / desk.watch.interval)):
        desk.clock.advance(desk.watch.interval)
        await desk.watch.look()
        told.append(desk.sockets.told.get(("one", "plan"), Access.WRITE))

    assert told.index(None) == int((AGE + timedelta(minutes=10)) / desk.watch.interval) - 1


async def test_a_recheck_asks_about_those_whom_it_is_about_and_they_obey_when_it_returns() -> None:
    desk = Desk()
    for name, document in (("one", "plan"), ("two", "plan"), ("one", "mine")):
        await desk.enter(name, document)
    desk.application.says = {"plan": "read", "mine": None}

    done = await desk.watch.recheck([Subject(document="plan")])

    assert (done.checked, done.changed, done.unanswered) == (2, 2, 0)
    assert desk.sockets.told["one", "plan"] is desk.sockets.told["two", "plan"] is Access.READ
    assert desk.sockets.told["one", "mine"] is Access.WRITE
    await desk.watch.recheck([Subject(session=SessionId("one"))])
    assert desk.sockets.told["one", "mine"] is None


async def test_who_loses_a_right_by_a_recheck_is_told_its_reason_and_nobody_else_is() -> None:
    desk = Desk()
    for name, document in (("one", "plan"), ("two", "mine")):
        await desk.enter(name, document)
    desk.sockets.reasons.clear()
    desk.application.says = {"plan": None, "mine": None}

    await desk.watch.recheck([Subject(document="plan", reason="you left the team")])
    await desk.watch.recheck([Subject(document="mine")])

    assert set(desk.sockets.reasons["one"]) == {"you left the team"}
    assert set(desk.sockets.reasons["two"]) == {None}


async def test_two_rechecks_at_once_have_a_reason_each() -> None:
    desk = Desk()
    for name, document in (("one", "plan"), ("two", "mine")):
        await desk.enter(name, document)
    desk.sockets.reasons.clear()
    desk.application.may_answer.clear()
    desk.application.is_asked.clear()

    async with asyncio.TaskGroup() as group:
        for name, document in (("one", "plan"), ("two", "mine")):
            group.create_task(desk.watch.recheck([Subject(document=document, reason=f"for {name}")]))
        await desk.application.is_asked.wait()
        desk.application.may_answer.set()

    assert {name: set(told) for name, told in desk.sockets.reasons.items()} == {"one": {"for one"}, "two": {"for two"}}


async def test_a_recheck_without_an_answer_changes_nothing_and_says_so() -> None:
    desk = Desk()
    await desk.enter("one", "plan")
    desk.application.says = NoAnswer("away")

    done = await desk.watch.recheck([Subject(document="plan")])

    assert (done.checked, done.changed, done.unanswered) == (1, 0, 1)
    assert desk.decisions.access(desk.sockets.inside["one", "plan"], "plan") is Access.WRITE


# --- among nodes --------------------------------------------------------------------------------------


class Node:
    def __init__(self, objects: MemoryObjectStore, name: str) -> None:
        self.heard: list[Subject] = []
        self.rechecks = Rechecks(objects, self.hear, node=name)

    async def hear(self, subjects: Sequence[Subject]) -> None:
        self.heard += subjects


async def test_every_other_node_hears_of_a_recheck_once() -> None:
    objects = MemoryObjectStore()
    first, second = Node(objects, "a"), Node(objects, "b")
    for node in (first, second):
        await node.rechecks.read()
    plan, one = Subject(document="plan", reason="you left the team"), Subject(session=SessionId("one"))

    await first.rechecks.announce(plan)
    await second.rechecks.announce(one)
    for node in (first, second) * 2:
        await node.rechecks.read()

    assert (first.heard, second.heard) == ([Subject(), one], [Subject(), plan])


async def test_a_node_that_has_missed_some_rechecks_everything() -> None:
    objects = MemoryObjectStore()
    first, second = Node(objects, "a"), Node(objects, "b")
    await second.rechecks.read()

    for number in range(MAX_LISTED + 1):
        await first.rechecks.announce(Subject(document=f"plan{number}"))
    await second.rechecks.read()

    assert second.heard == [Subject(), Subject()]


async def test_a_list_that_cannot_be_read_is_begun_anew_and_everything_is_rechecked() -> None:
    objects = MemoryObjectStore()
    first, second = Node(objects, "a"), Node(objects, "b")
    await first.rechecks.announce(Subject(document="old"))
    await second.rechecks.read()
    await objects.commit(SPACE, {NAME: b"\xc1 damaged"})

    await second.rechecks.read()
    await first.rechecks.announce(Subject(document="plan"))
    await second.rechecks.read()

    assert second.heard == [Subject(), Subject(), Subject(document="plan")]


async def test_a_node_that_starts_rechecks_everything_once() -> None:
    objects = MemoryObjectStore()
    await Node(objects, "a").rechecks.announce(Subject(document="plan"))
    late = Node(objects, "b")

    await late.rechecks.read()
    await late.rechecks.read()

    assert late.heard == [Subject()]
