"""
What a document's subscribers may have missed: positions, bounded histories, and what is left to send.

The laws: offsets of one epoch have no holes; a subscriber is given everything after its position or told that
this cannot be had, never a part. To subscribe is to join the live publications first, then to read the
history; here both happen in one turn of the loop, with no publication in between.
"""

from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from msgspec import Struct

from roomkey.wire.frame import Frame

EPOCH_LETTERS: Final = 8

_OVERHEAD_BYTES: Final = 300
"""Of a kept publication besides its bytes: a frame, its entry, the headers of Python's objects."""


class Position(Struct, frozen=True, gc=False):
    """
    A place in a document's publications: the one with this ``offset``, or before the first if it is 0.

    ``epoch`` is 8 random letters that change when offsets start anew.
    """

    epoch: str
    offset: int


class Window(Struct, frozen=True, kw_only=True):
    """How much history one document keeps: whatever bound is reached first."""

    publications: int
    age: timedelta
    size: int


class History:
    """The latest publications of one document, and where it stands."""

    __slots__ = ("_entries", "_size", "_window", "epoch", "offset")

    def __init__(self, epoch: str, window: Window) -> None:
        self.epoch = epoch
        self.offset = 0
        self._window = window
        self._entries: deque[tuple[datetime, Frame]] = deque()
        self._size = 0

    @property
    def position(self) -> Position:
        """The position of the last publication."""
        return Position(self.epoch, self.offset)

    @property
    def size(self) -> int:
        """Bytes of memory that the entries take, nearly."""
        return self._size

    def next_position(self) -> Position:
        """Where the next publication will be, so that it can say so itself."""
        return Position(self.epoch, self.offset + 1)

    def append(self, frame: Frame, now: datetime) -> None:
        """Keep ``frame`` as the publication at ``next_position``."""
        self.offset += 1
        self._entries.append((now, frame))
        self._size += _weight(frame)
        self.trim(now)

    def since(self, position: Position) -> list[Frame] | None:
        """Every publication after ``position``, in order; ``None`` if one of them is missing or it is not of ours."""
        missed = self.offset - position.offset
        kept = len(self._entries)
        if position.epoch != self.epoch or not 0 <= missed <= kept or position.offset < 0:
            return None
        return [frame for _, frame in islice(self._entries, kept - missed, None)]

    def trim(self, now: datetime) -> None:
        """Forget what is outside the window."""
        window, entries = self._window, self._entries
        while entries and (
            len(entries) > window.publications or self._size > window.size or now - entries[0][0] > window.age
        ):
            self._drop_oldest()

    def shrink(self, size: int) -> None:
        """Forget the oldest until ``size`` bytes less are taken, or nothing is left."""
        goal = self._size - size
        while self._entries and self._size > goal:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, frame = self._entries.popleft()
        self._size -= _weight(frame)


class Histories:
    """
    The histories of all documents of this node, in bounded memory.

    Those in use, between ``open`` and ``release``, stay; of the others the one that was released longest ago
    goes first. A document whose history is gone starts a new epoch.
    """

    def __init__(self, window: Window, *, max_size: int, max_idle: int, new_epoch: Callable[[], str]) -> None:
        """
        Args:
            max_size: Bytes of all histories together.
            max_idle: How many histories are kept that are not in use.
            new_epoch: Makes epochs, which must not repeat.
        """
        self._window = window
        self._max_size = max_size
        self._max_idle = max_idle
        self._new_epoch = new_epoch
        self._in_use: dict[str, History] = {}
        self._idle: dict[str, History] = {}
        self._size = 0

    def __len__(self) -> int:
        return len(self._in_use) + len(self._idle)

    @property
    def size(self) -> int:
        """Bytes of memory that all entries take, nearly."""
        return self._size

    def __getitem__(self, document: str) -> History:
        return self._in_use[document]

    def open(self, document: str, now: datetime) -> History:
        """The history of ``document``, which stays until it is released."""
        history = self._in_use.get(document)
        if history is None:
            history = self._idle.pop(document, None) or History(self._new_epoch(), self._window)
            self._in_use[document] = history
            self._trim(history, now)
        return history

    def release(self, document: str) -> None:
        """Nobody is in ``document`` any more."""
        self._idle[document] = self._in_use.pop(document)
        if len(self._idle) > self._max_idle:
            self._drop_stalest()

    def append(self, document: str, frame: Frame, now: datetime) -> None:
        """Keep a publication of a document that is in use."""
        history = self._in_use[document]
        before = history.size
        history.append(frame, now)
        self._size += history.size - before
        while self._size > self._max_size and self._idle:
            self._drop_stalest()
        if self._size > self._max_size:
            # Everything that is left is in use: whoever adds makes room at home.
            before = history.size
            history.shrink(self._size - self._max_size)
            self._size += history.size - before

    def trim(self, now: datetime) -> None:
        """Forget what became too old; positions stay."""
        for histories in (self._in_use, self._idle):
            for history in histories.values():
                self._trim(history, now)

    def _trim(self, history: History, now: datetime) -> None:
        before = history.size
        history.trim(now)
        self._size += history.size - before

    def _drop_stalest(self) -> None:
        self._size -= self._idle.pop(next(iter(self._idle))).size


def _weight(frame: Frame) -> int:
    # The payload stands in memory twice: by itself and in the finished frame.
    return 2 * frame.size + _OVERHEAD_BYTES
