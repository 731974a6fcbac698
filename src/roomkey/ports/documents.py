"""The port of documents: a snapshot and a log of updates for each, its versions, and its lineage."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from msgspec import Struct

from roomkey.domain.session import SessionId
from roomkey.errors import Conflict, NotFound, Serialization
from roomkey.ports.stores import Page


class Author(Struct, frozen=True, gc=False):
    """
    Who brought something into a document. ``actor`` is how events name it: ``user:alice``, ``key:backend``.

    ``session`` is ``None`` for API keys and for the server itself.
    """

    actor: str
    session: SessionId | None = None
    user: str | None = None


class DocumentUpdate(Struct, frozen=True, gc=False):
    """
    One Yjs update (V1 encoding) as somebody brought it: who, and when it was applied here.

    ``own`` is the Yjs client in it that the author's user is known to be, if that was not said of the client before.
    """

    data: bytes
    author: Author
    at: datetime
    own: int | None = None


class DocumentRecord(Struct, frozen=True, kw_only=True):
    """
    What is known of a stored document without reading it.

    ``lineage`` is the id of its history: a document that was deleted and made anew has another one.
    ``sequence`` counts the updates that it was ever given; the first one has number 1. ``log_updates`` and
    ``log_bytes`` are those that lie behind the snapshot, ``snapshot_bytes`` is the snapshot.
    ``updated_at`` never goes back.
    """

    name: str
    lineage: str
    sequence: int
    created_at: datetime
    updated_at: datetime
    log_updates: int
    log_bytes: int
    snapshot_bytes: int


class StoredDocument(Struct, frozen=True, kw_only=True):
    """
    A whole document: everything up to number ``upto`` is in ``snapshot``, the rest in ``updates``, in order.

    ``snapshot`` is a Yjs update of the whole state (V1), or ``None`` with ``upto`` 0. ``authorship`` says who
    wrote what of the snapshot, in a form that only those know who compact: bytes, opaque here. ``lost`` is how many
    of the updates cannot be read any more: each has an update that changes nothing in its place, so that numbers stay.
    """

    record: DocumentRecord
    snapshot: bytes | None
    upto: int
    authorship: bytes | None
    updates: Sequence[DocumentUpdate]
    lost: int = 0


class DocumentTail(Struct, frozen=True):
    """
    What was appended to a document behind a number. ``head`` is the number of its last update.

    ``updates`` are in order and without a gap. They are empty if nothing is new, and ``None`` if some of them were
    compacted: these are only in the snapshot, so the document has to be loaded anew.
    """

    head: int
    updates: Sequence[DocumentUpdate] | None


class DocumentHead(NamedTuple):
    """How far a document has come: its lineage, and the number of its last update."""

    lineage: str
    sequence: int


class NewVersion(Struct, frozen=True, kw_only=True):
    """
    A state of a document that is to be kept. ``content`` is a Yjs update of the whole state (V1).

    ``restored`` is the number of the version that ``author`` restored at this moment, if it is kept because of that.
    """

    at: datetime
    author: Author
    label: str | None
    sequence: int
    content: bytes
    restored: int | None = None


class DocumentVersion(Struct, frozen=True, kw_only=True):
    """
    A kept state of a document; ``number`` counts from 1 within the lineage and is never given twice.

    ``label`` is ``None`` for one that was kept automatically. ``sequence`` is how many updates it contains.
    ``restored`` is that of the ``NewVersion``.
    """

    number: int
    at: datetime
    author: Author
    label: str | None
    sequence: int
    size: int
    restored: int | None = None


class DocumentPage(Struct, frozen=True):
    """One part of a list of documents, in the order of the UTF-8 bytes of their names."""

    documents: list[DocumentRecord]
    next_cursor: str | None = None


class VersionPage(Struct, frozen=True):
    """One part of a list of versions, the newest first."""

    versions: list[DocumentVersion]
    next_cursor: str | None = None


class Append(Struct, frozen=True, gc=False):
    """Updates for the end of a document's log, in order."""

    name: str
    lineage: str
    updates: Sequence[DocumentUpdate]


AppendOutcome = int | NotFound | Conflict | Serialization
"""The number of the last update of a document now, or why nothing was appended to it."""


class DocumentStore(Protocol):
    """
    Where documents live: a snapshot and a log of updates for each, its versions, and its lineage.

    Every write is one atomic step, and a write that was awaited is durable on a durable backend. A write never
    recreates what is gone: it names the lineage of the document that it is meant for. Names are any text of 1 to
    1024 bytes in UTF-8, compared byte by byte.

    What is damaged fails alone: a document whose record or snapshot cannot be read, or nothing of whose content can,
    is ``Serialization`` for whoever asks for it by name, and lists go on around it. Of a log only the updates are lost
    that cannot be read, see ``StoredDocument``; a compaction keeps their bytes aside.

    A store is used as an async context manager: it is usable after entering and closed on leaving. All methods
    raise ``Storage`` when the backend is away or full. A document that cannot be read is never taken for an empty one.
    """

    shared: bool
    """Whether other processes may write to it."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def create(self, name: str, lineage: str, now: datetime) -> DocumentRecord:
        """
        Make an empty document, or return the one of this name that exists, whatever its lineage.

        Calls for one name at the same time return the same record.

        Raises:
            Conflict: If ``lineage`` is that of a document of this name that was deleted, even if there is one now.
            InvalidInput: If there can be no document of this name.
        """
        ...

    async def find(self, name: str) -> DocumentRecord | None:
        """What is known of the document. Cheap: nothing of its content is read."""
        ...

    async def load(self, name: str) -> StoredDocument | None:
        """The whole document from one moment, or ``None`` if there is none."""
        ...

    async def append(
        self, name: str, lineage: str, updates: Sequence[DocumentUpdate], *, after: int | None = None
    ) -> int:
        """
        Add updates at the end of the log, in order, all or none; returns the number of the last one.

        With ``after`` only if that is the number of the last update until then: for what was computed from the
        document up to there.

        Raises:
            NotFound: If there is no such document.
            Overtaken: If there are further updates behind ``after``, or not as many.
            Conflict: If it is of another lineage.
        """
        ...

    async def append_each(self, appends: Sequence[Append]) -> Sequence[AppendOutcome]:
        """
        ``append`` for several documents, in one commit where the backend has such: what each would return or raise.

        No document is named twice. What becomes of one, a damaged one too, says nothing of the others; if this
        raises, some may have been stored.
        """
        ...

    async def heads(self, names: Sequence[str]) -> Sequence[DocumentHead | None]:
        """
        How far each of these documents has come; ``None`` for one that does not exist.

        The cheapest look there is, because every read of an open document begins with one: a microsecond or so
        for each, or one round trip for all.
        """
        ...

    async def changes(self) -> int:
        """
        A number that is another one after another process has written something, so that many documents need not be
        looked at one by one while nobody writes. Cheaper than ``heads``; writes of this store may count, too.
        """
        ...

    async def updates(self, name: str, lineage: str, after: int, limit: int = 1000) -> DocumentTail:
        """
        The updates behind number ``after``. Cheap: neither the snapshot nor the log up to there is read.

        An answer has at most ``limit`` updates. It may have fewer if they are large, but has at least one if there
        is one. Asking again behind the last one until ``head`` is reached returns every update exactly once. If
        ``head`` is less than ``after``, the store has lost updates that it once acknowledged.

        Raises:
            NotFound, Conflict: As ``append``.
        """
        ...

    async def compact(
        self, name: str, lineage: str, *, snapshot: bytes, upto: int, authorship: bytes, fence: int | None = None
    ) -> bool:
        """
        Replace the snapshot, and drop the updates up to number ``upto``, which it contains, from the log.

        Updates behind ``upto`` stay as they are. Returns ``False`` and changes nothing if the document is gone or
        of another lineage, if it was compacted up to ``upto`` or further, or if it has no update of that number.

        ``fence`` is the token of the lease under which this is done, see ``Leases``: the document remembers the
        highest one.

        Raises:
            LeaseLost: If something was done to the document under a higher one.
        """
        ...

    async def delete(self, name: str, lineage: str, now: datetime) -> bool:
        """
        Remove the document with its log and versions, but remember its lineage. ``False`` if there is none.

        Raises:
            Conflict: If it is of another lineage.
        """
        ...

    async def was_deleted(self, name: str, lineage: str) -> bool:
        """
        Whether the document of this name and lineage was deleted here.

        If it is neither that nor there, although it was once, the store has lost it, or is another one.
        """
        ...

    async def list(self, prefix: str, page: Page) -> DocumentPage:
        """
        A page of the documents whose names begin with ``prefix``. Following the cursors returns every document
        that existed throughout exactly once.

        Raises:
            InvalidInput: If the cursor is not one of ours.
        """
        ...

    async def compactable(self, *, updates: int, size: int, limit: int) -> Sequence[DocumentRecord]:
        """Up to ``limit`` documents with more than ``updates`` updates or ``size`` bytes in the log, open or not."""
        ...

    async def keep_version(
        self, name: str, lineage: str, version: NewVersion, *, fence: int | None = None
    ) -> DocumentVersion:
        """
        Keep a state.

        Raises:
            NotFound, Conflict: As ``append``.
            LeaseLost: As ``compact``.
        """
        ...

    async def versions(self, name: str, page: Page) -> VersionPage:
        """
        A page of the versions of the document; an empty one if there is no such document.

        Raises:
            InvalidInput: If the cursor is not one of ours.
        """
        ...

    async def version(self, name: str, number: int) -> tuple[DocumentVersion, bytes] | None:
        """A version with its content, or ``None``."""
        ...

    async def forget_versions(
        self, name: str, lineage: str, numbers: Sequence[int], *, fence: int | None = None
    ) -> int:
        """
        Drop versions; returns how many there were, none if the document is of another lineage.

        Raises:
            LeaseLost: As ``compact``.
        """
        ...

    async def ping(self) -> None:
        """
        Return when the backend answers and accepts writes.

        Raises:
            Storage: If it does not; the message says why.
        """
        ...

    def degradations(self) -> Mapping[str, str]:
        """What is wrong with what it stands on, by name, and why; empty if nothing. Asks nobody."""
        ...
