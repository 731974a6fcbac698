"""
What the rooms of this node are handed, in order: how far it is in each partition, and what it has to read. No waiting.

Rooms are spread over partitions, whose publications are numbered without holes. A number is seen by others when all
before it are, so a node that has handed on everything up to a number needs to ask only for what is higher.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple
from zlib import crc32

from roomkey.ports import Position, Publication, Receiver

PARTITIONS: Final = 64

ROWS_PER_PARTITION: Final = 200
"""Publications of one partition that are read at a time."""

Row = Sequence[Any]


def mark_of(room: str) -> int:
    """What tells rooms apart in hints, nearly always; the rest of it by ``PARTITIONS`` is the room's partition."""
    return crc32(room.encode())


class Seat:
    """A room that this node listens to: who is handed what is published there, and after what."""

    __slots__ = ("_early", "_epoch", "_era", "_missed", "_offset", "after", "receiver", "waiting")

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.after: int | None = None
        """The number of the last publication before it was taken; ``None`` until that is known."""
        self.waiting = 0
        """How many wait until it is known."""
        self._era: str | None = None
        self._epoch: str | None = None
        self._offset = 0
        self._early: list[tuple[str | None, int, Publication]] = []
        self._missed: tuple[str | None, int] = None, 0

    def settle(self, era: str | None, after: int, position: Position | None) -> None:
        """It was taken after publication number ``after`` of this era, when the room stood at ``position``."""
        if self.after is not None:
            return
        self._era, self.after = era, after
        if position is not None:
            self._epoch, self._offset = position.epoch, position.offset
        if self._missed[0] == era and after < self._missed[1]:
            self.receiver.on_gap()
        early, self._early = self._early, []
        for publication in early:
            self.hand(*publication)

    def hand(self, era: str | None, number: int, publication: Publication) -> None:
        """Hand on the publication with this number."""
        if self.after is None:
            self._early.append((era, number, publication))
            return
        if era != self._era or number <= self.after:
            return
        position = publication.position
        if position is not None:
            if position.offset != self._offset + 1 or self._epoch not in (None, position.epoch):
                self.receiver.on_gap()
            self._epoch, self._offset = position.epoch, position.offset
        self.receiver.on_publication(publication)

    def miss(self, era: str, gone: int) -> None:
        """What was not kept up to this number can be had no more."""
        if self.after is None:
            self._missed = era, gone
        elif era == self._era and self.after < gone:
            self.receiver.on_gap()

    def begin_anew(self, era: str) -> None:
        """All that was published before this era is lost, and numbers and offsets start again."""
        if self.after is not None and self._era != era:
            self._era, self.after = era, 0
            self._epoch, self._offset = None, 0
            self.receiver.on_gap()


class Partition:
    """
    How far this node is.

    Up to ``last`` everything was handed on; up to ``upto`` it is known that there is something, of ``wanted`` rooms, or
    of any if the partition ``is_blind``.
    """

    __slots__ = ("era", "former", "is_blind", "last", "marked", "rooms", "upto", "wanted")

    def __init__(self) -> None:
        self.era: str | None = None
        self.former: set[str | None] = set()
        """Eras that are over."""
        self.last = 0
        self.upto = 0
        self.is_blind = False
        self.wanted: set[str] = set()
        self.rooms: dict[str, Seat] = {}
        self.marked: dict[int, set[str]] = {}
        """The rooms by their marks."""


class Request(NamedTuple):
    """What is to be read of one partition."""

    partition: int
    era: str
    last: int
    upto: int
    rooms: Sequence[str]


class Own(NamedTuple):
    """A publication of this node that was made."""

    partition: int
    era: str
    number: int
    room: str
    publication: Publication


class Deliveries:
    """What every partition has for the rooms of this node."""

    def __init__(self) -> None:
        self._partitions = [Partition() for _ in range(PARTITIONS)]

    # --- who listens ----------------------------------------------------------------------------------

    def take_seat(self, room: str, receiver: Receiver) -> Seat:
        """Hand what is published in ``room`` from now on to ``receiver``, as soon as it is settled."""
        mark = mark_of(room)
        partition = self._partitions[mark % PARTITIONS]
        partition.marked.setdefault(mark, set()).add(room)
        seat = partition.rooms[room] = Seat(receiver)
        return seat

    def settle(self, room: str, seat: Seat, era: str | None, after: int, position: Position | None) -> None:
        """``seat`` was taken after publication number ``after`` of this era, when the room stood at ``position``."""
        partition = self._partitions[mark_of(room) % PARTITIONS]
        if era in partition.former:
            seat.settle(partition.era, 0, None)
            seat.receiver.on_gap()
        else:
            seat.settle(era, after, position)

    def seat(self, room: str) -> Seat | None:
        """Who listens to ``room``."""
        return self._partitions[mark_of(room) % PARTITIONS].rooms.get(room)

    def leave_seat(self, room: str) -> None:
        """Nobody listens to ``room`` any more."""
        mark = mark_of(room)
        partition = self._partitions[mark % PARTITIONS]
        if partition.rooms.pop(room, None) is not None:
            partition.marked[mark].discard(room)
            if not partition.marked[mark]:
                del partition.marked[mark]

    # --- what is heard --------------------------------------------------------------------------------

    def hear_heads(self, rows: Iterable[Row]) -> None:
        """Where partitions stand, as the server says: ``(id, era, head, …)``."""
        for row in rows:
            id, era, head = int(row[0]), str(row[1]), int(row[2])
            partition = self._partitions[id]
            if partition.era is None:
                partition.era, partition.last, partition.upto = era, head, head
            elif era != partition.era:
                self._begin_anew(partition, era, head)
            elif head > partition.upto:
                partition.upto, partition.is_blind = head, True

    def hear_hint(self, id: int, first: int, final: int, marks: frozenset[int] | None) -> None:
        """Publications ``first`` to ``final`` were made, in rooms with these marks, or in any."""
        partition = self._partitions[id]
        if marks is None:
            rooms = list(partition.rooms)
        else:
            rooms = [room for mark in marks & partition.marked.keys() for room in partition.marked[mark]]
        self._note(partition, first, final, rooms)

    def hear_own(self, own: Iterable[Own]) -> None:
        """What this node has published: handed on from memory if nothing is missing before it."""
        for id, era, number, room, publication in own:
            partition = self._partitions[id]
            if era != partition.era:
                continue  # the server has lost what was before: its heads will say so, and this is read then
            if number != partition.last + 1:
                self._note(partition, number, number, [room] if room in partition.rooms else [])
                continue
            seat = partition.rooms.get(room)
            partition.last = number
            partition.upto = max(partition.upto, number)
            if seat is not None:
                seat.hand(era, number, publication)

    def _note(self, partition: Partition, first: int, final: int, rooms: Iterable[str]) -> None:
        if final <= partition.upto:
            return
        if first > partition.upto + 1:
            partition.is_blind = True  # a hint was lost
        partition.wanted.update(rooms)
        nothing_waits = partition.last == partition.upto and not partition.wanted and not partition.is_blind
        partition.upto = final
        if nothing_waits:
            partition.last = final

    @staticmethod
    def _begin_anew(partition: Partition, era: str, head: int) -> None:
        partition.former.add(partition.era)
        partition.era, partition.last, partition.upto = era, 0, head
        partition.is_blind = True
        for seat in list(partition.rooms.values()):
            seat.begin_anew(era)

    # --- what is read ---------------------------------------------------------------------------------

    def ask(self) -> list[Request]:
        """What is to be read now. Each is answered with ``take`` or ``give_back`` before this is called again."""
        requests: list[Request] = []
        for id, partition in enumerate(self._partitions):
            if partition.last < partition.upto and partition.era is not None:
                rooms = list(partition.rooms) if partition.is_blind else [*partition.wanted & partition.rooms.keys()]
                if rooms:
                    requests.append(Request(id, partition.era, partition.last, partition.upto, rooms))
                else:
                    partition.last = partition.upto
            partition.is_blind = False
            partition.wanted = set()
        return requests

    def give_back(self, requests: Iterable[Request]) -> None:
        """They were not answered."""
        for request in requests:
            self._want_again(request)

    def _want_again(self, request: Request) -> None:
        # Rooms that came since are not missing: what they are to be handed is told of later.
        self._partitions[request.partition].wanted.update(request.rooms)

    def take(self, requests: Iterable[Request], rows: Iterable[Row]) -> None:
        """
        Hand on what was read: ``(id, era, head, gone, number, room, epoch, offset, origin, message)``.

        In order of the numbers; at least one row for each partition that is there, without a number if it has nothing.
        """
        found: dict[int, list[Row]] = {}
        for row in rows:
            found.setdefault(row[0], []).append(row)
        for request in requests:
            self._take_partition(request, found.get(request.partition, []))

    def _take_partition(self, request: Request, rows: Sequence[Row]) -> None:
        partition = self._partitions[request.partition]
        if not rows:
            return  # the server has lost it: its heads will say so, and everything begins anew
        _, era, head, gone, first, *_ = rows[0]
        if era != request.era or era != partition.era:
            if request.era == partition.era:
                self._begin_anew(partition, era, head)
            return  # it is read again, from the beginning
        if gone > request.last:
            for room in request.rooms:
                seat = partition.rooms.get(room)
                if seat is not None:
                    seat.miss(era, gone)
        upto = request.upto
        if first is not None:
            self._hand(partition, rows)
            if len(rows) == ROWS_PER_PARTITION:
                upto = rows[-1][4]
                self._want_again(request)
        partition.last = max(partition.last, min(upto, head))

    def _hand(self, partition: Partition, rows: Sequence[Row]) -> None:
        for _, _, _, _, number, name, epoch, offset, origin, message in rows:
            if number <= partition.last:
                continue
            seat = partition.rooms.get(name.decode())
            if seat is not None:
                position = None if offset is None else Position(epoch, offset)
                seat.hand(partition.era, number, Publication(message, origin.decode(), position))


def parsed(hint: str) -> list[tuple[int, int, int, frozenset[int] | None]]:
    """What ``hear_hint`` takes, from what stands in a notification after its sender: ``id:first:final:mark.mark;…``."""
    found: list[tuple[int, int, int, frozenset[int] | None]] = []
    for part in hint.split(";"):
        id, first, final, marks = part.split(":")
        known = None if marks == "*" else frozenset(int(mark, 16) for mark in marks.split("."))
        found.append((int(id), int(first), int(final), known))
    return found


def hint_of(marks: Iterable[int]) -> str:
    """The part of a hint that names rooms."""
    return ".".join(f"{mark:x}" for mark in marks)
