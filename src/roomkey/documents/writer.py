"""
Saving: one write at a time per document; everything that waits goes into the next one.

The writer drops no update as long as the process lives. While storage fails, the same write is
tried again, with growing pauses; what is applied meanwhile waits behind it; the document bounds how much and
how long.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import structlog
from msgspec import Struct

from roomkey.errors import Conflict, NotFound, RoomkeyError
from roomkey.ports import DocumentStore, DocumentUpdate

FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 5.0

MAX_BATCH_UPDATES: Final = 2_000
MAX_BATCH_BYTES: Final = 4 * 1024 * 1024

_log = structlog.get_logger("roomkey.documents")


Settled = Callable[[bool], None]
"""Called once: with ``True`` when the change is durable, with ``False`` when the document is gone."""


class Waiting(Struct, frozen=True, gc=False):
    """An update that is to be stored, and who is told whether it was. ``settled`` must not raise."""

    update: DocumentUpdate
    settled: Settled | None


class DocumentWriter:
    """
    Saves one document.

    ``interval`` lies between the end of a write and the beginning of the next one, which collects meanwhile: each
    costs a commit, however much is in it. ``sequence`` is the number up to which every update of the log is in the
    document here. ``lost`` is called once if the document is not there any more, or is another one: nothing can
    be saved then. ``overtaken`` is called when another process has appended to the log, too: then there is a
    gap, and what was stored behind it does not count until ``merged`` says that the gap is filled.
    """

    __slots__ = (
        "_ahead",
        "_interval",
        "_lineage",
        "_lost",
        "_name",
        "_overtaken",
        "_rested_at",
        "_settled",
        "_spawn",
        "_store",
        "_waiting",
        "_working",
        "_writing",
        "sequence",
        "trouble",
        "unsaved_bytes",
    )

    def __init__(
        self,
        store: DocumentStore,
        name: str,
        *,
        lineage: str,
        sequence: int,
        interval: timedelta,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        lost: Callable[[], None],
        overtaken: Callable[[], None],
    ) -> None:
        self._store = store
        self._name = name
        self._lineage = lineage
        self._interval = interval.total_seconds()
        self._spawn = spawn
        self._lost = lost
        self._overtaken = overtaken
        self._ahead: list[tuple[int, int]] = []
        """Numbers (first, last) of updates of ours in the log that lie behind a gap, in order."""
        self._waiting: list[Waiting] = []
        self._writing: Sequence[Waiting] = ()
        self._working = False
        self._rested_at = 0.0
        self._settled = asyncio.Event()
        self._settled.set()
        self.sequence = sequence
        self.unsaved_bytes = 0
        self.trouble: str | None = None

    @property
    def is_idle(self) -> bool:
        """Whether everything is stored."""
        return not self._working

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
        return self.unsaved + sum(last - first + 1 for first, last in self._ahead)

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
        if not self._working:
            self._working = True
            self._settled.clear()
            self._spawn(self._work())

    def merged(self, sequence: int) -> None:
        """Everything in the log up to number ``sequence`` is in the document."""
        self.sequence = max(self.sequence, sequence)
        known = self.sequence
        ahead = sorted((max(first, known + 1), last) for first, last in self._ahead if last > known)
        while ahead and ahead[0][0] == self.sequence + 1:
            self.sequence = ahead.pop(0)[1]
        self._ahead = ahead

    def appended(self, count: int, head: int) -> None:
        """``count`` updates that are in the document were appended to the log; the last one has number ``head``."""
        self._ahead.append((head - count + 1, head))
        self.merged(self.sequence)

    async def settle(self) -> None:
        """Wait until everything is stored, or nothing can be."""
        await self._settled.wait()

    async def _work(self) -> None:
        try:
            clock = asyncio.get_running_loop().time
            while self._waiting:
                if (rest := self._rested_at - clock()) > 0:
                    await asyncio.sleep(rest)
                self._writing = self._next_batch()
                if not await self._write(self._writing):
                    self._give_up()
                    return
                self._rested_at = clock() + self._interval
                done, self._writing = self._writing, ()
                self._tell(done, stored=True)
        finally:
            self._working = False
            self._settled.set()

    def _next_batch(self) -> Sequence[Waiting]:
        size = 0
        for count, waiting in enumerate(self._waiting, 1):
            size += len(waiting.update.data)
            if count == MAX_BATCH_UPDATES or size >= MAX_BATCH_BYTES:
                break
        else:
            count = len(self._waiting)
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    async def _write(self, batch: Sequence[Waiting]) -> bool:
        """Store the batch, however long that takes; ``False`` if there is nothing any more to store it in."""
        updates = [waiting.update for waiting in batch]
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                head = await self._store.append(self._name, self._lineage, updates)
            except (NotFound, Conflict):
                return False
            except RoomkeyError as error:
                self._note_trouble(error)
            except Exception as error:  # noqa: BLE001  # a defect there must not cost anybody's changes
                _log.exception("document_not_saved", document=self._name)
                self._note_trouble(error)
            else:
                self.trouble = None
                last = self._ahead[-1][1] if self._ahead else self.sequence
                self.appended(len(updates), head)
                if head - len(updates) > last:
                    self._overtaken()
                return True
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # jitter is no secret
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _note_trouble(self, error: Exception) -> None:
        if self.trouble is None:
            _log.warning("document_not_saved", document=self._name, error=str(error))
        self.trouble = str(error)

    def _give_up(self) -> None:
        given_up = (*self._writing, *self._waiting)
        self._waiting, self._writing = [], ()
        self._lost()
        self._tell(given_up, stored=False)

    def _tell(self, settled: Sequence[Waiting], *, stored: bool) -> None:
        for waiting in settled:
            self.unsaved_bytes -= len(waiting.update.data)
            if waiting.settled is not None:
                waiting.settled(stored)


def _tell_both(one: Settled | None, other: Settled, stored: bool) -> None:  # noqa: FBT001  # as savers call it
    if one is not None:
        one(stored)
    other(stored)
