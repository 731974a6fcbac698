"""Functions of the application are told in order, and whatever they do harms nobody."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from roomkey.errors import InvalidInput
from roomkey.hooks.events import AnyHookEvent, DocumentChanged, DocumentEntered, DocumentLeft
from roomkey.hooks.handlers import Handlers
from roomkey.testing.clock import ManualClock

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def changed(document: str, version: int = 1) -> DocumentChanged:
    return DocumentChanged(document=document, lineage="one", version=version, at=NOON, actor="user:alice")


def presence(kind: Callable[..., AnyHookEvent], document: str, user: str) -> AnyHookEvent:
    return kind(document=document, at=NOON, actor=f"user:{user}", user_id=user)


class Unread:
    """Contents that nobody asks for."""

    async def attach(self, event: AnyHookEvent, form: str, most: int) -> AnyHookEvent:
        raise AssertionError((event, form, most))


@asynccontextmanager
async def at_work(*, patience: float = 5.0, max_waiting: int = 1_000) -> AsyncGenerator[Handlers]:
    handlers = Handlers(
        Unread(),
        ManualClock(NOON),
        timeout=timedelta(seconds=patience),
        max_waiting=max_waiting,
        max_content_bytes=1_000,
    )
    running = asyncio.ensure_future(handlers.run())
    try:
        yield handlers
    finally:
        running.cancel()
        await asyncio.wait([running])


class Told:
    """A function that notes what it is told, and may be held up."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()

    async def __call__(self, event: AnyHookEvent) -> None:
        self.events.append(event)
        await self.may_go_on.wait()


async def test_a_function_is_told_of_what_it_wants_and_of_nothing_else() -> None:
    told = Told()
    async with at_work() as handlers:
        handlers.add(["document.changed", "document.left"], told, documents="notes/*")
        for event in (changed("notes/a"), changed("else"), presence(DocumentEntered, "notes/a", "alice")):
            handlers.tell(event)
        handlers.tell(presence(DocumentLeft, "notes/a", "alice"))
        await handlers.flush()

    assert [(event.type, event.document) for event in told.events] == [
        ("document.changed", "notes/a"),
        ("document.left", "notes/a"),
    ]


async def test_events_of_a_document_are_told_one_after_the_other_and_those_of_others_meanwhile() -> None:
    slow, told, noted = Told(), list[str](), asyncio.Event()

    async def note(event: DocumentEntered) -> None:
        if event.document == "slow":
            await slow(event)
        told.append(f"{event.document} {event.user_id}")
        noted.set()

    slow.may_go_on.clear()
    async with at_work() as handlers:
        handlers.add(["document.entered"], note)
        for user in ("alice", "bob"):
            handlers.tell(presence(DocumentEntered, "slow", user))
        handlers.tell(presence(DocumentEntered, "quick", "alice"))
        await noted.wait()
        before = list(told), len(slow.events)
        slow.may_go_on.set()
        await handlers.flush()

    assert before == (["quick alice"], 1)
    assert told == ["quick alice", "slow alice", "slow bob"]


async def test_of_changes_that_wait_only_the_newest_is_told() -> None:
    told = Told()
    told.may_go_on.clear()
    async with at_work() as handlers:
        handlers.add(["document.changed"], told)
        for version in range(1, 1_000):
            handlers.tell(changed("plan", version))
            await asyncio.sleep(0)
        waiting = handlers.statistics().waiting
        told.may_go_on.set()
        await handlers.flush()

    assert waiting == 2
    assert len(told.events) == 2
    assert told.events[-1].version == 999


@pytest.mark.parametrize("misdeed", ["raises", "hangs", "cannot be cancelled"])
async def test_a_function_that_fails_harms_nobody_and_is_counted(misdeed: str) -> None:
    told, freed, cancelled = Told(), asyncio.Event(), list[AnyHookEvent]()

    async def bad(event: AnyHookEvent) -> None:
        if misdeed == "raises":
            raise ZeroDivisionError
        try:
            await freed.wait()
        except asyncio.CancelledError:
            cancelled.append(event)
            if misdeed == "cannot be cancelled":
                await freed.wait()
            raise

    async with at_work(patience=0.02) as handlers:
        handlers.add(["document.changed"], bad)
        handlers.add(["document.changed"], told)
        for number in range(3):
            handlers.tell(changed(f"plan {number}"))
        await handlers.flush()
        freed.set()

    figures = handlers.statistics()
    assert {event.document for event in told.events} == {"plan 0", "plan 1", "plan 2"}
    assert (figures.told, figures.failed, figures.waiting) == (3, 3, 0)
    assert len(cancelled) == (0 if misdeed == "raises" else 3)
    assert "bad failed" in handlers.degradations()["hooks"]


async def test_what_waits_is_bounded_and_what_is_dropped_is_counted() -> None:
    told = Told()
    told.may_go_on.clear()
    async with at_work(max_waiting=10) as handlers:
        handlers.add(["document.entered"], told)
        for number in range(100):
            handlers.tell(presence(DocumentEntered, "plan", str(number)))
        figures = handlers.statistics()
        told.may_go_on.set()
        await handlers.flush()

    assert (figures.waiting, figures.dropped) == (10, 90)
    assert [event.user_id for event in told.events] == [str(number) for number in range(90, 100)]
    assert "90 events were dropped" in handlers.degradations()["hooks"]


async def test_where_nobody_listens_nothing_waits() -> None:
    async with at_work() as handlers:
        handlers.tell(changed("plan"))

        assert handlers.statistics().waiting == 0
        assert handlers.observations() == {}


async def test_what_is_no_hook_is_refused() -> None:
    def blocks(_: AnyHookEvent) -> None: ...

    async with at_work() as handlers:
        with pytest.raises(InvalidInput, match="async function"):
            handlers.add(["document.changed"], cast("Any", blocks))
        with pytest.raises(InvalidInput, match=r"document\.changed"):
            handlers.add(cast("Any", ["document.chnged"]), Told())
