"""
How far a room has come with what its broker hands it, and what has to wait because something before it is missing.

The law: what is handed on has every offset of its epoch once, in order; where that cannot be, the room is told that
it has lost something. Pure: nothing here waits, and whoever holds it asks the broker.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from roomkey.ports import Position, Publication, Recovered

MAX_WAITING: Final = 1_000
"""Publications of one room that wait for those before them; the broker is asked again for what comes then."""

MAX_WAITING_BYTES: Final = 4 * 1024 * 1024


class Progress:
    """The place of one room in its publications. Before ``position`` is known, everything waits."""

    __slots__ = ("_overflowed", "_size", "_waiting", "is_blocked", "known", "position")

    def __init__(self) -> None:
        self.position: Position | None = None
        """That of the last publication that was handed on."""
        self.known: Position | None = None
        """The furthest that was heard of in another way than by its publication."""
        self.is_blocked = False
        """Whether something is missing that the broker is to be asked for."""
        self._waiting: list[Publication] = []
        self._size = 0
        self._overflowed = False

    @property
    def is_behind(self) -> bool:
        """Whether there is more than was handed on, as far as is known."""
        return self.is_blocked or (self.known is not None and is_ahead(self.known, self.position))

    def take(self, publication: Publication) -> Sequence[Publication]:
        """What can be handed on, now that ``publication`` has come: this one or nothing."""
        there, position = publication.position, self.position
        if position is None or self.is_blocked:
            self._keep(publication)
            return ()
        if there is None:
            return (publication,)
        if there.epoch == position.epoch:
            if there.offset == position.offset + 1:
                self.position = there
                return (publication,)
            if there.offset <= position.offset:
                return ()
        self.is_blocked = True
        self._keep(publication)
        return ()

    def heard_of(self, position: Position) -> None:
        """There are publications up to ``position``, as somebody says."""
        if self.known is None or self.known.epoch != position.epoch or self.known.offset < position.offset:
            self.known = position

    def begin_at(self, position: Position) -> Sequence[Publication]:
        """Everything up to ``position`` is known to whoever listens; returns what can be handed on of what waited."""
        self.position = position
        return self._release()

    def ask(self) -> "Question | None":
        """What the broker is to be asked now; nothing before it is known where to begin."""
        return None if self.position is None else Question(self.position, self.known)

    def fill(self, question: "Question", recovered: Recovered) -> "Filled":
        """What to hand on when the broker has answered ``question``."""
        if self.position is None:
            return Filled((), None)
        missed = recovered.publications
        if missed is None or recovered.position.epoch != self.position.epoch:
            if question.position != self.position:
                return Filled((), None)  # it has moved meanwhile, and is to be asked for from where it is
            self._answered(question, recovered.position)
            return Filled(self.begin_at(recovered.position), recovered.position)
        found: list[Publication] = []
        for publication in missed:
            there = publication.position
            if there is not None and there.offset == self.position.offset + 1:
                self.position = there
                found.append(publication)
        self._answered(question, self.position)
        return Filled([*found, *self._release()], None)

    def rest(self) -> None:
        """Nobody listens any more: where the room stands is not known from here on."""
        self.position = self.known = None
        self._forget()

    def _answered(self, question: "Question", position: Position) -> None:
        """What was heard of before the broker was asked is answered, unless it is ahead in the same history."""
        known = self.known
        if known is None or known.epoch == position.epoch:
            self.known = known if known is not None and known.offset > position.offset else None
        elif known == question.known:
            self.known = None

    def _keep(self, publication: Publication) -> None:
        size = len(publication.message)
        if len(self._waiting) >= MAX_WAITING or self._size + size > MAX_WAITING_BYTES:
            self._overflowed = True
            return
        self._waiting.append(publication)
        self._size += size

    def _release(self) -> list[Publication]:
        """What waited, as far as nothing is missing before it."""
        waiting, overflowed = self._waiting, self._overflowed
        self._forget()
        released = [each for publication in waiting for each in self._take_waiting(publication)]
        self.is_blocked = self.is_blocked or overflowed
        return released

    def _take_waiting(self, publication: Publication) -> Sequence[Publication]:
        there, position = publication.position, self.position
        if there is not None and position is not None and there.epoch != position.epoch:
            # It is of a history that is gone, or of one that began after the broker was asked.
            self.known = there if self.known is None else self.known
            return ()
        return self.take(publication)

    def _forget(self) -> None:
        self._waiting, self._size = [], 0
        self.is_blocked = self._overflowed = False


class Question(Struct, frozen=True):
    """What came after ``position``? ``known`` is what else was known when this was asked."""

    position: Position
    known: Position | None


class Filled(Struct, frozen=True):
    """What is to be handed on. Before that, members are told of ``lost`` if there is a part that cannot be had."""

    publications: Sequence[Publication]
    lost: Position | None


def is_ahead(there: Position, here: Position | None) -> bool:
    """Whether ``there`` is something that has not happened ``here``."""
    return here is None or there.epoch != here.epoch or there.offset > here.offset
