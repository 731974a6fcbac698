"""
Commands on documents: read, write, list, delete, versions, who wrote what.

A change is that of one more collaborator: every client in the document sees it at once, and concurrent typing is
kept. A command that changes something returns when that is durable.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from pycrdt import Doc, merge_updates

from roomkey.documents.content import roots
from roomkey.documents.content.rich.authors import placed
from roomkey.documents.content.rich.forms import read_tree
from roomkey.documents.crdt.authorship import Authorship, BlameRange, blame, blame_tree
from roomkey.documents.crdt.identity import Bindings, Source
from roomkey.documents.crdt.nesting import Nesting
from roomkey.documents.crdt.replica import Forgery, PoisonUpdate, Replica, ReplicaLost
from roomkey.documents.crdt.updates import MalformedUpdate, read_update, validate
from roomkey.documents.document import SHORT_WORK_BYTES, Document
from roomkey.documents.loading import SERVER
from roomkey.documents.maintenance import keep_version
from roomkey.documents.open_documents import OpenDocuments
from roomkey.documents.writer import Draft, Landing
from roomkey.errors import Conflict, DocumentNotFound, ForgedUpdate, InvalidInput, Serialization, Storage
from roomkey.ports import (
    Author,
    DocumentPage,
    DocumentRecord,
    DocumentVersion,
    NewVersion,
    Page,
    VersionPage,
)
from roomkey.ports.observing import Deed
from roomkey.wire import lib0
from roomkey.wire.lib0 import Malformed

BUNDLE_FORMAT: Final = 1

Condition = Callable[["DocumentRevision | None"], None]
"""Raises unless a change may be made to the document as it stands; ``None``: there is none."""


class DocumentRevision(Struct, frozen=True, kw_only=True):
    """Which document it is, and how far it has come: ``version`` counts the updates that it was ever given."""

    name: str
    lineage: str
    version: int


class Reading(Struct, frozen=True):
    """A document at one moment. ``update`` is the whole of it, or what was missing, as a Yjs update (V1)."""

    revision: DocumentRevision
    update: bytes


class Written(Struct, frozen=True):
    """What a change led to: how the document stands, whether it was made by this, and whether anything changed."""

    revision: DocumentRevision
    created: bool
    changed: bool


class Bundle(Struct, frozen=True, kw_only=True):
    """A document outside of any storage: what is in it, who wrote it, and its versions, the oldest first."""

    roomkey: int
    name: str
    lineage: str
    content: bytes
    authorship: bytes
    versions: list[NewVersion]


class DocumentService:
    """The commands on documents."""

    def __init__(self, open_documents: OpenDocuments) -> None:
        self._open_documents = open_documents
        self._store = open_documents.store

    # --- reading --------------------------------------------------------------------------------------

    async def list(self, prefix: str, page: Page) -> DocumentPage:
        """A page of the documents whose names begin with ``prefix``, in the order of their names."""
        return await self._store.list(prefix, page)

    async def find(self, name: str) -> DocumentRecord | None:
        """What storage knows of the document."""
        return await self._store.find(name)

    async def read(self, name: str, since: bytes = lib0.EMPTY_STATE) -> Reading:
        """
        The document as it is now, or what is missing in it where the state vector is ``since``.

        Raises:
            DocumentNotFound: If there is none.
            InvalidInput: If ``since`` is no state vector.
        """
        try:
            lib0.check_state(since)
        except Malformed as error:
            raise InvalidInput(f"the state vector cannot be read: {error}") from None
        async with self._open_documents.using(name, create=False) as document:
            return Reading(_revision(document), document.replica.since(since))

    # --- writing --------------------------------------------------------------------------------------

    async def edit(
        self,
        name: str,
        change: Callable[[Doc[Any]], None],
        author: Author,
        *,
        condition: Condition | None = None,
        work: int | None = None,
    ) -> Written:
        """
        Change a document, which is made if there is none. ``change`` raises, or not: if it does, nothing is changed.

        With ``work``, the number of bytes that the change is made of, it may be made in a thread.

        It may be called several times: where other processes write, too, a change that was computed from what is not
        the end of the log any more is given up, and computed anew.

        Raises:
            WritesRefused, DocumentTooLarge: As they say. And what ``condition`` and ``change`` raise.
        """
        return await self._write(
            name, _Change(lambda replica: _edited(replica, change), lambda: change(Doc()), work=work), author, condition
        )

    async def merge(self, name: str, update: bytes, author: Author, *, condition: Condition | None = None) -> Written:
        """
        Take a Yjs update (V1) into a document, which is made if there is none. Raises as ``edit``.

        Raises:
            InvalidInput: If it is no update.
            ForgedUpdate: If it speaks for a Yjs client of somebody else.
        """
        change = _Change(
            lambda replica: _merged(replica, update, Source(author.user)),
            lambda: Replica().apply(update),
            size=len(update),
        )
        try:
            return await self._write(name, change, author, condition)
        except Forgery as error:
            raise ForgedUpdate(f"the update cannot be taken: {error}") from None
        except PoisonUpdate as error:
            raise InvalidInput(f"the body is no Yjs update: {error}") from None

    async def _write(self, name: str, change: "_Change", author: Author, condition: Condition | None) -> Written:
        async with self._open_documents.using(name, create=False) as document:
            is_new = not document.lineage
            if condition is not None:
                condition(None if is_new else _revision(document))
            if is_new:
                await _rehearse(change)  # or a change that is refused would leave an empty document behind
            async with self._open_documents.using(name, create=True, author=author):
                created = False

                def check(version: int) -> None:
                    nonlocal created
                    # Another caller may have been faster while it was stored.
                    created = is_new and document.is_pristine_at(version)
                    if condition is not None:
                        condition(None if created else _revision(document, version))

                draft = Draft(
                    change.make,
                    author,
                    self._open_documents.clock.now(),
                    check=check,
                    size=change.size,
                    work=change.work,
                )
                document.submit(draft)
                landing = await self._landing(draft)
                return Written(_revision(document, landing.version), created, landing.changed)

    async def _landing(self, draft: Draft) -> Landing:
        try:
            async with asyncio.timeout(self._open_documents.settings.load_timeout.total_seconds()):
                return await draft.outcome
        except TimeoutError:
            raise Storage("storage does not answer; whether the change was made is not known") from None

    async def delete(self, name: str, author: Author = SERVER, *, condition: Condition | None = None) -> None:
        """
        Delete a document with its versions and authors for ``author``; its clients have to leave.

        Raises:
            DocumentNotFound: If there is none. And what ``condition`` raises.
        """
        async with self._open_documents.using(name, create=False) as document:
            revision = _revision(document)
            if condition is not None:
                condition(revision)
            await self._open_documents.delete(document, author)

    # --- versions -------------------------------------------------------------------------------------

    async def versions(self, name: str, page: Page) -> VersionPage:
        """
        A page of the versions of a document, the newest first.

        Raises:
            DocumentNotFound: If there is no such document.
        """
        if await self._store.find(name) is None:
            raise DocumentNotFound("there is no such document")
        return await self._store.versions(name, page)

    async def version(self, name: str, number: int) -> tuple[DocumentVersion, bytes]:
        """
        A version, and the Yjs update (V1) that is all of it.

        Raises:
            DocumentNotFound: If there is no such document or version.
        """
        found = await self._store.version(name, number)
        if found is None:
            raise DocumentNotFound("there is no such version")
        return found

    async def keep_version(self, name: str, label: str | None, author: Author) -> DocumentVersion:
        """
        Keep the document as it is now.

        Raises:
            DocumentNotFound: If there is no such document.
        """
        async with self._open_documents.using(name, create=False) as document:
            _revision(document)
            return await keep_version(self._open_documents, document, label, self._open_documents.clock.now(), author)

    async def restore(self, name: str, number: int, author: Author) -> Written:
        """
        Restore the content of a version, by ordinary changes.

        What it is now is kept as a version first. Raises as ``version`` and ``edit``.
        """
        _, old = await self.version(name, number)
        async with self._open_documents.using(name, create=False) as document:
            await self._keep_before_restoring(document, number, author)
            return await self.edit(name, lambda doc: roots.restore(doc, old), author)

    async def restoring(self, name: str, number: int, author: Author) -> Reading:
        """
        The changes that restore the content of a version, for an editor that makes them itself.

        In the editor they are a step of its user like any other, who can undo it. What the document is now is kept as a
        version. Raises as ``version`` and ``edit``.
        """
        _, old = await self.version(name, number)
        async with self._open_documents.using(name, create=False) as document:
            await self._keep_before_restoring(document, number, author)
            reading = Reading(_revision(document), document.replica.since())
        return Reading(reading.revision, await asyncio.to_thread(_restoring, reading.update, old))

    async def _keep_before_restoring(self, document: Document, number: int, author: Author) -> None:
        _revision(document)
        now = self._open_documents.clock.now()
        await keep_version(self._open_documents, document, None, now, author, restored=number)

    async def difference(self, name: str, number: int, against: int | None) -> dict[str, Any]:
        """What changed from a version to another one, or to now: ``roots.difference``. Raises as ``version``."""
        _, old = await self.version(name, number)
        new = (await self.read(name)).update if against is None else (await self.version(name, against))[1]
        return await asyncio.to_thread(roots.difference, old, new)

    # --- who wrote what -------------------------------------------------------------------------------

    async def blame(self, name: str, root: str | None) -> "list[BlameRange]":
        """
        Who wrote which part of a text or of rich text, and when; without ``root``, of the only one.

        Raises:
            DocumentNotFound: If there is no such document.
            InvalidInput: If ``root`` is no text of it, or it is not clear which text is meant.
        """
        async with self._open_documents.using(name, create=False) as document:
            _revision(document)
            authorship = await self._authorship(name)
            for update in document.unsaved_updates():
                authorship.record(update)
            return await asyncio.to_thread(_blame, document.replica.since(), root, authorship)

    async def _authorship(self, name: str) -> Authorship:
        stored = await self._store.load(name)
        if stored is None:
            raise DocumentNotFound("there is no such document")
        authorship = Authorship.unpack(stored.authorship)
        for update in stored.updates:
            authorship.record(update)
        return authorship

    # --- elsewhere and back ---------------------------------------------------------------------------

    async def export(self, name: str) -> bytes:
        """
        Everything about a document as one value (msgpack), which ``import_document`` understands.

        Raises:
            DocumentNotFound: If there is none.
        """
        reading = await self.read(name)
        versions: list[tuple[DocumentVersion, bytes]] = []
        page = Page(limit=100)
        while True:
            found = await self._store.versions(name, page)
            versions += [await self.version(name, version.number) for version in found.versions]
            if found.next_cursor is None:
                break
            page = Page(cursor=found.next_cursor, limit=100)
        bundle = Bundle(
            roomkey=BUNDLE_FORMAT,
            name=name,
            lineage=reading.revision.lineage,
            content=reading.update,
            authorship=(await self._authorship(name)).pack(),
            versions=_as_new(versions[::-1]),
        )
        return msgspec.msgpack.encode(bundle)

    async def import_document(self, name: str, exported: bytes, author: Author) -> Written:
        """
        Make a document of what ``export`` returned: with its history, its versions and its lineage.

        Raises:
            InvalidInput: If it is not that.
            Conflict: If there is a document of this name, or this very document was deleted here.
        """
        bundle = read_bundle(exported)
        authorship = _elsewhere(bundle.authorship)
        now = self._open_documents.clock.now()
        async with self._open_documents.using(name, create=False) as document:
            if document.lineage:
                raise Conflict("there is a document of this name")
            deed = Deed(kind="created", document=name, lineage=bundle.lineage, author=author, at=now)
            async with self._open_documents.observer.doing(deed):
                record = await self._store.create(name, bundle.lineage, now)
                deed.is_done = record.lineage == bundle.lineage
            # Whoever imports it wrote none of it, so that no Yjs client in it is bound to them.
            written = await self.merge(name, bundle.content, Author(author.actor))
        if written.revision.lineage != bundle.lineage:
            raise Conflict("there is a document of this name")
        await self._store.compact(
            name, bundle.lineage, snapshot=bundle.content, upto=written.revision.version, authorship=authorship
        )
        for version in bundle.versions:
            await self._store.keep_version(name, bundle.lineage, version)
        return replace(written, created=True)


def existing(condition: Condition | None) -> Condition:
    """``condition``, and that there is a document."""

    def check(revision: DocumentRevision | None) -> None:
        if revision is None:
            raise DocumentNotFound("there is no such document")
        if condition is not None:
            condition(revision)

    return check


def read_bundle(exported: bytes) -> Bundle:
    """
    What ``DocumentService.export`` returned; its content and its authors are not looked at yet.

    Raises:
        InvalidInput: If it is not that.
    """
    try:
        bundle = msgspec.msgpack.decode(exported, type=Bundle)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidInput("this is no exported document") from None
    if bundle.roomkey != BUNDLE_FORMAT:
        raise InvalidInput("the document was exported by another version of Roomkey")
    for version in bundle.versions:
        _check(version.content)
    return bundle


def _revision(document: Document, version: int | None = None) -> DocumentRevision:
    """
    How the document stands, or stood when it had this ``version``.

    Raises:
        DocumentNotFound: If it is not stored.
    """
    if not document.lineage or document.is_gone:
        raise DocumentNotFound("there is no such document")
    version = document.version if version is None else version
    return DocumentRevision(name=document.name, lineage=document.lineage, version=version)


def _blame(update: bytes, root: str | None, authorship: Authorship) -> list[BlameRange]:
    structs = read_update(update)
    kinds = roots.root_kinds(structs)
    name = roots.rich_root(kinds, root)
    if name is None:
        return blame(structs, roots.text_root(kinds, root), authorship)
    doc: Doc[Any] = Doc()
    doc.apply_update(update)
    return placed(read_tree(doc, name), blame_tree(structs, name, authorship))


def _check(update: bytes) -> None:
    """
    Accept an update from outside that is kept as it is.

    Raises:
        InvalidInput: If it is none, or would do harm.
    """
    try:
        Nesting().admit(update, lambda: lib0.EMPTY_UPDATE)
        validate(update)
    except MalformedUpdate as error:
        raise InvalidInput(f"there is something in it that is no Yjs update: {error}") from None


def _elsewhere(authorship: bytes) -> bytes:
    """
    The authorship of an exported document, without to whom its Yjs clients belong: users are others here.

    Raises:
        InvalidInput: If it is none.
    """
    try:
        found = Authorship.unpack(authorship)
    except Serialization as error:
        raise InvalidInput(f"the document cannot be imported: {error}") from None
    found.bindings = Bindings()
    return found.pack()


def _restoring(now: bytes, then: bytes) -> bytes:
    copy, made = Replica(), list[bytes]()
    copy.load(now, whole=False)
    try:
        copy.edit(lambda doc: roots.restore(doc, then), made.append)
    except ReplicaLost:
        raise InvalidInput("the change cannot be made") from None
    return merge_updates(*made) if made else lib0.EMPTY_UPDATE


def _as_new(versions: Sequence[tuple[DocumentVersion, bytes]]) -> list[NewVersion]:
    """All versions, the oldest first, as they can be kept somewhere else, where they are counted from 1."""
    numbers = {version.number: number for number, (version, _) in enumerate(versions, start=1)}
    return [
        NewVersion(
            at=version.at,
            author=version.author,
            label=version.label,
            sequence=version.sequence,
            content=content,
            restored=None if version.restored is None else numbers.get(version.restored),
        )
        for version, content in versions
    ]


class _Change(Struct, frozen=True):
    """A change of a document: ``make`` it in a copy and get the update; ``rehearse`` it without a document."""

    make: Callable[[Replica], bytes | None]
    rehearse: Callable[[], object]
    size: int = 0
    work: int | None = None


async def _rehearse(change: _Change) -> None:
    if change.work is not None and change.work > SHORT_WORK_BYTES:
        await asyncio.to_thread(change.rehearse)
    else:
        change.rehearse()


def _edited(replica: Replica, change: Callable[[Doc[Any]], None]) -> bytes | None:
    made: list[bytes] = []
    try:
        replica.edit(change, made.append)
    except ReplicaLost:
        raise InvalidInput("the change cannot be made") from None
    return merge_updates(*made) if len(made) > 1 else made[0] if made else None


def _merged(replica: Replica, update: bytes, source: Source) -> bytes | None:
    """Only what is new of it, unless it builds on what is not there; and nothing that only others may bring."""
    if replica.contains(update):
        return None
    try:
        taken, news = replica.apply_and_tell(update, source)
    except ReplicaLost:
        raise PoisonUpdate("the update breaks the replica") from None
    if news is not None and taken not in replica.waiting:
        return news
    return taken if taken is update or taken in replica.waiting else None
