"""
What happens to documents becomes events: at once, or, for changes, when nobody has changed the document for a while.

The path of a change is not touched: it is seen when it is stored, together with all others of that commit. What must
not be lost is noted before it is done (``Notes``), and the note goes when the event is handed on: whoever finds a note
of a process that died tells what came of it.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final, Protocol, TypedDict, cast

import structlog
from msgspec import Struct

from roomkey.domain.session import Session, SessionId
from roomkey.errors import RoomkeyError
from roomkey.hooks.events import (
    LATEST_ONLY,
    AnyHookEvent,
    DocumentChanged,
    DocumentCreated,
    DocumentDeleted,
    DocumentEntered,
    DocumentLeft,
    DocumentSaved,
    EventType,
    VersionKept,
)
from roomkey.hooks.settings import HookSettings
from roomkey.ports import Append, Author, Clock
from roomkey.ports.documents import DocumentHead
from roomkey.ports.observing import Deed

TICK_SECONDS: Final = 0.1

NOTE_SECONDS: Final = 2.0
"""Maximum time that a change waits for its note: storage that is away must not keep documents from being saved."""

_log = structlog.get_logger("roomkey.hooks")


class Note(Struct, frozen=True, kw_only=True):
    """That something is about to be done to a document. ``kind`` is ``changed``, or that of a ``Deed``."""

    kind: str
    document: str
    at: datetime
    lineage: str = ""
    actor: str = "system"
    session: SessionId | None = None
    user: str | None = None


class Notes(Protocol):
    """Where notes are kept."""

    def needs(self, type: EventType, document: str) -> bool:
        """Whether events of this type must not be lost."""
        ...

    async def note(self, notes: Sequence[Note]) -> Sequence[str]:
        """Keep these; when it returns they are durable. Returns what each is called. Raises ``Storage``."""
        ...


Tell = Callable[[AnyHookEvent | None, Sequence[str]], None]
"""Hands an event on, if there is one, and has the notes of these names forgotten together with that."""


class _Change(Struct):
    """A document that has changed lately."""

    lineage: str
    version: int
    author: Author
    at: datetime
    first: float
    last: float


class _Noted(Struct):
    """The notes of a document whose changes are not told yet, and since when there is the newest."""

    names: list[str]
    at: float


class Observer:
    """
    The ``DocumentObserver`` and ``PresenceObserver`` of a node. ``run`` must run; all on one event loop.

    ``head`` says how an open document stands, ``wants`` whether anybody is told of a type of events.
    """

    def __init__(
        self,
        settings: HookSettings,
        clock: Clock,
        tell: Tell,
        *,
        wants: Callable[[EventType], bool],
        notes: Notes | None = None,
        head: Callable[[str], DocumentHead | None],
    ) -> None:
        self._debounce = settings.debounce.total_seconds()
        self._max_wait = settings.max_wait.total_seconds()
        self._now = clock.now
        self._tell = tell
        self._wants = wants
        self._notes = notes
        self._head = head
        self._changes: OrderedDict[str, _Change] = OrderedDict()
        """By document, in the order of the last change."""
        self._since: dict[str, float] = {}
        """When the first of these changes was stored, in that order."""
        self._noted: dict[str, _Noted] = {}
        self._saving: Counter[str] = Counter()
        """Documents of which something noted is being stored just now: their notes must stay."""
        self._wake = asyncio.Event()
        self.unprotected = 0
        """How often something was done without a note, because it could not be written."""

    # --- changes --------------------------------------------------------------------------------------

    @asynccontextmanager
    async def saving(self, names: Sequence[str]) -> AsyncGenerator[None]:
        """See ``DocumentObserver``."""
        noted = self._to_note(names)
        if not noted:
            yield
            return
        self._saving.update(noted)
        try:
            await self._note_changes(noted)
            yield
        finally:
            for name in noted:
                self._saving[name] -= 1
                if not self._saving[name]:
                    del self._saving[name]

    def _to_note(self, names: Sequence[str]) -> Sequence[str]:
        """The documents of which a change must not be lost."""
        notes = self._notes
        if notes is None:
            return ()
        return [name for name in names if any(notes.needs(type, name) for type in LATEST_ONLY)]

    async def _note_changes(self, names: Sequence[str]) -> None:
        time, at = asyncio.get_running_loop().time(), self._now()
        missing = [
            name for name in names if (noted := self._noted.get(name)) is None or time - noted.at > self._max_wait
        ]
        if not missing:
            return
        written = await self._write([Note(kind="changed", document=name, at=at) for name in missing])
        for name, note in zip(missing, written, strict=False):
            noted = self._noted.setdefault(name, _Noted([], time))
            noted.names.append(note)
            noted.at = time

    async def _write(self, notes: Sequence[Note]) -> Sequence[str]:
        """What the notes are called; nothing if they could not be written in time."""
        assert self._notes is not None  # noqa: S101  # it was asked what it needs
        try:
            async with asyncio.timeout(NOTE_SECONDS):
                return await self._notes.note(notes)
        except (RoomkeyError, TimeoutError) as error:
            if not self.unprotected:
                _log.warning("hooks_not_noted", reason=str(error) or "storage did not answer in time")
            self.unprotected += len(notes)
            return ()

    def saved(self, append: Append, head: int) -> None:
        """See ``DocumentObserver``."""
        if not append.updates:
            return
        name, newest = append.name, append.updates[-1]
        if self._wants("document.saved"):
            saved = DocumentSaved(
                document=name, lineage=append.lineage, version=head, at=newest.at, **_who(newest.author)
            )
            self._tell(saved, ())
        if not self._wants("document.changed") and name not in self._noted:
            return
        time = asyncio.get_running_loop().time()
        change = self._changes.get(name)
        if change is None:
            self._changes[name] = _Change(append.lineage, head, newest.author, newest.at, time, time)
            self._since[name] = time
            self._wake.set()
            return
        change.lineage, change.version, change.author, change.at = append.lineage, head, newest.author, newest.at
        change.last = time
        self._changes.move_to_end(name)

    async def run(self) -> None:
        """Tell of changes when it is time, until cancelled."""
        self._wake = asyncio.Event()  # anew: that of an earlier run belongs to its event loop
        while True:
            if not self._changes:
                self._wake.clear()
                await self._wake.wait()
            await asyncio.sleep(min(TICK_SECONDS, self._debounce))
            self.tick(asyncio.get_running_loop().time())

    def tick(self, time: float) -> None:
        """Tell of documents that nobody has changed for a while, and of those that have been changing for long."""
        due = list[str]()
        for name, change in self._changes.items():
            if time - change.last < self._debounce:
                break
            due.append(name)
        for name, since in self._since.items():
            if time - since < self._max_wait:
                break
            due.append(name)
        for name in dict.fromkeys(due):
            if name not in self._saving:  # what is being stored relies on the note that would go with this
                self._tell_change(name)

    def _tell_change(self, name: str) -> None:
        change, noted = self._changes.pop(name), self._noted.pop(name, None)
        del self._since[name]
        told = DocumentChanged(
            document=name, lineage=change.lineage, version=change.version, at=change.at, **_who(change.author)
        )
        self._tell(told, () if noted is None else noted.names)

    def flush(self) -> None:
        """Tell of every change now: the node stops."""
        for name in tuple(self._changes):
            self._tell_change(name)

    # --- deeds ----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def doing(self, deed: Deed) -> AsyncGenerator[None]:
        """See ``DocumentObserver``."""
        type = _TYPES[deed.kind]
        names: Sequence[str] = ()
        if self._notes is not None and self._notes.needs(type, deed.document):
            names = await self._write([_note_of(deed)])
        yield
        # Whoever raises leaves the note: whether the deed was done is found out by whoever comes across it.
        if deed.is_done and self._wants(type):
            self._tell(event_of(deed), names)
        elif names:
            self._tell(None, names)

    # --- presence -------------------------------------------------------------------------------------

    def entered(self, document: str, session: Session, at: datetime) -> None:
        """See ``PresenceObserver``."""
        self._tell_presence(DocumentEntered, document, session.id, session.user_id, at)

    def left(self, document: str, session: SessionId, user: str, at: datetime) -> None:
        """See ``PresenceObserver``."""
        self._tell_presence(DocumentLeft, document, session, user, at)

    def _tell_presence(
        self, kind: type[DocumentEntered | DocumentLeft], document: str, session: SessionId, user: str, at: datetime
    ) -> None:
        if not self._wants(cast("EventType", kind.__struct_config__.tag)):
            return
        head = self._head(document)
        self._tell(
            kind(
                document=document,
                lineage=None if head is None else head.lineage,
                version=None if head is None else head.sequence,
                at=at,
                actor=f"user:{user}",
                session_id=session,
                user_id=user,
            ),
            (),
        )


_TYPES: Final[dict[str, EventType]] = {
    "created": "document.created",
    "deleted": "document.deleted",
    "kept": "document.version_kept",
}


def event_of(deed: Deed) -> AnyHookEvent:
    """The event of a deed that was done."""
    if deed.kind == "kept":
        return VersionKept(
            document=deed.document,
            lineage=deed.lineage,
            version=deed.version,
            at=deed.at,
            number=deed.number,
            label=deed.label,
            **_who(deed.author),
        )
    kind = DocumentCreated if deed.kind == "created" else DocumentDeleted
    return kind(document=deed.document, lineage=deed.lineage, version=deed.version, at=deed.at, **_who(deed.author))


def _note_of(deed: Deed) -> Note:
    author = deed.author
    return Note(
        kind=deed.kind,
        document=deed.document,
        at=deed.at,
        lineage=deed.lineage,
        actor=author.actor,
        session=author.session,
        user=author.user,
    )


class _Who(TypedDict):
    actor: str
    session_id: SessionId | None
    user_id: str | None


def _who(author: Author) -> _Who:
    return {"actor": author.actor, "session_id": author.session, "user_id": author.user}
