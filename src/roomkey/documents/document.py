"""
One document that is open on this node: its replica, and the way of every change through it.

A change is applied, given to the audience, and handed to the writer, in one turn of the loop; its sender
is told when it is durable. Nothing here waits, so there is nothing to lock: a joiner is registered for everything
to come and given what is there, with no change in between.
"""

import asyncio
from collections.abc import Callable, Hashable, Iterable, Sequence
from datetime import datetime
from typing import Final

import structlog

from roomkey.documents.audience import Audience, Elsewhere, Pin
from roomkey.documents.crdt.awareness import Awareness, AwarenessOutcome, Identity, Owner
from roomkey.documents.crdt.identity import Source
from roomkey.documents.crdt.replica import PoisonUpdate, Replica, ReplicaLost
from roomkey.documents.settings import DocumentSettings
from roomkey.documents.workbench import Workbench
from roomkey.documents.writer import Computed, DocumentWriter, Draft, Settled
from roomkey.errors import DocumentTooLarge, WritesRefused
from roomkey.ports import Author, DocumentRecord, DocumentUpdate
from roomkey.wire.lib0 import EMPTY_UPDATE, AwarenessEntry

_log = structlog.get_logger("roomkey.documents")

SHORT_WORK_BYTES: Final = 32 * 1024
"""A change of a document of this size, made of no more, takes a few milliseconds at most: it is made on the loop."""


class Document:
    """
    An open document: what is in it, who listens to it, and whether it is stored.

    It is open as long as it has an audience, is pinned, or has something to store. One that ``is_gone`` was deleted,
    lost or evicted, and takes nothing any more. ``lineage`` is empty until the document is stored, which
    the first client with write access causes.
    """

    def __init__(
        self,
        name: str,
        settings: DocumentSettings,
        *,
        now: datetime,
        creator: Callable[[Author | None], None],
        tombstones: frozenset[int] = frozenset(),
        elsewhere: Elsewhere | None = None,
    ) -> None:
        """
        Args:
            creator: Called when a client wants to write, with whom it belongs to; has the document stored, later.
            tombstones: Yjs client ids of deleted documents of this name.
            elsewhere: The other nodes, if there can be any.
        """
        self.name = name
        self.awareness = Awareness(
            max_state=settings.max_awareness_bytes,
            max_size=settings.max_document_awareness_bytes,
            max_clients=settings.max_clients_per_socket,
        )
        self._settings = settings
        self._creator = creator
        self._tombstones = tombstones
        self._elsewhere = elsewhere
        self._replica = Replica()
        self._workbench = Workbench()
        self._lineage = ""
        self._writer: DocumentWriter | None = None
        self._audience: Audience | None = None
        self._pins = 0
        self._used_at = now
        self._size = 0
        self._pristine_version = -1
        self._version_sequence = 0
        self._version_at = now
        self._is_gone = False
        self._is_deleted = False
        self._is_withheld = False
        self._is_wanted = False
        self._is_full = False

    # --- how it stands --------------------------------------------------------------------------------

    @property
    def lineage(self) -> str:
        """The id of its history."""
        return self._lineage

    @property
    def replica(self) -> Replica:
        """What is in it, for reading."""
        return self._replica

    @property
    def size(self) -> int:
        """Bytes of the updates that came in, as far as they are not known to be fewer."""
        return self._size

    @property
    def used_at(self) -> datetime:
        """When it was last used."""
        return self._used_at

    @property
    def has_audience(self) -> bool:
        """Whether clients are in it."""
        return self._audience is not None

    @property
    def is_gone(self) -> bool:
        """Whether it is closed for good and accepts nothing."""
        return self._is_gone

    @property
    def is_deleted(self) -> bool:
        """Whether it is gone because it was deleted."""
        return self._is_deleted

    @property
    def is_withheld(self) -> bool:
        """Whether storage has lost it: it is kept as it is, and nobody gets into it."""
        return self._is_withheld

    @property
    def is_idle(self) -> bool:
        """Whether it is unused and everything in it is stored."""
        return self._audience is None and not self._pins and self.is_saved and not self._is_withheld

    @property
    def is_saved(self) -> bool:
        """Whether everything in it is stored."""
        return self._writer is None or self._writer.is_idle

    @property
    def sequence(self) -> int:
        """The number of the last stored update up to which everything is here."""
        return 0 if self._writer is None else self._writer.sequence

    @property
    def has_gap(self) -> bool:
        """Whether another process is known to have stored updates that are not merged here yet."""
        return self._writer is not None and self._writer.has_gap

    @property
    def version(self) -> int:
        """
        How many updates are in it, those that are not stored yet included.

        Updates of other processes count when they are merged here, not when they are noticed: two states that
        differ never have the same number on one node.
        """
        return 0 if self._writer is None else self._writer.sequence + self._writer.beyond

    @property
    def is_pristine(self) -> bool:
        """Whether it was created on this node and has not changed since."""
        return self.is_pristine_at(self.version)

    def is_pristine_at(self, version: int) -> bool:
        """Whether that is how it was when it was created on this node."""
        return version == self._pristine_version

    # --- who uses it ----------------------------------------------------------------------------------

    def pin(self) -> Pin:
        """Keep the document open, for a user that is not in its audience."""
        self._pins += 1
        return Pin(self._unpin)

    def _unpin(self) -> None:
        self._pins -= 1

    def touch(self, now: datetime) -> None:
        """Note that the document is in use."""
        self._used_at = now

    def attract(self, audience: Audience) -> None:
        """Tell ``audience`` of everything from now on; it asks for the state before that itself."""
        self._audience = audience

    def dismiss(self, now: datetime) -> None:
        """Its last client has left."""
        self._audience = None
        self._used_at = now

    # --- what is said ---------------------------------------------------------------------------------

    def take_update(
        self,
        update: bytes,
        author: Author,
        now: datetime,
        *,
        source: Source | None = None,
        settled: Settled | None = None,
        message: bytes | None = None,
    ) -> bool:
        """
        Apply a change that was made just now, and pass it on to everyone. Its author gets it too, as the sign that it
        has arrived. ``False`` if only others may bring what is in it. ``message`` is what brought it, for
        ``Audience.changed``; ``source`` is the connection of the author, if there is one.

        Raises:
            PoisonUpdate: If it cannot be applied; other clients are not affected.
            WritesRefused, DocumentTooLarge: As they say; it was not applied.
        """
        self._check_writable(len(update), now)
        source = source or Source(author.user)
        try:
            taken = self._replica.apply(update, source)
        except ReplicaLost as error:
            self._lose()
            raise PoisonUpdate("the update broke the replica") from error
        if taken is not update:
            if taken == EMPTY_UPDATE:
                return False
            update, message = taken, None
        self._keep(update, author, now, settled, source)
        if self._audience is not None:
            self._audience.changed(update, message, now)
        return True

    def take_missing(
        self,
        update: bytes,
        author: Author,
        now: datetime,
        *,
        source: Source | None = None,
        settled: Settled | None = None,
    ) -> bool:
        """
        Apply the answer to our step 1; ``False`` if there is nothing new in it. Raises as ``take_update``.

        Everyone is given only what is new: a client that comes back may bring the whole document.
        """
        if self.contains(update):
            return False
        self._check_writable(len(update), now)
        waited = tuple(self._replica.waiting)
        source = source or Source(author.user)
        try:
            taken, news = self._replica.apply_and_tell(update, source, is_lenient=True)
        except ReplicaLost as error:
            self._lose()
            raise PoisonUpdate("the update broke the replica") from error
        if news is None or taken in self._replica.waiting:
            if taken in waited or (taken is not update and taken not in self._replica.waiting):
                return False  # it waits already, or what was new in it only others may bring
            news = taken  # a part of it waits
        self._keep(news, author, now, settled if taken is update else None, source)
        self._tell(news, now)
        return True

    def contains(self, update: bytes) -> bool:
        """
        Whether everything in ``update`` is here already.

        Raises:
            PoisonUpdate: If it cannot be read.
        """
        return update == EMPTY_UPDATE or self._replica.contains(update)

    def has(self, update: bytes) -> bool:
        """Like ``contains``; what waits for something else is here, too."""
        return update in self._replica.waiting or self.contains(update)

    def is_of_the_deleted(self, update: bytes) -> bool:
        """
        Whether ``update`` brings something of a document of this name that was deleted.

        Clients that cannot say which history they have come back with all of it. Yjs ids are not used twice.
        """
        return bool(self._tombstones) and any(
            units.client in self._tombstones for units in self._replica.clients_of(update)
        )

    def enter(self, source: Source) -> None:
        """A connection is new."""
        self._replica.identities.enter(source)

    def leave(self, source: Source) -> None:
        """The connection is gone, and holds no Yjs client any more."""
        self._replica.identities.leave(source)

    def take_awareness(
        self,
        entries: Iterable[AwarenessEntry],
        owner: Owner,
        now: datetime,
        *,
        source: Source | None = None,
        identity: Identity | None = None,
    ) -> AwarenessOutcome:
        """Take in what a connection shows, and pass on as much of it as is news."""
        if source is not None:
            # Somebody else is away, or connected to another node, which nobody here would see.
            is_new, is_foreign = self.awareness.is_new, self._replica.identities.is_foreign
            entries = [entry for entry in entries if not (is_new(entry) and is_foreign(entry.client, source))]
        outcome = self.awareness.apply(entries, owner, identity)
        if source is not None:
            for entry in outcome.news:
                if entry.client not in source.clients and not entry.is_gone:
                    self._replica.identities.introduce(entry.client, source)
        self._show(outcome.news, now)
        return outcome

    def hide(self, connection: Hashable, now: datetime) -> None:
        """The connection is gone: what it has shown goes, too."""
        self._show(self.awareness.leave(connection), now)

    def _show(self, entries: Sequence[AwarenessEntry], now: datetime) -> None:
        self.shown_elsewhere(entries, now)
        if entries and self._elsewhere is not None:
            self._elsewhere.shown(self.name, entries)

    def shown_elsewhere(self, entries: Sequence[AwarenessEntry], now: datetime) -> None:
        """Pass on to the clients here what others show."""
        if entries and self._audience is not None:
            self._audience.shown(entries, now)

    def remind(self, clients: Iterable[int], *, here: bool) -> None:
        """Have Yjs clients show themselves anew that are connected to this node, or to others."""
        if not here and self._elsewhere is not None:
            self._elsewhere.remind(self.name, clients)
        if here and self._audience is not None:
            self._audience.remind(clients)

    def submit(self, draft: Draft) -> None:
        """
        Have a change computed and stored in its turn, from what is in the log then.

        Raises:
            WritesRefused: If the document is not stored itself, or storage does not keep up.
        """
        self._check_writable(0, draft.at)
        if self._writer is not None:
            self._writer.add_draft(draft)

    async def compute(self, drafts: Sequence[Draft]) -> list[Computed]:
        """``Keeper.compute``."""
        drafts = [draft for draft in drafts if not draft.outcome.done()]
        if drafts and drafts[0].work is not None:
            return await self._compute_beside(drafts[0], drafts[0].work)
        computed: list[Computed] = []
        copy: Replica | None = None
        for draft in drafts:
            if draft.work is not None:
                break  # it is the first one the next time
            version = self.version + len(computed)
            try:
                draft.check(version)
                self._check_writable(draft.size, draft.at)
                copy = copy or self._copy_with(computed)
                update = draft.change(copy)
            except Exception as error:  # noqa: BLE001  # whatever it was, it is for whoever wants the change
                draft.fail(error)
                copy = None  # it may be changed by half
                continue
            if update is None:
                draft.land(version, changed=False)
            else:
                computed.append(Computed(draft, DocumentUpdate(update, draft.author, draft.at)))
        return computed

    async def _compute_beside(self, draft: Draft, work: int) -> list[Computed]:
        """Compute one draft, of which nothing is known but that it takes long; the document goes on meanwhile."""
        version = self.version
        try:
            draft.check(version)
            self._check_writable(draft.size, draft.at)
            copy = self._workbench.take(self._replica, draft.at)
            is_short = max(self._size, work) <= SHORT_WORK_BYTES
            update = draft.change(copy) if is_short else await asyncio.to_thread(draft.change, copy)
        except Exception as error:  # noqa: BLE001  # whatever it was, it is for whoever wants the change
            draft.fail(error)
            return []
        if update is None:
            self._workbench.unchanged()
            draft.land(version, changed=False)
            return []
        return [Computed(draft, DocumentUpdate(update, draft.author, draft.at))]

    def _copy_with(self, computed: Sequence[Computed]) -> Replica:
        copy = self._replica.copy()
        for each in computed:
            copy.apply(each.update.data)
        return copy

    def land(self, computed: Computed, version: int) -> None:
        """``Keeper.land``."""
        before = self._replica.revision
        self.learn([computed.update], computed.draft.at)
        self._replica.landed()
        if computed.draft.work is not None:
            self._workbench.landed(self._replica, before)
        self._used_at = computed.draft.at
        computed.draft.land(version, changed=True)

    def rest(self, now: datetime) -> None:
        """Let go of what was only kept to be quick."""
        self._workbench.rest(now)

    def when_saved(self, settled: Settled) -> None:
        """Call ``settled`` when everything that is in the document now is durable."""
        if self._writer is None:
            settled(True)
        else:
            self._writer.when_saved(settled)

    def _keep(self, update: bytes, author: Author, now: datetime, settled: Settled | None, source: Source) -> None:
        self._size += len(update)
        self._used_at = now
        if self._writer is not None:
            own = self._replica.identities.own_client(update, source)
            self._writer.add(DocumentUpdate(update, author, now, own), settled)

    def _tell(self, update: bytes, now: datetime) -> None:
        if self._audience is not None:
            self._audience.changed(update, None, now)

    # --- what may be written --------------------------------------------------------------------------

    def takes_writes(self, now: datetime) -> bool:
        """Whether storage keeps up, so that a change would be taken."""
        return self._writer is not None and not self._is_withheld and not self._is_behind(self._writer, now)

    def want(self, author: Author | None = None) -> None:
        """Have the document stored, because a client of ``author`` may write to it."""
        if self._writer is None and not self._is_wanted:
            self._is_wanted = True
            self._creator(author)

    def _check_writable(self, size: int, now: datetime) -> None:
        writer = self._writer
        if self._is_withheld:
            raise WritesRefused("storage has lost the document; the change was not taken")
        if self._size + size > self._settings.max_document_bytes:
            self._check_room(size)
        if writer is None:
            self.want()
            raise WritesRefused("the document is not stored yet")
        if writer.unsaved and self._is_behind(writer, now):
            raise WritesRefused("storage does not keep up; the change was not taken")

    def _check_room(self, size: int) -> None:
        # What is counted are bytes that came in. Merged they are fewer, so look before anyone is refused; but that
        # takes long for a document of such a size, so do not look again for each that follows.
        most = self._settings.max_document_bytes
        if not self._is_full:
            self._size = len(self._replica.since())
            self._is_full = self._size + size > most
        if self._is_full:
            raise DocumentTooLarge(f"a document has at most {most} bytes")

    def _is_behind(self, writer: DocumentWriter, now: datetime) -> bool:
        since = writer.unsaved_since
        settings = self._settings
        too_old = since is not None and now - since > settings.max_unsaved_age
        return too_old or writer.unsaved_bytes > settings.max_unsaved_bytes

    # --- storage --------------------------------------------------------------------------------------

    def adopt(self, record: DocumentRecord, writer: DocumentWriter, replica: Replica | None = None) -> None:
        """Be the stored document that ``record`` describes; ``replica`` is everything in it, if it is not here yet."""
        if replica is not None:
            self._replica = replica
        self._lineage = record.lineage
        self._size = record.snapshot_bytes + record.log_bytes
        self._writer = writer

    def begin_pristine(self) -> None:
        """It was made here just now; what it begins with is in it."""
        self._pristine_version = self.version

    def learn(self, updates: Iterable[DocumentUpdate], now: datetime) -> None:
        """Take in what others have stored; it is passed on, but not stored again."""
        for update in updates:
            if not self.has(update.data):
                try:
                    _, news = self._replica.apply_and_tell(update.data)
                except ReplicaLost:
                    self._lose()
                    return
                self._note(update, news or update.data, now)

    def learn_next(self, updates: Iterable[DocumentUpdate], now: datetime) -> None:
        """Like ``learn``, for what comes next in the log, and so was hardly ever here before."""
        for update in updates:
            try:
                self._replica.apply(update.data, is_typed=False)
            except ReplicaLost:
                self._lose()
                return
            self._note(update, update.data, now)

    def _note(self, update: DocumentUpdate, news: bytes, now: datetime) -> None:
        self._replica.identities.learn(update)
        self._size += len(update.data)
        self._tell(news, now)

    def learned(self, sequence: int, updates: Iterable[DocumentUpdate]) -> None:
        """Everything that is stored up to number ``sequence`` is here now; ``updates`` are the last of it."""
        if self._writer is not None:
            self._writer.learned(sequence, updates)

    def appended(self, count: int, head: int) -> None:
        """``count`` updates that are here are stored, the last one with the number ``head``."""
        if self._writer is not None:
            self._writer.appended(count, head)

    def unsaved_updates(self) -> list[DocumentUpdate]:
        """What is not stored yet, in order."""
        return [] if self._writer is None else self._writer.unsaved_updates()

    async def settle(self) -> None:
        """Wait until everything is stored, or nothing can be."""
        if self._writer is not None:
            await self._writer.settle()

    @property
    def writer(self) -> DocumentWriter | None:
        """What it still has to store, for statistics."""
        return self._writer

    # --- versions -------------------------------------------------------------------------------------

    @property
    def version_at(self) -> datetime:
        """When the last version was kept, or it was opened."""
        return self._version_at

    @property
    def has_changed_since_version(self) -> bool:
        """Whether something was stored since the last version was kept."""
        return self.sequence > self._version_sequence

    def version_kept(self, sequence: int, at: datetime) -> None:
        """A version is kept that contains everything up to number ``sequence``."""
        self._version_sequence, self._version_at = sequence, at

    # --- time, and the end ----------------------------------------------------------------------------

    def tick(self) -> None:
        """A moment has passed: what could not be had may be asked for again."""
        self._is_wanted = self._is_full = False

    def end(self) -> None:
        """The document was deleted and cannot be used any more."""
        self._is_gone = self._is_deleted = True
        if self._audience is not None:
            self._audience.deleted()

    def withhold(self) -> None:
        """Storage has lost the document: keep it, and let nobody into it until ``release``."""
        self._is_withheld = True
        if self._audience is not None:
            self._audience.storage_lost()

    def release(self) -> None:
        """Storage has it again."""
        self._is_withheld = False

    def bury(self, clients: frozenset[int]) -> None:
        """These Yjs clients are of a deleted document of this name."""
        self._tombstones |= clients

    def close(self) -> None:
        """The node stops."""
        self._is_gone = True

    def evict(self) -> None:
        """Close the document and free its memory at once, without waiting for the cycle collector."""
        self._is_gone = True
        self._writer = None
        self._creator = _nothing

    def _lose(self) -> None:
        _log.error("replica_lost", document=self.name)
        # What is stored is whole: a client that reconnects gets it in a fresh replica.
        self._is_gone = True
        if self._audience is not None:
            self._audience.lost()


def _nothing(_author: Author | None) -> None:
    """Stands for the creator of a document that is not open any more."""
