"""
What processes that died have left: their notes of what they were about to do.

What came of it is looked for in the store of documents, and told. So an event may be told twice, if the process died
after it was put in and before the note was gone; never not at all.
"""

import asyncio
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any, Final

import msgspec
import structlog

from roomkey.errors import RoomkeyError, Serialization
from roomkey.hooks.events import (
    AnyHookEvent,
    DocumentChanged,
    DocumentCreated,
    DocumentDeleted,
    DocumentSaved,
    VersionKept,
)
from roomkey.hooks.observer import Note
from roomkey.hooks.outbox import SPACE, Outbox, decode_note
from roomkey.leasing import Chore
from roomkey.ports import Author, Clock, DocumentStore, NamedObject, ObjectStore, Page

ROUND_SECONDS: Final = 2.0

LEFT_ALONE_FOR: Final = timedelta(seconds=6)
"""Age of a note before which nobody looks after it: who lives is known by all nodes a few seconds later."""

NOTES_AT_ONCE: Final = 200

VERSIONS_LOOKED_AT: Final = 20

_PREFIX: Final = "notes/"
_UNKNOWN: Final = Author("system")

_log = structlog.get_logger("roomkey.hooks")


class Recovery:
    """Looks after what dead nodes have left, on one node at a time. ``run`` works until it is cancelled."""

    def __init__(
        self,
        objects: ObjectStore,
        documents: Callable[[], DocumentStore],
        outbox: Outbox,
        clock: Clock,
        *,
        living: Callable[[], Collection[str]],
        chore: Chore,
    ) -> None:
        """``living`` are the nodes that live, this one among them."""
        self._objects = objects
        self._documents = documents
        self._outbox = outbox
        self._now = clock.now
        self._living = living
        self._chore = chore

    async def run(self) -> None:
        """Look after them, whenever no other node does."""
        while True:
            try:
                await self._chore.attempt(self.look)
            except RoomkeyError as error:
                _log.warning("hooks_not_recovered", code=error.code, reason=str(error))
            await asyncio.sleep(ROUND_SECONDS)

    async def look(self, _token: int = 0) -> None:
        """Look after all of them once. Raises ``Storage``."""
        after, living = _PREFIX, frozenset(self._living())
        while found := await self._objects.list(SPACE, prefix=_PREFIX, after=after, limit=NOTES_AT_ONCE):
            for each in found:
                if each.name.split("/")[1] not in living:
                    await self._look_after(each)
            await self._outbox.flush()
            after = found[-1].name

    async def _look_after(self, stored: NamedObject) -> None:
        try:
            note = decode_note(stored.value)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            _log.error("hook_note_unreadable", name=stored.name)
            self._outbox.tell(None, [stored.name])
            return
        if self._now() - note.at < LEFT_ALONE_FOR:
            return
        try:
            events = await self._came_of(note)
        except Serialization:
            events = []  # a document that cannot be read is nothing that could be told
        for event in events:
            self._outbox.tell(event)
        self._outbox.tell(None, [stored.name])

    async def _came_of(self, note: Note) -> list[AnyHookEvent]:
        """The events of what was done."""
        match note.kind:
            case "changed":
                return await self._changes(note)
            case "created":
                record = await self._documents().find(note.document)
                is_done = record is not None and record.lineage == note.lineage
                return [DocumentCreated(version=0, **_what(note))] if is_done else []
            case "deleted":
                is_done = await self._documents().was_deleted(note.document, note.lineage)
                return [DocumentDeleted(**_what(note))] if is_done else []
            case _:
                return await self._versions(note)

    async def _changes(self, note: Note) -> list[AnyHookEvent]:
        store = self._documents()
        (head,) = await store.heads([note.document])
        if head is None:
            return []
        author, at = _UNKNOWN, note.at
        tail = await store.updates(note.document, head.lineage, max(0, head.sequence - 1))
        if tail.updates:
            author, at = tail.updates[-1].author, tail.updates[-1].at
        what: dict[str, Any] = {
            "document": note.document,
            "lineage": head.lineage,
            "version": head.sequence,
            "at": at,
            "actor": author.actor,
            "session_id": author.session,
            "user_id": author.user,
        }
        return [DocumentSaved(**what), DocumentChanged(**what)]

    async def _versions(self, note: Note) -> list[AnyHookEvent]:
        record = await self._documents().find(note.document)
        if record is None or record.lineage != note.lineage:
            return []
        page = await self._documents().versions(note.document, Page(limit=VERSIONS_LOOKED_AT))
        return [
            VersionKept(version=version.sequence, number=version.number, label=version.label, **_what(note))
            for version in page.versions
            if abs(version.at - note.at) < timedelta(milliseconds=1)
        ]


def _what(note: Note) -> dict[str, Any]:
    return {
        "document": note.document,
        "lineage": note.lineage,
        "at": note.at,
        "actor": note.actor,
        "session_id": note.session,
        "user_id": note.user,
    }
