"""What a process was about to do when it died is told if it was done; sessions that ended are told from the log."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from roomkey.backends.memory import MemorySessionStorage
from roomkey.backends.memory.documents import MemoryDocumentStore
from roomkey.backends.memory.leases import MemoryLeases
from roomkey.backends.memory.objects import MemoryObjectStore
from roomkey.domain.session import Deleted, Evicted, Expired, Invalidated, SessionId, Suspended
from roomkey.hooks.observer import Note
from roomkey.hooks.outbox import SPACE, Outbox, decode_entry, out_of
from roomkey.hooks.recovery import Recovery
from roomkey.hooks.session_events import EndedSessions, ending
from roomkey.hooks.settings import WebhookEndpoint
from roomkey.leasing import Chore
from roomkey.ports import Author, DocumentUpdate, LoggedEvent, NewVersion
from roomkey.testing.clock import ManualClock
from tests.support.receiver import SECRET

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
ALICE = Author("user:alice", None, "alice")
ENDPOINT = WebhookEndpoint(name="search", url="https://app.example.com/", secrets=(SECRET,))


def outbox(objects: MemoryObjectStore, clock: ManualClock, node: str) -> Outbox:
    return Outbox(objects, clock, node=node, endpoints=(ENDPOINT,), bound=100)


async def told(objects: MemoryObjectStore) -> list[Any]:
    return [decode_entry(each.value).event for each in await objects.list(SPACE, prefix=out_of("search"))]


async def notes(objects: MemoryObjectStore) -> int:
    return len(await objects.list(SPACE, prefix="notes/"))


async def recovered(store: MemoryDocumentStore, *left: Note, after: timedelta = timedelta(minutes=1)) -> Any:
    """What is told of these notes of a dead node, and how many of them stay."""
    objects, clock = MemoryObjectStore(), ManualClock(NOON)
    await outbox(objects, clock, "dead").note(left)
    await outbox(objects, clock, "alive").note(left)
    clock.advance(after)
    recovery = Recovery(
        objects,
        lambda: store,
        outbox(objects, clock, "me"),
        clock,
        living=lambda: {"me", "alive"},
        chore=Chore(MemoryLeases(clock), "recovery", "me"),
    )
    await recovery.look()
    return await told(objects), await notes(objects) - len(left)


def note(kind: str, document: str = "plan", lineage: str = "one") -> Note:
    return Note(kind=kind, document=document, lineage=lineage, at=NOON, actor="user:alice", user="alice")


async def a_store() -> MemoryDocumentStore:
    store = MemoryDocumentStore()
    await store.create("plan", "one", NOON)
    await store.append("plan", "one", [DocumentUpdate(b"\0\0", ALICE, NOON)] * 3)
    return store


async def test_a_change_that_was_stored_is_told_with_who_made_it() -> None:
    store = await a_store()
    events, left = await recovered(store, note("changed"), note("changed", "never made"))

    assert [(event.type, event.document, event.version, event.actor) for event in sorted(events, key=repr)] == [
        ("document.changed", "plan", 3, "user:alice"),
        ("document.saved", "plan", 3, "user:alice"),
    ]
    assert left == 0


async def test_what_was_done_is_told_and_what_was_not_is_forgotten() -> None:
    store = await a_store()
    version = NewVersion(at=NOON, author=ALICE, label="first", sequence=3, content=b"")
    await store.keep_version("plan", "one", version)
    await store.create("gone", "two", NOON)
    await store.delete("gone", "two", NOON)

    events, left = await recovered(
        store,
        note("created"),
        note("created", lineage="of somebody who was slower"),
        note("deleted", "gone", "two"),
        note("deleted"),
        note("kept"),
        note("kept", "gone", "two"),
    )

    assert sorted((event.type, event.document) for event in events) == [
        ("document.created", "plan"),
        ("document.deleted", "gone"),
        ("document.version_kept", "plan"),
    ]
    assert left == 0


async def test_a_note_that_is_new_is_left_alone() -> None:
    store = await a_store()
    events, left = await recovered(store, note("changed"), after=timedelta(seconds=1))

    assert (events, left) == ([], 1)


def fact(kind: Any, actor: str = "key:backend") -> Any:
    return kind(session=SessionId("one"), user="alice", version=3, at=NOON, actor=actor, reason="why")


def test_what_ends_a_session_is_told_and_nothing_else() -> None:
    endings = {kind: ending(fact(kind)) for kind in (Expired, Invalidated, Evicted, Deleted, Suspended)}

    assert [found and found.how for found in endings.values()] == ["expired", "invalidated", "evicted", "deleted", None]
    assert ending(fact(Deleted, "system:janitor")) is None  # it had ended long before


class Log(MemorySessionStorage):
    """An event log with what a test puts into it."""

    def __init__(self, *events: Any) -> None:
        super().__init__()
        self.logged = [LoggedEvent(number, event) for number, event in enumerate(events, 1)]

    async def heads(self) -> dict[int, int]:
        return {7: len(self.logged)}

    async def events(self, partition: int, after: int = 0, limit: int = 1000) -> Sequence[LoggedEvent]:
        assert partition == 7
        return self.logged[after : after + limit]


async def test_sessions_that_ended_before_hooks_were_set_up_are_not_told_and_later_ones_once() -> None:
    objects, clock = MemoryObjectStore(), ManualClock(NOON)
    log = Log(fact(Expired))

    def consumer() -> EndedSessions:
        chore = Chore(MemoryLeases(clock), "sessions", "me")
        return EndedSessions(log, objects, outbox(objects, clock, "me"), chore=chore)

    first = consumer()
    assert await first.load("webhooks") == {7: 1}
    log.logged.append(LoggedEvent(2, fact(Invalidated)))
    for each in (first, consumer()):  # the second one takes over before it was noted how far the first was
        position = (await each.load("webhooks"))[7]
        await each.consume(7, await log.events(7, position))

    (event,) = await told(objects)
    assert (event.session_id, event.how, event.reason) == ("one", "invalidated", "why")
