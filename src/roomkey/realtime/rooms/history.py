"""
What the subscribers of a room may have missed: positions, and histories in bounded memory.

The laws: offsets of one epoch have no holes; a subscriber is given everything after its position or told that
this cannot be had, never a part.
"""

from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from msgspec import Struct

from roomkey.ports import Position, Publication

EPOCH_LETTERS: Final = 8

_OVERHEAD_BYTES: Final = 300
"""Memory of a kept publication besides its bytes: its entry, its position, the headers of Python's objects."""


class Window(Struct, frozen=True, kw_only=True):
    """Bounds of one room's history; all of them hold."""

    publications: int
    age: timedelta
    size: int


class History:
    """The latest publications of one room, and where it stands."""

    __slots__ = ("_entries", "_size", "_window", "epoch", "offset")

    def __init__(self, epoch: str, window: Window) -> None:
        self.epoch = epoch
        self.offset = 0
        self._window = window
        self._entries: deque[tuple[datetime, Publication]] = deque()
        self._size = 0

    @property
    def position(self) -> Position:
        """The position of the last publication."""
        return Position(self.epoch, self.offset)

    @property
    def size(self) -> int:
        """Bytes of memory that the entries take, nearly."""
        return self._size

    def append(self, message: bytes, origin: str, now: datetime) -> Publication:
        """Keep ``message`` as the next publication."""
        self.offset += 1
        publication = Publication(message, origin, Position(self.epoch, self.offset))
        self._entries.append((now, publication))
        self._size += _weight(publication)
        self.trim(now)
        return publication

    def since(self, position: Position) -> list[Publication] | None:
        """Every publication after ``position``, in order; ``None`` if one of them is missing or it is not of ours."""
        missed = self.offset - position.offset
        kept = len(self._entries)
        if position.epoch != self.epoch or not 0 <= missed <= kept or position.offset < 0:
            return None
        return [publication for _, publication in islice(self._entries, kept - missed, None)]

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
        _, publication = self._entries.popleft()
        self._size -= _weight(publication)


class Histories:
    """
    The histories of all rooms of this node, in bounded memory.

    Those in use, between ``open`` and ``release``, stay; of the others the one that was released longest ago
    goes first. A room whose history is gone starts a new epoch.
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

    def __getitem__(self, room: str) -> History:
        return self._in_use[room]

    def open(self, room: str, now: datetime) -> History:
        """The history of ``room``, which stays until it is released."""
        history = self._in_use.get(room)
        if history is None:
            history = self._idle.pop(room, None) or History(self._new_epoch(), self._window)
            self._in_use[room] = history
            self._trim(history, now)
        return history

    def release(self, room: str) -> None:
        """``room`` has no receiver any more."""
        self._idle[room] = self._in_use.pop(room)
        if len(self._idle) > self._max_idle:
            self._drop_stalest()

    def append(self, room: str, message: bytes, origin: str, now: datetime) -> Publication:
        """Keep a publication."""
        history = self._in_use.get(room)
        if history is None:
            self.open(room, now)
            publication = self.append(room, message, origin, now)
            self.release(room)
            return publication
        before = history.size
        publication = history.append(message, origin, now)
        self._size += history.size - before
        while self._size > self._max_size and self._idle:
            self._drop_stalest()
        if self._size > self._max_size:
            # Every history that is left is in use, so the one that grows gives up its own oldest.
            before = history.size
            history.shrink(self._size - self._max_size)
            self._size += history.size - before
        return publication

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


def _weight(publication: Publication) -> int:
    return len(publication.message) + _OVERHEAD_BYTES
