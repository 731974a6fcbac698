"""The history of a session is what the event log has of it, however much of others stands around it."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from roomkey.backends.memory import MemorySessionStorage
from roomkey.domain.session import SessionId
from roomkey.errors import InvalidInput, NotFound
from roomkey.ports import LoggedEvent, Page
from roomkey.sessions import history
from roomkey.sessions.history import SessionHistory
from roomkey.sessions.manager import SessionManager
from roomkey.testing.clock import ManualClock
from tests.support.sessions import NOON


class Counting(MemorySessionStorage):
    """Counts how often the log is read."""

    reads = 0

    async def events(self, partition: int, after: int = 0, limit: int = 1000) -> Sequence[LoggedEvent]:
        self.reads += 1
        return await super().events(partition, after, limit)


def a_manager() -> tuple[SessionManager, ManualClock, Counting]:
    clock, storage = ManualClock(NOON), Counting()
    return SessionManager(storage, clock=clock), clock, storage


def told(found: SessionHistory) -> list[tuple[str, str, str | None]]:
    return [(event.tag(), event.actor, event.reason) for event in found.events]


async def test_it_says_what_happened_by_whom_and_why_in_order() -> None:
    sessions, clock, _ = a_manager()
    issued = await sessions.create_session("alice", actor="key:backend")
    other = await sessions.create_session("alice", activate=True)
    await sessions.activate_session(issued.id, actor="user:alice")
    clock.advance(seconds=5)
    await sessions.suspend_session(issued.id, actor="key:support", reason="under review")
    await sessions.invalidate_session(other.id, reason="elsewhere")

    found = await sessions.session_history(issued.id)

    assert told(found) == [
        ("created", "key:backend", None),
        ("activated", "user:alice", None),
        ("suspended", "key:support", "under review"),
    ]
    assert [event.at for event in found.events] == [NOON, NOON, NOON + timedelta(seconds=5)]
    assert found.next_cursor is None


async def test_pages_have_every_event_once() -> None:
    sessions, _, _ = a_manager()
    issued = await sessions.create_session("alice", activate=True)
    for number in range(4):
        await sessions.suspend_session(issued.id, reason=f"r{number}")
        await sessions.resume_session(issued.id)

    versions, cursor = list[int](), None
    while True:
        page = await sessions.session_history(issued.id, Page(cursor=cursor, limit=3))
        versions += [event.version for event in page.events]
        cursor = page.next_cursor
        if cursor is None:
            break

    assert versions == list(range(1, 11))


async def test_a_deleted_session_has_its_history_and_one_that_never_was_has_none() -> None:
    sessions, _, _ = a_manager()
    issued = await sessions.create_session("alice")
    await sessions.delete_session(issued.id, actor="key:admin")

    found = await sessions.session_history(issued.id)

    assert [event.tag() for event in found.events] == ["created", "deleted"]
    for id in ("00" + "a" * 26, "zz", "../etc", ""):
        with pytest.raises(NotFound):
            await sessions.session_history(SessionId(id))


async def test_that_all_sessions_of_the_user_were_ended_is_in_the_history_of_each_that_was() -> None:
    sessions, _, _ = a_manager()
    ended = await sessions.create_session("alice", activate=True)
    kept = await sessions.create_session("alice", activate=True)
    await sessions.revoke_user("alice", except_session=kept.id, actor="user:alice", reason="lost phone")

    assert told(await sessions.session_history(ended.id))[-1] == ("invalidated", "user:alice", "lost phone")
    assert [event.tag() for event in (await sessions.session_history(kept.id)).events] == ["created", "activated"]


async def test_what_was_long_before_the_session_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "STEP", 10)
    monkeypatch.setattr(history, "CLOSE_ENOUGH", 10)
    sessions, clock, storage = a_manager()
    for _ in range(300):
        old = await sessions.create_session("alice")
        await sessions.invalidate_session(old.id)
        clock.advance(minutes=10)
    issued = await sessions.create_session("alice", activate=True)
    storage.reads = 0

    found = await sessions.session_history(issued.id)

    assert [event.tag() for event in found.events] == ["created", "activated"]
    assert storage.reads < 15


async def test_one_page_looks_at_a_bounded_part_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "STEP", 10)
    monkeypatch.setattr(history, "MAX_LOOKED_AT", 20)
    sessions, _, storage = a_manager()
    issued = await sessions.create_session("alice")
    for _ in range(50):
        other = await sessions.create_session("alice")
        await sessions.invalidate_session(other.id)
    await sessions.activate_session(issued.id)

    pages = [await sessions.session_history(issued.id)]
    while pages[-1].next_cursor is not None:
        storage.reads = 0
        pages.append(await sessions.session_history(issued.id, Page(cursor=pages[-1].next_cursor)))
        assert storage.reads <= 2

    assert [event.tag() for page in pages for event in page.events] == ["created", "activated"]
    assert len(pages) > 3


@pytest.mark.parametrize("page", [Page(limit=0), Page(limit=501), Page(cursor="x"), Page(cursor="9" * 40)])
async def test_pages_that_cannot_be_are_refused(page: Page) -> None:
    sessions, _, _ = a_manager()
    issued = await sessions.create_session("alice")

    with pytest.raises(InvalidInput):
        await sessions.session_history(issued.id, page)
