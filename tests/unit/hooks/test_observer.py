"""Changes are told when nobody has changed the document for a while, and noted before they are stored."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkey.errors import Storage
from roomkey.hooks.events import AnyHookEvent, DocumentChanged, EventType
from roomkey.hooks.observer import Note, Observer
from roomkey.hooks.settings import HookSettings
from roomkey.ports import Append, Author, DocumentUpdate
from roomkey.ports.observing import Deed
from roomkey.testing.clock import ManualClock

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
ALICE = Author("user:alice", None, "alice")
SETTINGS = HookSettings(debounce=timedelta(seconds=2), max_wait=timedelta(seconds=10))


class Notebook:
    """Notes, which may fail."""

    def __init__(self, *, fails: bool = False) -> None:
        self.notes: list[Note] = []
        self.fails = fails

    def needs(self, type: EventType, document: str) -> bool:
        return not document.startswith("unwatched") and type != "document.saved"

    async def note(self, notes: Sequence[Note]) -> Sequence[str]:
        if self.fails:
            raise Storage("away")
        self.notes += notes
        return [f"note {len(self.notes) - len(notes) + place}" for place in range(len(notes))]


class Desk:
    """An observer and what it tells."""

    def __init__(self, notes: Notebook | None = None) -> None:
        self.told: list[tuple[AnyHookEvent | None, Sequence[str]]] = []
        self.observer = Observer(
            SETTINGS,
            ManualClock(NOON),
            lambda event, names: self.told.append((event, list(names))),
            wants=lambda kind: kind != "document.saved",
            notes=notes,
            head=lambda _: None,
        )

    def save(self, name: str, head: int) -> None:
        self.observer.saved(Append(name, "one", [DocumentUpdate(b"", ALICE, NOON)]), head)

    @property
    def changes(self) -> list[tuple[str, int | None]]:
        return [(event.document, event.version) for event, _ in self.told if isinstance(event, DocumentChanged)]


async def test_a_document_is_told_of_once_when_nobody_has_changed_it_for_a_while() -> None:
    desk = Desk()
    start = asyncio.get_running_loop().time()
    for head in range(1, 50):
        desk.save("plan", head)
    desk.observer.tick(start + 1.9)
    too_early = desk.changes

    desk.observer.tick(start + 2.5)
    desk.observer.tick(start + 20)

    assert too_early == []
    assert desk.changes == [("plan", 49)]
    assert desk.told[0][0] is not None
    assert desk.told[0][0].actor == "user:alice"


async def test_one_that_goes_on_changing_is_told_of_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    desk, loop = Desk(), asyncio.get_running_loop()
    start = now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)
    for second in range(12):
        now = start + second
        desk.save("plan", second)
        desk.observer.tick(now)

    assert desk.changes == [("plan", 10)]


@given(saves=st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 5)), max_size=40))
def test_the_newest_version_is_always_told_and_no_document_waits_for_longer_than_it_may(
    saves: list[tuple[str, float]],
) -> None:
    asyncio.run(check_that_the_newest_is_told_in_time(saves))


async def check_that_the_newest_is_told_in_time(saves: list[tuple[str, float]]) -> None:
    desk, heads, first = Desk(), dict[str, int](), dict[str, float]()
    loop, now = asyncio.get_running_loop(), 1_000.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "time", lambda: now)
        for number, (name, pause) in enumerate(saves, 1):
            now += pause
            told = len(desk.changes)
            desk.observer.tick(now)
            for document, _ in desk.changes[told:]:
                first.pop(document)
            assert all(now - since < 10 for since in first.values())
            desk.save(name, number)
            heads[name] = number
            first.setdefault(name, now)
        desk.observer.flush()

    assert {name: version for name, version in desk.changes} == heads  # noqa: C416  # the last one counts


async def test_a_change_is_noted_before_it_is_stored_and_the_note_goes_when_it_is_told() -> None:
    notes = Notebook()
    desk = Desk(notes)
    async with desk.observer.saving(["plan", "unwatched"]):
        noted_before = [note.document for note in notes.notes]
        desk.save("plan", 1)
    async with desk.observer.saving(["plan"]):
        desk.save("plan", 2)
    desk.observer.tick(asyncio.get_running_loop().time() + 5)

    assert noted_before == ["plan"]
    assert len(notes.notes) == 1
    assert [(names, event and event.type) for event, names in desk.told] == [(["note 0"], "document.changed")]


async def test_a_note_stays_while_something_that_relies_on_it_is_being_stored() -> None:
    notes = Notebook()
    desk, later = Desk(notes), asyncio.get_running_loop().time() + 5
    async with desk.observer.saving(["plan"]):
        desk.save("plan", 1)
    async with desk.observer.saving(["plan"]):
        desk.observer.tick(later)
        meanwhile = list(desk.told)
        desk.save("plan", 2)
    desk.observer.tick(later + 5)
    async with desk.observer.saving(["plan"]):
        desk.save("plan", 3)

    assert meanwhile == []
    assert desk.changes == [("plan", 2)]
    assert len(notes.notes) == 2  # the third change has a note of its own


async def test_documents_are_saved_although_nothing_can_be_noted() -> None:
    desk = Desk(Notebook(fails=True))
    async with desk.observer.saving(["plan"]):
        desk.save("plan", 1)
    desk.observer.flush()

    assert desk.changes == [("plan", 1)]
    assert desk.observer.unprotected == 1


async def test_of_a_deed_is_told_if_it_was_done_and_the_note_stays_if_that_is_not_known() -> None:
    notes = Notebook()
    desk = Desk(notes)

    def deed(name: str) -> Deed:
        return Deed(kind="created", document=name, lineage="one", author=ALICE, at=NOON)

    done, undone, failed = deed("done"), deed("undone"), deed("failed")
    async with desk.observer.doing(done):
        done.is_done = True
    async with desk.observer.doing(undone):
        pass
    with pytest.raises(Storage):
        async with desk.observer.doing(failed):
            raise Storage("no answer came")

    assert [(event and event.type, names) for event, names in desk.told] == [
        ("document.created", ["note 0"]),
        (None, ["note 1"]),
    ]
    assert [note.document for note in notes.notes] == ["done", "undone", "failed"]
