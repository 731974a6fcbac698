"""
Saving: a group commit of what all documents have to store, one after the other.

A commit costs the disk and the processor the same, however much is in it, and people type more slowly than it could
follow. So what documents store waits for each other: the first change after a while leaves at once, and what comes
within ``save_interval`` behind a commit goes into the next one, whichever document it is of.

No update is dropped as long as the process lives. While storage fails, the same is tried again, with growing pauses;
what is applied meanwhile waits behind it; the document bounds how much and how long.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Protocol

import structlog
from msgspec import Struct

from roomkey.documents.crdt.replica import Replica
from roomkey.errors import Conflict, DocumentNotFound, NotFound, Overtaken, RoomkeyError, Storage
from roomkey.ports import Append, Author, DocumentStore, DocumentUpdate
from roomkey.ports.observing import UNOBSERVED, DocumentObserver

FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 5.0

MAX_BATCH_UPDATES: Final = 2_000
MAX_BATCH_BYTES: Final = 4 * 1024 * 1024
"""Of one document, and of all documents, in one commit."""

MAX_OVERTAKEN: Final = 20
"""How often drafts are computed anew because others were faster, before whoever wants them has to try again."""

_log = structlog.get_logger("roomkey.documents")


Settled = Callable[[bool], None]
"""Called once: with ``True`` when the change is durable, with ``False`` when the document is gone."""

Appended = Callable[[Append, int], None]
"""Called with what was stored of a document, and the number of the last of it. Must not raise."""

Outcome = int | Exception
"""The number of the last update of a document that was stored, or why nothing was."""


class Waiting(Struct, frozen=True, gc=False):
    """An update that is to be stored, and who is told whether it was. ``settled`` must not raise."""

    update: DocumentUpdate
    settled: Settled | None


class Landing(Struct, frozen=True, gc=False):
    """What became of a draft: the version of the document with it, and whether it changed anything."""

    version: int
    changed: bool


class Draft:
    """
    A change that is computed when its turn to be stored has come, from the document as it is in the log then.

    If other processes append first, it is computed anew. ``check`` is given the version of the document before it, and
    raises unless the change may be made; ``change`` makes it in a copy and returns the update, if there is one.
    ``outcome`` has the landing, or what ``check`` or ``change`` raised. ``work`` says how many bytes the change is made
    of, if it may be made beside the loop, in a thread: it then touches nothing but the copy.
    """

    __slots__ = ("at", "author", "change", "check", "outcome", "size", "work")

    def __init__(
        self,
        change: Callable[[Replica], bytes | None],
        author: Author,
        at: datetime,
        *,
        check: Callable[[int], None],
        size: int = 0,
        work: int | None = None,
    ) -> None:
        self.work = work
        self.change = change
        self.author = author
        self.at = at
        self.check = check
        self.size = size
        self.outcome: asyncio.Future[Landing] = asyncio.get_running_loop().create_future()

    def land(self, version: int, *, changed: bool) -> None:
        """It is stored, or there is nothing to store."""
        if not self.outcome.done():
            self.outcome.set_result(Landing(version, changed))

    def fail(self, error: Exception) -> None:
        """It is not made."""
        if not self.outcome.done():
            self.outcome.set_exception(error)
            self.outcome.exception()  # asyncio then does not complain if whoever waited has gone


class Computed(Struct, frozen=True, gc=False):
    """A draft, and the update that it has come to."""

    draft: Draft
    update: DocumentUpdate


class Keeper(Protocol):
    """Who has the document that is saved. Only ``catch_up`` may raise."""

    def lost(self) -> None:
        """The document is not there any more, or is another one: nothing can be saved."""
        ...

    def overtaken(self) -> None:
        """Another process has appended to the log, too, so there is a gap."""
        ...

    def receded(self) -> None:
        """The log ends before what was stored already: storage has lost something."""
        ...

    async def catch_up(self) -> None:
        """
        Bring the document to the end of the log.

        Raises:
            RoomkeyError: If that is not possible now.
        """
        ...

    async def compute(self, drafts: Sequence[Draft]) -> list[Computed]:
        """
        What is to be stored of the first of ``drafts``, one based on the other; nothing of it is in the document yet.

        The document may change meanwhile: what is stored then is not behind what is computed.
        """
        ...

    def land(self, computed: Computed, version: int) -> None:
        """A draft is stored; with it the document has this version."""
        ...


class DocumentWriter:
    """
    What one document has to store, and how far it has come; ``group`` stores it, a batch at a time.

    ``sequence`` is the number up to which every update of the log is in the document here. What was stored behind a
    gap, where others have appended, does not count until ``learned`` says that the gap is filled.
    """

    __slots__ = (
        "_ahead",
        "_drafts",
        "_failures",
        "_group",
        "_idle",
        "_is_asking",
        "_keeper",
        "_known",
        "_lineage",
        "_name",
        "_overtaken",
        "_waiting",
        "_writing",
        "sequence",
        "trouble",
        "unsaved_bytes",
    )

    def __init__(self, group: "GroupCommit", name: str, *, lineage: str, sequence: int, keeper: Keeper) -> None:
        self._group = group
        self._name = name
        self._lineage = lineage
        self._keeper = keeper
        self._drafts: list[Draft] = []
        self._overtaken = 0
        """How often in a row the drafts were computed in vain."""
        self._ahead: list[tuple[int, int]] = []
        """Numbers (first, last) of updates in the document that lie behind a gap in the log, in order."""
        self._waiting: list[Waiting] = []
        self._writing: Sequence[Waiting] = ()
        self._known = 0
        """How many of those that are being written are known to be in the log, and so counted by ``sequence``."""
        self._is_asking = False
        self._idle: asyncio.Future[None] | None = None
        """Done when there is nothing to store any more, if somebody waits for that."""
        self._failures = 0
        self.sequence = sequence
        self.unsaved_bytes = 0
        self.trouble: str | None = None

    @property
    def is_idle(self) -> bool:
        """Whether everything is stored."""
        return not self._is_asking

    @property
    def unsaved(self) -> int:
        """How many updates are not stored yet."""
        return len(self._waiting) + len(self._writing)

    @property
    def has_gap(self) -> bool:
        """Whether another process has stored updates in between that are not merged here."""
        return bool(self._ahead)

    @property
    def beyond(self) -> int:
        """How many updates are in the document that ``sequence`` does not count: unsaved, or behind a gap."""
        return self.unsaved - self._known + sum(last - first + 1 for first, last in self._ahead)

    @property
    def unsaved_since(self) -> datetime | None:
        """When the oldest update that is not stored was applied."""
        oldest = self._writing or self._waiting
        return oldest[0].update.at if oldest else None

    def unsaved_updates(self) -> list[DocumentUpdate]:
        """What is not stored yet, in order."""
        return [waiting.update for waiting in (*self._writing, *self._waiting)]

    def when_saved(self, settled: Settled) -> None:
        """Call ``settled`` when everything that was given so far is stored, which may be now."""
        waiting = self._waiting or list(self._writing)
        if not waiting:
            settled(True)
            return
        last = waiting[-1]
        both = Waiting(last.update, partial(_tell_both, last.settled, settled))
        if self._waiting:
            self._waiting[-1] = both
        else:
            self._writing = (*self._writing[:-1], both)

    def add(self, update: DocumentUpdate, settled: Settled | None = None) -> None:
        """Have ``update`` stored behind everything that was given before."""
        self._waiting.append(Waiting(update, settled))
        self.unsaved_bytes += len(update.data)
        if not self._is_asking:
            self._is_asking = True
            self._group.ask(self)

    def add_draft(self, draft: Draft) -> None:
        """Have ``draft`` computed and stored at once, together with everything that it may build on."""
        self._drafts.append(draft)
        if not self._is_asking:
            self._is_asking = True
            self._group.ask(self)
        self._group.hurry()

    def learned(self, sequence: int, updates: Iterable[DocumentUpdate]) -> None:
        """Everything in the log up to number ``sequence`` is in the document; ``updates`` are the last ones there."""
        if self._writing:
            # What is being written may be in the log before we are told so.
            last = self._writing[-1].update
            if any(update == last for update in updates):
                self._known = len(self._writing)
        self._merged(sequence)

    def _merged(self, sequence: int) -> None:
        self.sequence = reached = max(self.sequence, sequence)
        ahead: list[tuple[int, int]] = []
        for first, last in sorted(self._ahead):
            if last <= reached:
                continue
            if first <= reached + 1 and not ahead:
                self.sequence = last
            else:
                ahead.append((max(first, reached + 1), last))
            reached = last
        self._ahead = ahead

    def appended(self, count: int, head: int) -> None:
        """``count`` updates that are in the document are in the log, too; the last one has number ``head``."""
        self._ahead.append((head - count + 1, head))
        self._merged(self.sequence)

    async def settle(self) -> None:
        """Wait until everything is stored, or nothing can be."""
        while self._is_asking:
            if self._idle is None:
                self._idle = asyncio.get_running_loop().create_future()
            self._group.hurry()
            await asyncio.shield(self._idle)

    # --- for the group --------------------------------------------------------------------------------

    @property
    def has_drafts(self) -> bool:
        """Whether what is to be stored must be computed first: then ``store_alone`` does it."""
        return bool(self._drafts)

    def next_batch(self) -> Append:
        """What is to be stored now: what could not be stored the last time, or what waits, up to a bound."""
        if not self._writing:
            self._writing = self._cut_batch()
        return Append(self._name, self._lineage, [waiting.update for waiting in self._writing])

    def settled(self, outcome: Outcome, computed: Sequence[Computed] = ()) -> float | None:
        """What became of the batch; returns after how many seconds it asks again, or ``None`` if all is stored."""
        try:
            self._take_note(outcome, computed)
        except Exception:  # noqa: BLE001  # a defect in one document must not keep the others of the group from being saved
            _log.exception("document_outcome_failed", document=self._name)
        self._is_asking = bool(self._writing or self._waiting or self._drafts)
        if self._is_asking:
            return self._pause()
        if self._idle is not None:
            self._idle.set_result(None)
            self._idle = None
        return None

    def _take_note(self, outcome: Outcome, computed: Sequence[Computed]) -> None:
        if isinstance(outcome, int):
            self._stored(computed, outcome)
        elif isinstance(outcome, Overtaken):
            self._note_overtaken(outcome)
        elif isinstance(outcome, NotFound | Conflict):
            self._give_up()
        else:
            self._note_trouble(outcome)

    async def store_alone(self, store: DocumentStore) -> float | None:
        """Compute the drafts and store them behind what waits. Returns what ``settled`` does; raises nothing."""
        batch = self.next_batch()
        computed: Sequence[Computed] = ()
        try:
            async with self._group.observer.saving([self._name]):
                computed, based_on = await self._computed()
                updates = [*batch.updates, *(each.update for each in computed)]
                after = based_on if computed else None
                outcome = self.sequence
                if updates:
                    outcome = await store.append(self._name, self._lineage, updates, after=after)
                    self._group.appended(Append(self._name, self._lineage, updates), outcome)
        except RoomkeyError as error:
            outcome = error
        except Exception as error:  # noqa: BLE001  # a defect must not cost anybody's changes
            _log.exception("document_not_saved", document=self._name)
            outcome = error
        return self.settled(outcome, computed)

    async def _computed(self) -> tuple[list[Computed], int]:
        """What drafts come to, and the end of the log, on which they are based, and on what is stored with them."""
        try:
            await self._keeper.catch_up()
        except RoomkeyError as error:
            self._fail_drafts(error)
            return [], self.sequence
        based_on = self.sequence
        if self._waiting:  # that goes first, or there could be less in the log than they are based on
            return [], based_on
        computed = await self._keeper.compute(self._drafts)
        self._forget_drafts()
        return computed, based_on

    def _pause(self) -> float:
        if not self._failures:
            return 0.0
        longest = min(FIRST_PAUSE_SECONDS * 2 ** (self._failures - 1), LONGEST_PAUSE_SECONDS)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311  # jitter is no secret

    def _cut_batch(self) -> Sequence[Waiting]:
        size = 0
        for count, waiting in enumerate(self._waiting, 1):
            size += len(waiting.update.data)
            if count == MAX_BATCH_UPDATES or size >= MAX_BATCH_BYTES:
                break
        else:
            count = len(self._waiting)
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    def _stored(self, computed: Sequence[Computed], head: int) -> None:
        self.trouble = None
        self._failures = self._overtaken = 0
        last = self._ahead[-1][1] if self._ahead else self.sequence
        number = head - len(computed)
        if self._writing and not self._known and number - len(self._writing) < self.sequence:
            self._keeper.receded()
        done, self._writing, self._known = self._writing, (), 0
        if number - len(done) > last:
            self._keeper.overtaken()
        if done:
            self.appended(len(done), number)
        self._tell(done, stored=True)
        for each in computed:
            number += 1
            self.appended(1, number)
            self._keeper.land(each, number + self.unsaved)
        self._forget_drafts()

    def _note_overtaken(self, error: Overtaken) -> None:
        self._overtaken += 1
        if self._overtaken == MAX_OVERTAKEN:
            self._overtaken = 0
            self._fail_drafts(error)

    def _forget_drafts(self) -> None:
        self._drafts = [draft for draft in self._drafts if not draft.outcome.done()]

    def _fail_drafts(self, error: Exception) -> None:
        drafts, self._drafts = self._drafts, []
        for draft in drafts:
            draft.fail(error)

    def _note_trouble(self, error: Exception) -> None:
        if self.trouble is None:
            _log.warning("document_not_saved", document=self._name, error=str(error))
        self.trouble = str(error)
        self._failures += 1

    def _give_up(self) -> None:
        given_up = (*self._writing, *self._waiting)
        self._waiting, self._writing, self._known = [], (), 0
        self._keeper.lost()
        self._tell(given_up, stored=False)
        self._fail_drafts(DocumentNotFound("the document was deleted at this moment"))

    def _tell(self, settled: Sequence[Waiting], *, stored: bool) -> None:
        for waiting in settled:
            self.unsaved_bytes -= len(waiting.update.data)
            if waiting.settled is not None:
                waiting.settled(stored)


def _tell_both(one: Settled | None, other: Settled, stored: bool) -> None:  # noqa: FBT001  # as savers call it
    if one is not None:
        one(stored)
    other(stored)


class GroupCommit:
    """
    Stores what the documents of a node have to store. One per store; usable on one event loop.

    ``interval`` lies at least between the end of a commit and the beginning of the next one, unless somebody is in a
    hurry. A document that could not be stored asks again after a pause of its own, so that none keeps others
    from being saved.
    """

    def __init__(
        self,
        store: DocumentStore,
        *,
        interval: timedelta,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        appended: Appended | None = None,
        observer: DocumentObserver = UNOBSERVED,
    ) -> None:
        """``appended`` is told what was stored, right behind that."""
        self.observer = observer
        self._store = store
        self._appended = appended
        self._interval = interval.total_seconds()
        self._spawn = spawn
        self._asking: list[DocumentWriter] = []
        self._timer: asyncio.TimerHandle | None = None
        self._is_committing = False
        self._is_hurried = False
        self._not_before = 0.0

    def ask(self, writer: DocumentWriter) -> None:
        """``writer`` has something to store."""
        self._asking.append(writer)
        if self._timer is None and not self._is_committing:
            self._wake_at(self._not_before)

    def hurry(self) -> None:
        """Store what waits at once, or as soon as the commit that is under way is done."""
        self._is_hurried = True
        if self._timer is not None:
            self._timer.cancel()
            self._wake_at(0.0)

    def _wake_at(self, time: float) -> None:
        self._timer = asyncio.get_running_loop().call_at(time, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._is_committing = True
        with suppress(Storage):  # the node has stopped
            self._spawn(self._work())

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            group = self._next_group()
            if group:
                await self._commit(group)
                self._not_before = loop.time() + self._interval
        finally:
            self._is_committing = False
            if self._asking:
                self._wake_at(0.0 if self._is_hurried else self._not_before)

    def _next_group(self) -> list[tuple[DocumentWriter, Append]]:
        """As much as one commit may take, of those who asked first. Who has something to compute goes alone."""
        self._is_hurried = False
        group: list[tuple[DocumentWriter, Append]] = []
        size = updates = 0
        asking, self._asking = self._asking, []
        for count, writer in enumerate(asking, 1):
            if writer.has_drafts:
                self._spawn(self._store_alone(writer))
                continue
            batch = writer.next_batch()
            group.append((writer, batch))
            updates += len(batch.updates)
            size += sum(len(update.data) for update in batch.updates)
            if updates >= MAX_BATCH_UPDATES or size >= MAX_BATCH_BYTES:
                self._is_hurried = True
                self._asking = asking[count:]
                break
        return group

    async def _store_alone(self, writer: DocumentWriter) -> None:
        self._ask_again(writer, await writer.store_alone(self._store))
        if writer.has_drafts:
            self.hurry()

    async def _commit(self, group: Sequence[tuple[DocumentWriter, Append]]) -> None:
        async with self.observer.saving([batch.name for _, batch in group]):
            outcomes = await self._store_each([batch for _, batch in group])
            for (writer, batch), outcome in zip(group, outcomes, strict=True):
                if isinstance(outcome, int):
                    self.appended(batch, outcome)
                self._ask_again(writer, writer.settled(outcome))

    def appended(self, batch: Append, head: int) -> None:
        """This was stored; the last of it has number ``head``."""
        if self._appended is not None and batch.updates:
            self._appended(batch, head)
        self.observer.saved(batch, head)

    def _ask_again(self, writer: DocumentWriter, pause: float | None) -> None:
        """After so many seconds; ``None``: there is nothing to store."""
        if pause:
            asyncio.get_running_loop().call_later(pause, self.ask, writer)
        elif pause is not None:
            self.ask(writer)

    async def _store_each(self, batches: Sequence[Append]) -> Sequence[Outcome]:
        try:
            return await self._store.append_each(batches)
        except Exception as error:  # noqa: BLE001  # a defect there must not cost anybody's changes
            if len(batches) == 1:
                if not isinstance(error, RoomkeyError):
                    _log.exception("document_not_saved", document=batches[0].name)
                return [error]
        # Maybe because of one of them: what becomes of each shows when it is alone.
        alone = await asyncio.gather(*(self._store_each([batch]) for batch in batches))
        return [outcome for (outcome,) in alone]
